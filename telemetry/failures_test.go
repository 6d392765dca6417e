package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc/codes"
)

// TestMistakesHideNoFaults, nor faults of one version those of another: in lines, in what is remembered, and in spans.
func TestMistakesHideNoFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // written by one goroutine, and read when it has ended
		k := &keeper{why: make(map[string]int)}
		tel := New(Config{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Export: Export{Spans: k, Sampling: NewSampling(true, 0), Resource: resource.Empty()},
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); tel.Run(ctx) }()
		record := func(s *Series, n int, code codes.Code) {
			for range n {
				c := Call{ID: 1 << 63, Series: s, Opened: time.Now(), Ended: time.Now(), Code: uint32(code)}
				tel.Begin(&c, "")
				tel.Record(&c)
			}
			synctest.Wait()
		}
		fraud, rank := tel.Series("fraud", "v7"), tel.Series("rank", "v1")
		for range 60 { // of the second in which all that may come at once has come
			record(tel.Unknown(), 300, codes.NotFound)
			record(fraud, 50, codes.InvalidArgument)
			record(fraud, 1, codes.Unavailable)
			time.Sleep(time.Second)
		}
		for range 100 {
			record(fraud, 10, codes.Unavailable)
		}
		record(rank, 3, codes.Internal)
		stop()
		<-ended
		count := func(parts ...string) (n int) {
			for line := range strings.Lines(log.String()) {
				all := true
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					n++
				}
			}
			return n
		}
		if n := count("call failed", "model=fraud", "code=UNAVAILABLE"); n < 60+lineBurst {
			t.Errorf("%d lines for faults of fraud, want each of one a second, and a burst", n)
		}
		if n := count("call failed", "model=rank", "level=WARN"); n != 3 {
			t.Errorf("%d lines for 3 faults of another model in the same moment", n)
		}
		if n := count("call failed", "level=INFO"); n > lineBurst+61*linesPerSecond {
			t.Errorf("%d lines for mistakes", n)
		}
		if count("without a line each", "mistakes", "level=INFO") == 0 || count("calls failed without a line each", "level=WARN") == 0 {
			t.Errorf("what got no line is not told of, by kind:\n%s", log.String()[max(0, log.Len()-500):])
		}
		faults := 0
		for _, f := range tel.Failures() {
			if f.Code == "UNAVAILABLE" || f.Code == "INTERNAL" {
				faults++
			}
		}
		if latest := tel.Failures()[0]; faults != lastCalls || latest.Model != "rank" {
			t.Errorf("%d faults are remembered, the latest of %s; want %d, of rank", faults, latest.Model, lastCalls)
		}
	})
}

// TestRefusalsHideNoFaults: while a version is cut off, many calls a second are refused, and one probe in a while fails: that is
// the call that says why, in lines, among what is remembered and in spans.
func TestRefusalsHideNoFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // written by one goroutine, and read when it has ended
		k := &keeper{why: make(map[string]int)}
		tel := New(Config{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Export: Export{Spans: k, Sampling: NewSampling(true, 0), Resource: resource.Empty()},
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); tel.Run(ctx) }()
		v8, v9 := tel.Series("fraud", "v8"), tel.Series("other", "v9")
		refused := func(s *Series, n int) {
			for range n {
				c := Call{ID: 1 << 63, Series: s, Opened: time.Now(), Ended: time.Now(), Code: uint32(codes.Unavailable), Reason: "BREAKER_OPEN"}
				tel.Begin(&c, "")
				tel.Record(&c)
			}
			synctest.Wait()
		}
		const probes = 20
		for i := range probes {
			refused(v8, 3*tailBurst)
			now := time.Now()
			c := Call{ID: 1 << 63, Series: v8, RequestID: fmt.Sprint("probe-", i), Opened: now, Ended: now, Code: uint32(codes.Internal)}
			tel.Begin(&c, "")
			a := Attempt{Series: v8, Started: now, Ended: now, Outcome: "failure", Reason: "INTERNAL", Code: uint32(codes.Internal)}
			var p Traceparent
			c.BeginAttempt(&a, &p)
			c.EndAttempt(&a)
			if tel.Record(&c); c.why != keptFailed {
				t.Errorf("the spans of probe %d are not kept", i)
			}
			time.Sleep(time.Second)
		}
		refused(v9, 1)
		stop()
		<-ended
		remembered := 0
		for _, f := range tel.Failures() {
			if strings.HasPrefix(f.RequestID, "probe-") {
				remembered++
			}
		}
		if n := strings.Count(log.String(), "request_id=probe-"); n != probes || remembered != probes {
			t.Errorf("%d lines for %d probes that failed, %d are remembered", n, probes, remembered)
		}
		if n := strings.Count(log.String(), "reason=BREAKER_OPEN"); n < lineBurst || n > 2*lineBurst+probes*linesPerSecond {
			t.Errorf("%d lines for calls refused", n)
		}
		if !strings.Contains(log.String(), "model=other version=v9 code=UNAVAILABLE") || !strings.Contains(log.String(), `level=WARN msg="calls were refused without a line each"`) {
			t.Error("no line for what another version refuses, or none for those without one")
		}
	})
}

