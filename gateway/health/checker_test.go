package health

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestStateFollowsTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{check: {body: serving}})
	w := watch(startChecker(t), Target{Server: Server{Addr: s.addr}}, quick)
	if got := w.Status(); got != (Status{}) {
		t.Errorf("not asked yet: got %+v", got)
	}
	if got := w.next(t); got.State != Healthy || got.Why != "" || got.Since.IsZero() {
		t.Errorf("got %+v, want healthy", got)
	}
	s.turn(map[question]answer{check: {body: notServing}})
	if got := w.next(t); got.State != Unhealthy || !strings.Contains(got.Why, "not serving") {
		t.Errorf("got %+v, want unhealthy, by its own word", got)
	}
	s.turn(map[question]answer{check: {body: serving}})
	if got := w.next(t); got.State != Healthy || got.Why != "" {
		t.Errorf("got %+v, want healthy again", got)
	}
	s.turn(map[question]answer{check: {hang: true}})
	if got := w.next(t); got.State != Unhealthy || got.Why != "no answer" {
		t.Errorf("got %+v, want unhealthy for it hangs", got)
	}
	s.turn(map[question]answer{check: {code: codes.PermissionDenied}})
	if got := w.next(t); got.State != Healthy {
		t.Errorf("got %+v, want healthy: it answers", got)
	}
}

// listen takes connections and hands each to handle.
func listen(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			open = append(open, c)
			handle(c)
		}
		for _, c := range open {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func TestServersThatAreNone(t *testing.T) {
	for _, c := range []struct{ name, addr, why string }{
		{"nobody listens", "127.0.0.1:1", "connection refused"},
		{"hangs", listen(t, func(net.Conn) {}), "no answer"},
		{"closes", listen(t, func(c net.Conn) { _ = c.Close() }), ""},
		{"speaks HTTP/1", listen(t, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []Kind{Generic, OpenInference, TFServing, TorchServe} {
				settings := quick
				if c.why == "connection refused" {
					settings.Timeout = patience // a busy machine, too, gets to see why
				}
				w := watch(startChecker(t), Target{Server: Server{Addr: c.addr, Kind: kind}}, settings)
				if got := w.next(t); got.State != Unhealthy || got.Why == "" || !strings.Contains(got.Why, c.why) {
					t.Errorf("kind %d: got %+v, want unhealthy: %q", kind, got, c.why)
				}
			}
		})
	}
}

// A server that knows no question is not asked again, and still found out when it hangs.
func TestUnknownQuestionsAreNotAskedAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	w := watch(startChecker(t), Target{Server: Server{Addr: s.addr, Kind: OpenInference}}, quick)
	w.next(t)
	w.rounds(t, 5)
	if got := s.questions(); got[serverReady] != 1 || got[modelReady] != 1 || len(got) != 2 {
		t.Errorf("it was asked %v, want each once", got)
	}
	if n := s.accepted.Load(); n < 5 {
		t.Errorf("got %d connections in more than 5 rounds, want each to be greeted anew", n)
	}
}

// A question that a server did not know is asked again once it has been out of reach.
func TestServerThatComesBackIsAskedAnew(t *testing.T) {
	t.Parallel()
	p := newProber(Server{Addr: listen(t, func(net.Conn) {})}, 50*time.Millisecond)
	defer p.close()
	p.mute[check] = true
	if got := p.greeting(t.Context()); got.verdict != failed || p.mute[check] {
		t.Errorf("got %+v, muted %v", got, p.mute)
	}
}

func TestGreetingOfAServerThatIsWell(t *testing.T) {
	s := startServer(t, nil)
	p := newProber(Server{Addr: s.addr}, patience)
	if got := p.greeting(t.Context()); got.verdict != alive {
		t.Errorf("got %+v, want alive", got)
	}
}

// One missing answer is no proof; the one after it comes soon.
func TestSilenceNeedsConfirmation(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{check: {hang: true}})
	settings := Settings{Interval: time.Second, Timeout: 900 * time.Millisecond, FailAfter: 3}
	w := watch(startChecker(t), Target{Server: Server{Addr: s.addr}}, settings)
	if got := w.next(t); got.State != Unhealthy {
		t.Errorf("got %+v, want unhealthy", got)
	}
	if n := s.questions()[check]; n != 3 {
		t.Errorf("unhealthy after %d questions, want 3", n)
	}
}

