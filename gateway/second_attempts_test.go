package gateway

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// reserving is a route whose fallback has a second of every deadline.
func reserving(v8, v7 string, reserve string) string {
	return strings.Replace(withFallback(v8, v7, "breaker: {consecutive: 1, open_for: 1h, max_open_for: 1h}"),
		"DEADLINE_EXCEEDED]", "DEADLINE_EXCEEDED], reserve: "+reserve, 1)
}

// timeLeft reads grpc-timeout.
func timeLeft(t *testing.T, s *seen) time.Duration {
	t.Helper()
	text := s.one("grpc-timeout")
	var n int64
	var unit string
	if _, err := fmt.Sscanf(text, "%d%s", &n, &unit); err != nil {
		t.Fatalf("grpc-timeout %q: %v", text, err)
	}
	return time.Duration(n) * map[string]time.Duration{"n": 1, "u": time.Microsecond, "m": ms, "S": time.Second}[unit]
}

// A server that does not answer is left in time for the fallback to answer. It was told
// how long it had, and having had enough it is to blame.
func TestFallbackHasItsPartOfTheDeadline(t *testing.T) {
	t.Parallel()
	var given atomic.Value
	v8 := serve(t, func(w http.ResponseWriter, r *http.Request) {
		given.Store(r.Header.Get("Grpc-Timeout"))
		hangs(w, r)
	})
	v7 := serve(t, nil)
	r := start(t, reserving(v8.addr, v7.addr, "9700ms"))
	a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", "10S")
	if a.code != codes.OK || a.one("sluice-fallback") != "v8 DEADLINE_EXCEEDED" || a.one("sluice-attempts") != "2" {
		t.Fatalf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	// At most half of what is left is kept: five seconds.
	if got := timeLeft(t, v8.last(t)); got > 5*time.Second || got < 4*time.Second {
		t.Errorf("the first server was given %v, want half of ten seconds", got)
	}
	if got := timeLeft(t, v7.last(t)); got < 3*time.Second || got > 5*time.Second+100*ms {
		t.Errorf("the fallback was given %v, want the rest", got)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-fallback") != "v8 BREAKER_OPEN" {
		t.Errorf("got fields %v, want the version that did not answer to be cut off", a.header)
	}
}

// Where there is no other version to go to, nothing is kept from the one that is asked;
// nor from streams, which have no other version once they have begun.
func TestOnlyWhatCanFallBackGivesUpTime(t *testing.T) {
	t.Parallel()
	v8, v7 := serve(t, nil), serve(t, nil)
	r := start(t, reserving(v8.addr, v7.addr, "4s"))
	for _, c := range []struct {
		name, path string
		fields     []string
		server     *server
		least      time.Duration
		most       time.Duration
	}{
		{"unary", modelInfer, nil, v8, 4 * time.Second, 6 * time.Second},
		{"stream", modelStreamInfer, nil, v8, 8 * time.Second, 10 * time.Second},
		{"asked for by name", modelInfer, []string{"sluice-version", "v8"}, v8, 8 * time.Second, 10 * time.Second},
		{"the fallback itself", modelInfer, []string{"sluice-version", "v7"}, v7, 8 * time.Second, 10 * time.Second},
	} {
		if a := r.call(c.path, infer("fraud", ""), append(c.fields, "grpc-timeout", "10S")...); a.code != codes.OK {
			t.Fatalf("%s: got %v %q", c.name, a.code, a.message)
		}
		if got := timeLeft(t, c.server.last(t)); got < c.least || got > c.most {
			t.Errorf("%s: the server was given %v, want %v to %v", c.name, got, c.least, c.most)
		}
	}
	r.open(t, "fraud v7")
	if a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", "10S"); a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	if got := timeLeft(t, v8.last(t)); got < 8*time.Second {
		t.Errorf("the server was given %v, and the fallback is cut off", got)
	}
}

