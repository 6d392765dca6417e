package gateway

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// routeTo is a route whose only version is at addrs. more is added to the version.
func routeTo(more string, addrs ...string) string {
	return fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: ["%s"]%s}
    weights: {v7: 1}
`, strings.Join(addrs, `", "`), more)
}

func TestAnswersSayWhoServed(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo("", s.addr))
	a := r.call(modelInfer, infer("fraud", ""), "x-request-id", "order-17")
	if a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	for key, want := range map[string]string{
		"sluice-model": "fraud", "sluice-version": "v7", "sluice-attempts": "1", "sluice-revision": "1", "x-request-id": "order-17",
	} {
		if got := a.one(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
		if got := a.trailer[key]; got != nil {
			t.Errorf("%s: got %q in the trailers too", key, got)
		}
	}
	if got := s.last(t).one("x-request-id"); got != "order-17" {
		t.Errorf("the server got x-request-id %q", got)
	}
}

// A trailers-only answer keeps its form: clients read its fields as trailers.
func TestTrailersOnlyAnswerKeepsItsForm(t *testing.T) {
	r := start(t, routeTo("", serve(t, fails(codes.NotFound, "none")).addr))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.one("grpc-status") != "5" || a.one("sluice-version") != "v7" || len(a.trailer) > 0 {
		t.Errorf("got header %v, trailer %v; want one block", a.header, a.trailer)
	}
}

func TestRequestIDsAreMadeWhereTheyCannotBeKept(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo("", s.addr))
	made := regexp.MustCompile(`^[0-9a-f]{32}$`)
	before := map[string]bool{}
	for _, id := range []string{"", "two words", strings.Repeat("x", 129), "umlaut-\u00fc"} {
		var fields []string
		if id != "" {
			fields = []string{"x-request-id", id}
		}
		a := r.call(modelInfer, infer("fraud", ""), fields...)
		got := a.one("x-request-id")
		if !made.MatchString(got) || before[got] {
			t.Errorf("x-request-id %q: answered with %q, want a new one", id, got)
		}
		before[got] = true
		if seen := s.last(t).one("x-request-id"); seen != got {
			t.Errorf("x-request-id %q: the server got %q, the caller %q", id, seen, got)
		}
	}
	if a := r.call(modelInfer, infer("fraud", ""), "x-request-id", "a", "x-request-id", "b"); a.one("x-request-id") != "a" {
		t.Errorf("of two ids: got %q, want the first", a.one("x-request-id"))
	}
}

// claims answers with fields that only a gateway may set, and one that it may.
func claims(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Sluice-Version", "v99")
	w.Header().Set("Sluice-Fallback", "v98 breaker")
	w.Header().Set("X-Request-Id", "mine")
	w.Header().Set("X-Model-Server", "triton")
	ok(w, r)
	w.Header().Set(http.TrailerPrefix+"Sluice-Cost", "3")
}

func TestServersCannotSpeakForTheGateway(t *testing.T) {
	r := start(t, routeTo("", serve(t, claims).addr))
	a := r.call(modelInfer, infer("fraud", ""), "x-request-id", "order-17")
	for key, want := range map[string]string{
		"sluice-version": "v7", "sluice-fallback": "", "x-request-id": "order-17", "x-model-server": "triton",
	} {
		if got := a.one(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if got := a.trailer["sluice-cost"]; got != nil {
		t.Errorf("sluice-cost: got %q in the trailers", got)
	}
}

func TestTrustedServersMaySpeakForThemselves(t *testing.T) {
	r := start(t, routeTo(", trust_upstream: true", serve(t, claims).addr))
	a := r.call(modelInfer, infer("fraud", ""), "x-request-id", "order-17")
	for key, want := range map[string]string{
		"sluice-version": "v7", "sluice-fallback": "v98 breaker", "x-request-id": "order-17",
	} {
		if got := a.one(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if got := a.trailer["sluice-cost"]; len(got) != 1 || got[0] != "3" {
		t.Errorf("sluice-cost: got %q in the trailers, want 3", got)
	}
}

func TestLocalAnswersCarryNoModel(t *testing.T) {
	r := start(t, routeTo("", "127.0.0.1:1"))
	a := r.call("/inference.GRPCInferenceService/ServerLive", message(nil))
	if a.code != codes.OK || a.one("sluice-revision") != "1" || a.one("sluice-attempts") != "1" || a.one("x-request-id") == "" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	if a.header["sluice-model"] != nil || a.header["sluice-version"] != nil {
		t.Errorf("got fields %v of a model", a.header)
	}
}

// What the relay refuses before the director has seen it carries the same fields.
func TestCallsThatAreNoCallsGetFieldsToo(t *testing.T) {
	r := start(t, routeTo("", "127.0.0.1:1"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr().String()+modelInfer, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("got HTTP status %d, want 405", resp.StatusCode)
	}
	for key, want := range map[string]string{"Sluice-Attempts": "0", "Sluice-Revision": "1"} {
		if got := resp.Header.Get(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if len(resp.Header.Get("X-Request-Id")) != 32 {
		t.Errorf("x-request-id: got %q", resp.Header.Get("X-Request-Id"))
	}
}