// A server too busy to say how it is, while it answers calls, is not cut off.
func TestServerThatAnswersCallsIsAlive(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{check: {hang: true}})
	w := watch(startChecker(t), Target{Server: Server{Addr: s.addr}}, quick)
	calls := time.NewTicker(5 * time.Millisecond)
	defer calls.Stop()
	for s.questions()[check] < 6 {
		select {
		case at := <-calls.C:
			w.Answered(at)
		case got := <-w.told:
			t.Fatalf("got %+v while it answers calls", got)
		}
	}
	calls.Stop()
	if got := w.next(t); got.State != Unhealthy {
		t.Errorf("calls are not answered any more: got %+v, want unhealthy", got)
	}
}

// What two watchers want to know of one server is asked once.
func TestSameQuestionIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{serverReady: {body: yes}, modelReady: {body: yes}})
	c := startChecker(t)
	target := func(model string) Target { return Target{Server{s.addr, nil, OpenInference}, Model{model, ""}} }
	slow := Settings{Interval: 300 * time.Millisecond, Timeout: time.Second, FailAfter: 2}
	a, again, b := watch(c, target("a"), slow), watch(c, target("a"), slow), watch(c, target("b"), slow)
	for _, w := range []watched{a, again, b} {
		if got := w.next(t); got.State != Healthy {
			t.Errorf("got %+v", got)
		}
	}
	a.rounds(t, 3)
	b.rounds(t, 1)
	got := s.questions()
	if n := got[serverReady]; n < 3 || got[modelReady] > 2*n || s.accepted.Load() != 1 {
		t.Errorf("it was asked %v over %d connections, want two models per round, over one", got, s.accepted.Load())
	}
	if late := watch(c, target("a"), slow); late.next(t).State != Healthy {
		t.Error("who comes late is not told what is known")
	}
}

// Nothing is told after Stop, and a server nobody watches is left alone.
func TestStoppedWatchIsOver(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{check: {body: serving}})
	c := startChecker(t)
	a, b := watch(c, Target{Server: Server{Addr: s.addr}}, quick), watch(c, Target{Server: Server{Addr: s.addr}}, quick)
	a.next(t)
	b.next(t)
	a.Stop()
	a.Stop()
	s.turn(map[question]answer{check: {body: notServing}})
	b.next(t)
	if len(a.told) != 0 {
		t.Error("a stopped watch was told of a change")
	}
	b.Stop()
	if len(c.servers) != 0 {
		t.Errorf("%d servers are kept for nobody", len(c.servers))
	}
	before := s.questions()[check]
	time.Sleep(5 * quick.Interval)
	if n := s.questions()[check] - before; n > 1 { // one may have been under way
		t.Errorf("nobody watches, and %d more questions were asked", n)
	}
}

// Targets come and go while they are asked.
func TestWatchesComeAndGo(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{serverReady: {body: yes}, modelReady: {body: yes}})
	c := startChecker(t)
	settings := Settings{Interval: time.Millisecond, Timeout: time.Second, FailAfter: 1}
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 50 {
				w := c.Watch(Target{Server{s.addr, nil, OpenInference}, Model{fmt.Sprint(i % 3), ""}}, settings, func(Status) {})
				w.Answered(time.Now())
				time.Sleep(time.Millisecond)
				w.Status()
				w.Stop()
			}
		}()
	}
	for range 4 {
		<-done
	}
	if len(c.servers) != 0 {
		t.Errorf("%d servers are kept for nobody", len(c.servers))
	}
}

