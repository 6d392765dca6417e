package relay

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// call opens a call without a body and returns the upstream's end of it.
func (g *rig) call(c *rawPeer, up *rawServer, id uint32) *rawPeer {
	g.t.Helper()
	c.request(id, true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	return s
}

func details(f frame) string {
	b, err := base64.RawStdEncoding.DecodeString(f.field("grpc-status-details-bin"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// retryOnce is a policy that asks for a second attempt whatever happened.
func retryOnce() *recorder {
	p := &recorder{}
	p.failed = func(c *Call, _ Outcome) Verdict {
		if c.Attempts() < 2 {
			return To(&p.dispatch)
		}
		return Pass()
	}
	p.dispatch.Unary = true
	return p
}

func TestErrorAfterEarlyHeadersOfAUnaryCallCanBeRetried(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(s *rawPeer)
	}{
		{"status in trailers", func(s *rawPeer) { s.trailers(1, "14") }},
		{"reset", func(s *rawPeer) { s.reset(1, http2.ErrCodeInternal) }},
		{"end without a status", func(s *rawPeer) { s.headers(1, true, "x", "y") }},
		{"end of data without trailers", func(s *rawPeer) { s.data(1, nil, true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := listenRaw(t, nil)
			g := newRig(t, Config{}, up.addr, retryOnce())
			cl := dialRaw(t, g.addr)
			s := g.call(cl, up, 1)
			s.answerHead(1)
			c.fail(s)
			s.next("the second attempt", isHeaders(3))
			s.headers(3, false, ":status", "200", "content-type", "application/grpc", "attempt", "second")
			s.data(3, []byte("answer"), false)
			s.trailers(3, "0")
			if h := cl.next("the answer", isHeaders(1)); h.field("attempt") != "second" {
				t.Errorf("HEADERS of the failed attempt reached the client: %v", h.fields)
			}
			if got := cl.next("trailers", isTrailers(1)).field("grpc-status"); got != "0" {
				t.Errorf("status %s, want 0", got)
			}
		})
	}
}

func TestStreamsCommitWithTheirHeaders(t *testing.T) {
	up := listenRaw(t, nil)
	p := retryOnce()
	p.dispatch.Unary = false
	g := newRig(t, Config{}, up.addr, p)
	cl := dialRaw(t, g.addr)
	s := g.call(cl, up, 1)
	s.answerHead(1)
	cl.next("HEADERS before anything else", isHeaders(1))
	s.reset(1, http2.ErrCodeInternal)
	f := cl.next("trailers", isTrailers(1))
	if got := f.field("grpc-status"); got != "13" {
		t.Errorf("status %s, want 13", got)
	}
	if got := details(f); got != "reset" {
		t.Errorf("details %q: the policy did not dress a status made in mid-answer", got)
	}
	waitFor(t, "the end", func() bool { return len(p.outcomes()) == 1 })
	if o := p.outcomes()[0]; !o.Committed || o.Kind != Reset || o.Reset != http2.ErrCodeInternal {
		t.Errorf("outcome %+v, want a committed reset", o)
	}
}

func TestTrailersOnlyKeepsItsForm(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{}
	g := newRig(t, Config{}, up.addr, p)
	cl := dialRaw(t, g.addr)
	s := g.call(cl, up, 1)
	s.trailersOnly(1, "5", "grpc-message", "no such thing", "sluice-version", "forged", "a-bin", "AAE=", "a-bin", "Ag==")
	f := cl.next("the answer", isHeaders(1))
	if !f.end || f.field("grpc-status") != "5" || f.field("grpc-message") != "no such thing" || f.field(":status") != "200" {
		t.Errorf("got %v, want the trailers-only answer as it was", f.fields)
	}
	if v := f.field("sluice-version"); v != "" {
		t.Errorf("a field reserved for the gateway came from upstream: %q", v)
	}
	var bins []string
	for _, h := range f.fields {
		if h.Name == "a-bin" {
			bins = append(bins, h.Value)
		}
	}
	if fmt.Sprint(bins) != "[AAE= Ag==]" {
		t.Errorf("a-bin = %v: duplicates and order must stay", bins)
	}
}

func TestAnswerBeforeTheRequestHasEnded(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	cl.request(1, false)
	s := up.accept()
	s.next("the call", isHeaders(1))
	s.answerHead(1)
	s.data(1, []byte("early"), false)
	s.trailers(1, "0")
	if f := s.next("RST_STREAM upstream", isReset4(1)); f.code != http2.ErrCodeCancel {
		t.Errorf("upstream was reset with %v, want CANCEL", f.code)
	}
	cl.next("trailers", isTrailers(1))
	if f := cl.next("RST_STREAM after the trailers", isReset4(1)); f.code != http2.ErrCodeNo {
		t.Errorf("the client was reset with %v, want NO_ERROR", f.code)
	}
	waitFor(t, "the end", func() bool { return len(g.policy.outcomes()) > 0 })
	if o := g.policy.outcomes(); len(o) != 1 || o[0].Kind != Answered || o[0].Code != 0 {
		t.Errorf("outcomes %+v, want one success", o)
	}
	// What the client had under way is not its fault.
	cl.data(1, []byte("late"), true)
	cl.sync()
	if late := cl.take(isReset4(1)); len(late) > 0 {
		t.Errorf("DATA that crossed the answer was reset: %v", late)
	}
}

func TestInformationalAnswersAreSkipped(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	s := g.call(cl, up, 1)
	s.headers(1, false, ":status", "100")
	s.headers(1, false, ":status", "103", "link", "</x>")
	s.answerHead(1)
	s.trailers(1, "0")
	if f := cl.next("HEADERS", isHeaders(1)); f.field(":status") != "200" || f.end {
		t.Errorf("first HEADERS %v", f.fields)
	}
	cl.next("trailers", isTrailers(1))
}

func TestAnswersThatAreNoGRPCAreMapped(t *testing.T) {
	html := func(status string) func(*rawPeer) {
		return func(s *rawPeer) {
			s.headers(1, false, ":status", status, "content-type", "text/html")
			s.data(1, []byte("<html>"), true)
		}
	}
	for _, c := range []struct {
		name string
		send func(*rawPeer)
		code string
		kind OutcomeKind
	}{
		{"HTTP 400", html("400"), "13", Invalid},
		{"HTTP 401", html("401"), "16", Invalid},
		{"HTTP 403", html("403"), "7", Invalid},
		{"HTTP 404", html("404"), "12", Invalid},
		{"HTTP 429", html("429"), "14", Invalid},
		{"HTTP 503", html("503"), "14", Invalid},
		{"HTTP 500", html("500"), "2", Invalid},
		{"HTTP 200 html", html("200"), "2", Invalid},
		{"trailers-only without status", func(s *rawPeer) {
			s.headers(1, true, ":status", "200", "content-type", "application/grpc")
		}, "2", Invalid},
		{"trailers without status", func(s *rawPeer) { s.answerHead(1); s.headers(1, true, "x", "y") }, "2", Invalid},
		{"DATA with END_STREAM", func(s *rawPeer) { s.answerHead(1); s.data(1, []byte("x"), true) }, "2", Invalid},
		{"DATA first", func(s *rawPeer) { s.data(1, []byte("x"), false) }, "13", Invalid},
		{"no :status", func(s *rawPeer) { s.headers(1, false, "content-type", "application/grpc") }, "13", Invalid},
		{":status of no digits", func(s *rawPeer) { s.headers(1, false, ":status", "abc") }, "13", Invalid},
		{"grpc-status of no digits", func(s *rawPeer) { s.trailersOnly(1, "abc") }, "13", Invalid},
		{"upper-case name", func(s *rawPeer) { s.headers(1, false, ":status", "200", "X", "y") }, "13", Invalid},
		{"second HEADERS in mid-answer", func(s *rawPeer) { s.answerHead(1); s.answerHead(1) }, "13", Invalid},
		{"pseudo-field in trailers", func(s *rawPeer) {
			s.answerHead(1)
			s.headers(1, true, ":status", "200", "grpc-status", "0")
		}, "13", Invalid},
		{"request's pseudo-field", func(s *rawPeer) { s.headers(1, true, ":status", "200", ":path", "/", "grpc-status", "0") }, "13", Invalid},
		{"header list too large", func(s *rawPeer) {
			s.headers(1, true, ":status", "200", "big", strings.Repeat("x", 20<<10), "grpc-status", "0")
		}, "13", Invalid},
		{"RST_STREAM(CANCEL)", func(s *rawPeer) { s.reset(1, http2.ErrCodeCancel) }, "1", Reset},
		{"RST_STREAM(ENHANCE_YOUR_CALM)", func(s *rawPeer) { s.reset(1, http2.ErrCodeEnhanceYourCalm) }, "8", Reset},
		{"RST_STREAM(INADEQUATE_SECURITY)", func(s *rawPeer) { s.reset(1, http2.ErrCodeInadequateSecurity) }, "7", Reset},
		{"RST_STREAM(NO_ERROR)", func(s *rawPeer) { s.reset(1, http2.ErrCodeNo) }, "13", Reset},
		{"REFUSED_STREAM", func(s *rawPeer) { s.reset(1, http2.ErrCodeRefusedStream) }, "14", Unprocessed},
		{"GOAWAY below", func(s *rawPeer) { s.goAway(0, http2.ErrCodeNo) }, "14", Unprocessed},
		{"connection lost", func(s *rawPeer) { _ = s.nc.Close() }, "14", Lost},
		{"status with HTTP 503", func(s *rawPeer) {
			s.headers(1, true, ":status", "503", "content-type", "application/grpc", "grpc-status", "8")
		}, "8", Answered},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := listenRaw(t, nil)
			g := newRig(t, Config{}, up.addr, nil)
			cl := dialRaw(t, g.addr)
			c.send(g.call(cl, up, 1))
			f := cl.next("the end", isTrailers(1))
			if got := f.field("grpc-status"); got != c.code {
				t.Errorf("status %s (%s), want %s", got, f.field("grpc-message"), c.code)
			}
			waitFor(t, "the call to be over", func() bool { return len(g.policy.outcomes()) == 1 })
			if o := g.policy.outcomes()[0]; o.Kind != c.kind || fmt.Sprint(o.Code) != c.code {
				t.Errorf("outcome %v with code %d, want %v with %s", o.Kind, o.Code, c.kind, c.code)
			}
			if o := g.policy.outcomes()[0]; o.Upstream != g.up {
				t.Errorf("outcome does not name the upstream")
			}
		})
	}
}

func TestConnectionSpecificFieldsOfAnswersAreRemoved(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	s := g.call(cl, up, 1)
	s.trailersOnly(1, "0", "connection", "close", "keep-alive", "timeout=1", "upgrade", "x", "te", "gzip", "kept", "yes")
	f := cl.next("the answer", isTrailers(1))
	if f.field("grpc-status") != "0" || f.field("kept") != "yes" {
		t.Errorf("got %v", f.fields)
	}
	for _, name := range []string{"connection", "keep-alive", "upgrade", "te"} {
		if v := f.field(name); v != "" {
			t.Errorf("%s: %s reached the client", name, v)
		}
	}
}

func TestTrailersWaitBehindUndeliveredData(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRawWith(t, g.addr, func(p *rawPeer) { p.credit = false }, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	s := g.call(cl, up, 1)
	s.answerHead(1)
	s.data(1, make([]byte, 25), false)
	s.trailers(1, "0")
	s.sync()
	cl.body(1, 10)
	cl.sync()
	if early := cl.take(anyHeaders); len(early) > 0 {
		t.Fatalf("trailers passed undelivered DATA: %v", early)
	}
	if n := g.Calls(); n != 1 {
		t.Errorf("%d calls under way, want 1: the answer is not delivered", n)
	}
	if n := g.slots(); n != 0 {
		t.Errorf("%d slots taken, want 0: the upstream is done", n)
	}
	cl.windowUpdate(1, 100)
	cl.body(1, 15)
	cl.next("trailers", isTrailers(1))
	waitFor(t, "the call to be over", func() bool { return len(g.policy.outcomes()) > 0 })
	if o := g.policy.outcomes(); len(o) != 1 || o[0].Kind != Answered {
		t.Errorf("outcomes %+v", o)
	}
}

// An upstream that breaks off leaves what it had sent to be delivered first.
func TestStatusOfALostUpstreamWaitsBehindItsData(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRawWith(t, g.addr, func(p *rawPeer) { p.credit = false }, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	s := g.call(cl, up, 1)
	s.answerHead(1)
	s.data(1, make([]byte, 25), false)
	s.sync()
	_ = s.nc.Close()
	waitFor(t, "the loss to be noticed", func() bool { return g.slots() == 0 })
	cl.windowUpdate(1, 100)
	cl.body(1, 25)
	if got := cl.next("trailers", isTrailers(1)).field("grpc-status"); got != "14" {
		t.Errorf("status %s, want 14", got)
	}
}

func TestCallersDeadlineIsPassedOnAndKept(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	begun := time.Now()
	cl.request(1, true, "grpc-timeout", "300m")
	s := up.accept()
	h := s.next("the call", isHeaders(1))
	d, ok := parseTimeout(h.field("grpc-timeout"))
	if !ok || d > 300*time.Millisecond || d < 290*time.Millisecond-time.Since(begun) {
		t.Errorf("grpc-timeout %q passed on, want what remains of 300m", h.field("grpc-timeout"))
	}
	if f := s.next("the reset", isReset4(1)); f.code != http2.ErrCodeCancel {
		t.Errorf("upstream was reset with %v, want CANCEL", f.code)
	}
	if got := cl.next("the answer", isTrailers(1)).field("grpc-status"); got != "4" {
		t.Errorf("status %s, want 4", got)
	}
	if took := time.Since(begun); took < 290*time.Millisecond || took > 2*time.Second {
		t.Errorf("the deadline of 300 ms took %v", took)
	}
}

func TestCallWithoutDeadlineEndsWhenNothingMoves(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, nil)
	g := newRig(t, Config{StreamIdle: 2 * time.Second}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	cl.request(1, false)
	s := up.accept()
	s.next("the call", isHeaders(1))
	for range 5 { // as long as bytes move, it goes on
		time.Sleep(500 * time.Millisecond)
		cl.data(1, []byte("x"), false)
		s.body(1, 1)
	}
	if got := cl.next("the answer", isTrailers(1)).field("grpc-status"); got != "4" {
		t.Errorf("status %s, want 4", got)
	}
}