// A token makes calls fall back as if the chosen version had failed; nobody else can,
// and the token stays with the gateway.
func TestFallbackCanBeForcedByToken(t *testing.T) {
	t.Parallel()
	const token = "let it fall"
	v8, v7 := serve(t, nil), serve(t, nil)
	plain := withFallback(v8.addr, v7.addr)
	r := start(t, strings.Replace(plain, "DEADLINE_EXCEEDED]", fmt.Sprintf("DEADLINE_EXCEEDED], force_sha256: %x", sha256.Sum256([]byte(token))), 1))
	a := r.call(modelInfer, infer("fraud", ""), "sluice-fallback-force", token)
	if a.code != codes.OK || a.one("sluice-version") != "v7" || a.one("sluice-fallback") != "v8 FORCED" || a.one("sluice-attempts") != "1" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	if got := v7.last(t).one("sluice-fallback-force"); got != "" {
		t.Errorf("the server got the token: %q", got)
	}
	for _, c := range []struct {
		name, reason string
		code         codes.Code
		fields       []string
	}{
		{"wrong token", "FORCE_NOT_ALLOWED", codes.PermissionDenied, []string{"sluice-fallback-force", "let it rise"}},
		{"the digest itself", "FORCE_NOT_ALLOWED", codes.PermissionDenied, []string{"sluice-fallback-force", fmt.Sprintf("%x", sha256.Sum256([]byte(token)))}},
		{"of a version asked for by name", "NO_FALLBACK", codes.FailedPrecondition, []string{"sluice-fallback-force", token, "sluice-version", "v8"}},
	} {
		if a := r.call(modelInfer, infer("fraud", ""), c.fields...); a.code != c.code || a.info().GetReason() != c.reason {
			t.Errorf("%s: got %v %q, %v", c.name, a.code, a.message, a.details)
		}
	}
	if a := start(t, plain).call(modelInfer, infer("fraud", ""), "sluice-fallback-force", token); a.info().GetReason() != "FORCE_NOT_ALLOWED" {
		t.Errorf("a route that lets nobody: got %v %q", a.code, a.message)
	}
	if n := len(v8.calls()); n != 0 {
		t.Errorf("the chosen version got %d calls, want none", n)
	}
}

// pushesBack answers UNAVAILABLE with grpc-retry-pushback-ms, as often as times says,
// and then OK.
func pushesBack(ask string, times int64) (h http.HandlerFunc, calls *atomic.Int64) {
	calls = new(atomic.Int64)
	return func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > times {
			ok(w, r)
			return
		}
		w.Header().Set("Grpc-Retry-Pushback-Ms", ask)
		fails(codes.Unavailable, "busy")(w, r)
	}, calls
}

// A server says when it wants to be asked again, or that it does not.
func TestPushbackIsObeyed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ask      string
		timeout  string
		code     codes.Code
		attempts int64
		least    time.Duration
	}{
		{ask: "150", timeout: "10S", code: codes.OK, attempts: 2, least: 150 * ms},
		{ask: "-1", timeout: "10S", code: codes.Unavailable, attempts: 1},
		{ask: "soon", timeout: "10S", code: codes.Unavailable, attempts: 1}, // no number: as if negative
		{ask: "4900", timeout: "4S", code: codes.Unavailable, attempts: 1},  // past the deadline
		{ask: "5001", timeout: "1M", code: codes.Unavailable, attempts: 1},  // longer than a request is kept for it
	} {
		t.Run(c.ask, func(t *testing.T) {
			t.Parallel()
			answer, calls := pushesBack(c.ask, 1)
			r := start(t, routeTo("", serve(t, answer).addr))
			begun := time.Now()
			a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", c.timeout)
			if a.code != c.code || calls.Load() != c.attempts {
				t.Errorf("got %v %q after %d attempts, want %v after %d", a.code, a.message, calls.Load(), c.code, c.attempts)
			}
			if waited := time.Since(begun); waited < c.least || (c.least == 0 && waited > 3*time.Second) {
				t.Errorf("answered after %v, want at least %v and no longer than needed", waited, c.least)
			}
			if got := a.one("grpc-retry-pushback-ms"); c.code != codes.OK && got != c.ask {
				t.Errorf("the client got pushback %q, want %q", got, c.ask)
			}
		})
	}
}