// A server with very many models is asked about some of them at a time, and about each
// in the end. If it does not answer itself, that concerns them all.
func TestManyModelsAreAskedAboutInTurn(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[question]answer{serverReady: {body: yes}, modelReady: {body: yes}})
	c := startChecker(t)
	settings := Settings{Interval: 50 * time.Millisecond, Timeout: patience, FailAfter: 1}
	const models = 3*modelsPerRound + 1
	var all []watched
	for i := range models {
		all = append(all, watch(c, Target{Server{s.addr, nil, OpenInference}, Model{fmt.Sprint(i), ""}}, settings))
	}
	for _, w := range all {
		if got := w.next(t); got.State != Healthy {
			t.Fatalf("got %+v", got)
		}
	}
	if n := s.questions(); n[modelReady] > modelsPerRound*n[serverReady] {
		t.Errorf("asked %v, want at most %d models per round", n, modelsPerRound)
	}
	s.turn(map[question]answer{serverReady: {code: codes.Unavailable}})
	began := s.questions()[serverReady]
	for _, w := range all {
		if got := w.next(t); got.State != Unhealthy {
			t.Fatalf("got %+v", got)
		}
	}
	if n := s.questions()[serverReady] - began; n > 2 {
		t.Errorf("it took %d rounds to know that the server is gone", n)
	}
}

// A model whose answer never comes keeps no other model from being asked about.
func TestModelThatHangsHoldsUpNoOther(t *testing.T) {
	srv := &server{targets: map[Model]*target{}, settings: quick}
	var names []Model
	for _, n := range []string{"a", "b", "c"} {
		m := Model{n, ""}
		names = append(names, m)
		srv.targets[m] = &target{model: m}
	}
	if got := srv.due(2); !slices.Equal(got, names[:2]) {
		t.Errorf("got %v first", got)
	}
	if got := srv.due(2); !slices.Equal(got, []Model{names[2], names[0]}) {
		t.Errorf("got %v second", got)
	}
	srv.last = names[0] // it hung
	if got := srv.due(3); !slices.Equal(got, []Model{names[1], names[2], names[0]}) {
		t.Errorf("got %v, want the one that hung last", got)
	}
}

// TestRecord tells how findings add up.
func TestRecord(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const never = -time.Hour
	type step struct {
		verdict  verdict
		answered time.Duration // of a call, after the question
		want     State
	}
	for name, steps := range map[string][]step{
		"not asked":                   {{unasked, never, Unknown}},
		"one failure at the start":    {{failed, never, Unknown}},
		"two failures at the start":   {{failed, never, Unknown}, {failed, never, Unhealthy}},
		"a failure, then an answer":   {{failed, never, Unknown}, {alive, never, Healthy}, {failed, never, Healthy}, {failed, never, Unhealthy}},
		"says so itself":              {{alive, never, Healthy}, {refusing, never, Unhealthy}, {failed, never, Unhealthy}, {alive, never, Healthy}},
		"says so, whatever calls do":  {{refusing, time.Second, Unhealthy}},
		"answers calls meanwhile":     {{failed, time.Second, Unknown}, {failed, time.Second, Unknown}, {failed, never, Unknown}, {failed, never, Unhealthy}},
		"answers calls between two":   {{failed, never, Unknown}, {failed, time.Second, Unknown}, {failed, never, Unknown}},
		"calls are answered in panic": {{failed, never, Unknown}, {failed, never, Unhealthy}, {failed, time.Second, Unhealthy}},
	} {
		var r record
		for i, s := range steps {
			before := r.State
			changed := r.add(finding{verdict: s.verdict}, now, now.Add(2*time.Second), now.Add(s.answered), 2)
			if r.State != s.want || changed != (before != s.want) {
				t.Errorf("%s, step %d: got %v, changed %v, want %v", name, i, r.State, changed, s.want)
			}
			now = now.Add(3 * time.Second)
		}
	}
}

// BenchmarkIdle is what it costs to ask a server that is well, everything in this
// process: connection, question, answer.
func BenchmarkIdle(b *testing.B) {
	s := startServer(b, map[question]answer{check: {body: serving}})
	p := newProber(Server{Addr: s.addr}, patience)
	defer p.close()
	b.ReportAllocs()
	for b.Loop() {
		if f := p.aboutServer(context.Background()); f.verdict != alive {
			b.Fatal(f.why)
		}
	}
}