// TestLevelsSayWhoseFaultItIs: the gateway's own lack of room is its operators', a method that nobody has is its caller's.
func TestLevelsSayWhoseFaultItIs(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		reason string
		level  string
	}{
		{codes.Internal, "", "WARN"}, {codes.ResourceExhausted, "IN_FLIGHT_LIMIT", "WARN"}, {codes.Unavailable, "NO_ENDPOINT", "WARN"},
		{codes.ResourceExhausted, "", "INFO"}, {codes.Unimplemented, "METHOD_UNKNOWN", "INFO"}, {codes.NotFound, "MODEL_NOT_FOUND", "INFO"},
	} {
		var log bytes.Buffer
		tel := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ended := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { defer close(ended); tel.Run(ctx) }()
		tel.Record(&Call{Series: tel.Series("fraud", "v7"), Ended: time.Now(), Code: uint32(c.code), Reason: c.reason})
		stop()
		<-ended
		if !strings.Contains(log.String(), "level="+c.level+` msg="call failed"`) {
			t.Errorf("%v %s, want it at level %s: %s", c.code, c.reason, c.level, log.String())
		}
	}
}

// TestMistakesLeaveSpansToFaults.
func TestMistakesLeaveSpansToFaults(t *testing.T) {
	k := &keeper{why: make(map[string]int)}
	tel := New(Config{Logger: slog.New(slog.DiscardHandler), Export: Export{Spans: k, Sampling: NewSampling(true, 0), Resource: resource.Empty()}})
	s, now := tel.Series("fraud", "v7"), time.Now()
	kept := func(code codes.Code) bool {
		c := Call{ID: 1 << 63, Series: s, Opened: now, Ended: now, Code: uint32(code)}
		tel.Begin(&c, "")
		tel.Record(&c)
		return c.why != notKept
	}
	for range tailBurst {
		kept(codes.NotFound)
	}
	if kept(codes.NotFound) {
		t.Error("mistakes are kept without limit")
	}
	if !kept(codes.Unavailable) {
		t.Error("a fault is not kept for the mistakes before it")
	}
}

// TestFallbacksEndWithTheVersionTheyAreFrom: a version that stays for years has had many canaries.
func TestFallbacksEndWithTheVersionTheyAreFrom(t *testing.T) {
	tel := New(Config{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	stable := tel.Series("fraud", "stable")
	fallBack := func(from *Series) {
		now := time.Now()
		tel.Record(&Call{Series: stable, Primary: from, FallbackReason: "INTERNAL", Opened: now, Ended: now})
	}
	exposed := func() (from []string) {
		families, err := tel.Registry().Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "sluice_fallbacks_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "from" {
						from = append(from, fmt.Sprint(l.GetValue(), "=", m.GetCounter().GetValue()))
					}
				}
			}
		}
		return from
	}
	kept := tel.Series("fraud", "v0")
	var last *Series
	for i := range 50 {
		last = tel.Series("fraud", fmt.Sprint("canary", i))
		fallBack(last)
		fallBack(kept)
		tel.Retain(func(_, version string) bool { return !strings.HasPrefix(version, "canary") })
	}
	fallBack(last) // one that was under way
	if got := exposed(); len(got) != 1 || got[0] != "v0=50" {
		t.Errorf("fallbacks are exposed from %v, want from v0 alone, 50 times", got)
	}
	if n := len(*stable.fallbacks.known.Load()); n > 2 {
		t.Errorf("%d counters are kept", n)
	}
}

// The last calls are remembered, the latest first.
func TestLatestCallsAreRemembered(t *testing.T) {
	for _, n := range []int{1, lastCalls, 2*lastCalls + 7} {
		l := new(latest)
		for i := range n {
			l.remember(Failure{Attempts: i})
		}
		recent := l.recent()
		if len(recent) != min(n, lastCalls) {
			t.Fatalf("%d of %d are remembered, want %d at most", len(recent), n, lastCalls)
		}
		for i, f := range recent {
			if want := n - 1 - i; f.Attempts != want {
				t.Fatalf("of %d, number %d is remembered at %d, want %d", n, f.Attempts, i, want)
			}
		}
	}
}