// Another version is asked at once: the pause was for the one that is busy.
func TestPushbackHoldsForItsVersionAlone(t *testing.T) {
	t.Parallel()
	for _, ask := range []string{"60000", "200", "-1"} {
		answer, calls := pushesBack(ask, 100)
		r := start(t, withFallback(serve(t, answer).addr, serve(t, nil).addr))
		begun := time.Now()
		a := r.call(modelInfer, infer("fraud", ""))
		if a.code != codes.OK || a.one("sluice-fallback") != "v8 UNAVAILABLE" || calls.Load() != 1 {
			t.Errorf("%s: got %v %q, fields %v after %d calls", ask, a.code, a.message, a.header, calls.Load())
		}
		if waited := time.Since(begun); ask == "60000" && waited > 30*time.Second {
			t.Errorf("answered after %v", waited)
		}
	}
}

// The pause holds for all endpoints of the version: the busy one spoke for it.
func TestPushbackHoldsForAllOfItsVersion(t *testing.T) {
	t.Parallel()
	answer, calls := pushesBack("150", 1) // whichever endpoint is asked first
	h := serve(t, answer)
	r := start(t, routeTo("", h.addr, serve(t, answer).addr))
	begun := time.Now()
	a := r.call(modelInfer, infer("fraud", ""))
	if waited := time.Since(begun); a.code != codes.OK || waited < 150*ms || calls.Load() != 2 {
		t.Errorf("got %v %q after %v and %d calls, want the second call after 150 ms", a.code, a.message, waited, calls.Load())
	}
}

// A pause of zero is none: another endpoint may be asked at once, as without.
func TestPushbackOfZeroIsNoPause(t *testing.T) {
	t.Parallel()
	answer, calls := pushesBack("0", 1<<60)
	r := start(t, routeTo("", serve(t, answer).addr, serve(t, nil).addr))
	for range 10 {
		if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
			t.Errorf("got %v %q", a.code, a.message)
		}
	}
	if calls.Load() == 0 {
		t.Error("the busy endpoint was never asked: this shows nothing")
	}
}

// When the time has come and nobody may be asked any more, the client gets what the
// server said.
func TestServersStatusOutlivesThePause(t *testing.T) {
	t.Parallel()
	var r *rig
	answer, calls := pushesBack("200", 100)
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		guard, _ := r.director.guardOf("fraud v7")
		guard.Breaker().ForceOpen(time.Now())
		answer(w, req)
	})
	r = start(t, routeTo("", s.addr))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Unavailable || a.message != "busy" || a.one("grpc-retry-pushback-ms") != "200" || calls.Load() != 1 {
		t.Errorf("got %v %q, fields %v after %d calls", a.code, a.message, a.header, calls.Load())
	}
}

// However many versions and endpoints there are: a call is sent three times at most, and of those
// at most twice to the endpoints of one version. A version stands once in a plan.
func TestCallsAreSentThreeTimesAtMost(t *testing.T) {
	t.Parallel()
	busy := func() *server { return serve(t, fails(codes.Unavailable, "busy")) }
	four := []*server{busy(), busy(), busy(), busy()}
	three := []*server{busy(), busy(), busy()}
	two := []*server{busy(), serve(t, nil)}
	for _, c := range []struct {
		name, routes string
		servers      []*server
		code         codes.Code
		version      string
		calls        int
	}{
		{"four versions", fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v8, endpoints: [%q]}, {name: v7, endpoints: [%q]}, {name: v6, endpoints: [%q]}, {name: v5, endpoints: [%q]}]
    weights: {v8: 1}
    fallback: {to: [v7, v6, v5], on: [UNAVAILABLE]}
`, four[0].addr, four[1].addr, four[2].addr, four[3].addr), four, codes.Unavailable, "v6", 3},
		{"three endpoints", routeTo("", three[0].addr, three[1].addr, three[2].addr), three, codes.Unavailable, "v7", 2},
		{"a fallback to the version itself", strings.Replace(withFallback(two[0].addr, two[1].addr), "to: [v7]", "to: [v8, v7]", 1), two, codes.OK, "v7", 2},
	} {
		a := start(t, c.routes).call(modelInfer, infer("fraud", ""))
		n := 0
		for _, s := range c.servers {
			n += len(s.calls())
		}
		if a.code != c.code || a.one("sluice-version") != c.version || n != c.calls || a.one("sluice-attempts") != fmt.Sprint(c.calls) {
			t.Errorf("%s: got %v by %s after %s attempts, %d at the servers; want %v by %s after %d", c.name, a.code, a.one("sluice-version"), a.one("sluice-attempts"), n, c.code, c.version, c.calls)
		}
	}
}
