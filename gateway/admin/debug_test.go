package admin_test

import (
	"html"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/admin"
	"sluice/gateway/health"
	"sluice/telemetry"
)

// page gets a page with a header Authorization, or none.
func (r *rig) page(path, authorization string) (code int, body string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// The page shows who serves what, who is cut off, and what failed last; what it shows it does not execute, and
// it needs nothing from elsewhere.
func TestDebugPage(t *testing.T) {
	r := newRig(t, func(c *admin.Config) {
		c.Failures = func() []telemetry.Failure {
			return []telemetry.Failure{{At: time.Now(), RequestID: "<script>id-77", Model: "fraud", Version: "v8", Code: "INTERNAL"}}
		}
		c.Fallbacks = func() []telemetry.Failure {
			return []telemetry.Failure{{At: time.Now(), RequestID: "id-78", Model: "fraud", Version: "v6", Code: "OK", Primary: "v8", Fallback: "BREAKER_OPEN"}}
		}
	})
	route, _ := r.router.Current().Route("fraud")
	v8, _ := route.Version("v8")
	r.gateway.Guard(v8).Breaker().ForceOpen(time.Now())
	code, page := r.page("/debug/", "")
	if code != http.StatusOK {
		t.Fatalf("got %d %s", code, page)
	}
	for _, part := range []string{"fraud", "v7", "v8", "v9", r.alive, r.dead, "forced open", "&lt;script&gt;id-77", "id-78", "v8 BREAKER_OPEN", "pprof/"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q:\n%s", part, page)
		}
	}
	for _, part := range []string{"<script", "http://", "https://", "src="} {
		if strings.Contains(page, part) {
			t.Errorf("the page has %q", part)
		}
	}
	if _, page := r.page("/debug/?model=x", ""); strings.Contains(page, "v7") {
		t.Error("a model that was not asked for is shown")
	}
	if code, _ := r.page("/debug/pprof/heap?debug=1", ""); code != http.StatusOK {
		t.Errorf("heap: got %d", code)
	}
	if code, _ := r.page("/debug/pprof/cmdline", ""); code != http.StatusNotFound {
		t.Errorf("the command line, with whatever passwords are on it: got %d, want none", code)
	}
}

// TestDebugPageSaysWhichEndpointsAreUnhealthy, and since when, as sluice status does: nobody has called them.
func TestDebugPageSaysWhichEndpointsAreUnhealthy(t *testing.T) {
	r := newRig(t)
	route, _ := r.router.Current().Route("fraud")
	v9, _ := route.Version("v9")
	var is gateway.EndpointStatus
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if all := r.gateway.Endpoints(v9); len(all) == 1 && all[0].Health.State == health.Unhealthy {
			is = all[0]
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v is not found unhealthy", r.gateway.Endpoints(v9))
		}
	}
	want := html.EscapeString(is.Health.Why) + "</span> since " + is.Health.Since.UTC().Format(time.DateTime) + " UTC"
	if _, page := r.page("/debug/", ""); !strings.Contains(page, want) {
		t.Errorf("the page lacks %q:\n%s", want, page)
	}
}

// With tokens, the page is for those who have one, and browsers can give it as a password.
func TestDebugPageNeedsAToken(t *testing.T) {
	r := newRig(t, func(c *admin.Config) { c.Tokens = openTokens(t, tokenLines) })
	basic := func(password string) string {
		req := &http.Request{Header: make(http.Header)}
		req.SetBasicAuth("anna", password)
		return req.Header.Get("Authorization")
	}
	for authorization, want := range map[string]int{
		"":                       http.StatusUnauthorized,
		"Bearer nonsense":        http.StatusUnauthorized,
		"Other " + viewToken:     http.StatusUnauthorized,
		basic("nonsense"):        http.StatusUnauthorized,
		"Bearer " + viewToken:    http.StatusOK,
		"Bearer " + operateToken: http.StatusOK,
		basic(viewToken):         http.StatusOK,
	} {
		for _, path := range []string{"/debug/", "/debug/pprof/goroutine?debug=1"} {
			if code, _ := r.page(path, authorization); code != want {
				t.Errorf("%s with %q: got %d, want %d", path, authorization, code, want)
			}
		}
	}
}
