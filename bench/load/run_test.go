package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/bench/payload"
	"sluice/bench/rawcodec"
)

func TestEveryRequestIsMadeOnceAndAccountedFor(t *testing.T) {
	for name, rate := range map[string]float64{"closed": 0, "open": 2000} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, echo)
			r := run(t, configured(t, s), Plan{Rate: rate, For: time.Minute, Requests: 500})
			if r.OK != 500 || r.Calls() != 500 || s.begun.Load() != 500 || r.Latency.TotalCount() != 500 {
				t.Errorf("%d of %d calls answered, the server saw %d, %d latencies, want 500 of each; %v",
					r.OK, r.Calls(), s.begun.Load(), r.Latency.TotalCount(), r.Failures)
			}
			if want := uint64(500 * (answerSize + payload.FramePrefix)); r.Bytes != want || r.Messages != 500 {
				t.Errorf("%d bytes in %d messages, want %d in 500", r.Bytes, r.Messages, want)
			}
			if r.Elapsed <= 0 || r.PerSecond() <= 0 {
				t.Errorf("elapsed %v, %g per second, want some", r.Elapsed, r.PerSecond())
			}
		})
	}
}

func TestOneClientRunsAgainAndAgain(t *testing.T) {
	s := serve(t, echo)
	c := dial(t, configured(t, s))
	for i, rate := range []float64{0, 1000, 0, 1000} {
		r, err := c.Run(t.Context(), Plan{Rate: rate, For: time.Minute, Requests: 100})
		if err != nil || r.OK != 100 || s.begun.Load() != int64(100*(i+1)) {
			t.Fatalf("run %d: %d calls, the server has seen %d, %v", i, r.OK, s.begun.Load(), err)
		}
	}
}

// What varies has another value with every call, of those that were asked for, and the deadline among
// it is one to the server.
func TestVariedMetadataIsDrawnForEveryCall(t *testing.T) {
	var mu sync.Mutex
	users := make(map[string]bool)
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		m, _ := metadata.FromIncomingContext(stream.Context())
		due, ok := stream.Context().Deadline()
		if left := time.Until(due); !ok || left > 60*time.Second || left < 30*time.Second {
			return status.Errorf(codes.InvalidArgument, "a deadline in %v", left)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, user := range m.Get("x-user-id") {
			users[user] = true
		}
		return echo(n, stream)
	})
	config := configured(t, s)
	config.Varied = []Varied{{Name: "x-user-id", Prefix: "u", From: 98, To: 101}, {Name: "grpc-timeout", Suffix: "S", From: 50, To: 60}}
	if r := run(t, config, Plan{For: time.Minute, Requests: 400}); r.OK != 400 {
		t.Errorf("%d of 400 calls went well: %v", r.OK, r.Failures)
	}
	want := map[string]bool{"u98": true, "u99": true, "u100": true, "u101": true}
	if !maps.Equal(users, want) {
		t.Errorf("users %v, want %v", users, want)
	}
}

// Fields that fill several frames arrive as they were given, in their order, with every call: also once the server knows some of
// them, and with one that is drawn for each call at the end.
func TestFieldsOverAFrameArriveWhole(t *testing.T) {
	const calls = 200
	long := make([]string, 3)
	for i := range long {
		b := make([]byte, 3*maxFrame/2)
		for j := range b {
			b[j] = byte(' ' + 1 + (i+7*j)%90) // no two are alike, and no code makes them much shorter
		}
		long[i] = string(b)
	}
	var wrong atomic.Int64
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		m, _ := metadata.FromIncomingContext(stream.Context())
		if !slices.Equal(m.Get("x-long"), long) || !slices.Equal(m.Get("x-short"), []string{"short"}) || len(m.Get("x-user-id")) != 1 {
			wrong.Add(1)
		}
		return echo(n, stream)
	})
	config := configured(t, s)
	config.Varied = []Varied{{Name: "x-user-id", From: 1, To: 9}}
	config.Metadata = [][2]string{{"x-long", long[0]}, {"x-short", "short"}, {"x-long", long[1]}, {"x-long", long[2]}}
	if r := run(t, config, Plan{For: time.Minute, Requests: calls}); r.OK != calls || r.Reconnects != 0 || wrong.Load() != 0 {
		t.Errorf("%d of %d calls went well, %d with other fields, %d connections lost; %v", r.OK, calls, wrong.Load(), r.Reconnects, r.Failures)
	}
}

func TestTheClosedLoopKeepsEveryStreamBusyAndNoMore(t *testing.T) {
	var open, most atomic.Int64
	s := serve(t, func(_ int64, stream grpc.ServerStream) error {
		n := open.Add(1)
		defer open.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		sleep(stream.Context(), 20*time.Millisecond)
		return echo(0, stream)
	})
	run(t, configured(t, s), Plan{For: time.Minute, Requests: 64})
	if most.Load() != 8 {
		t.Errorf("%d calls at once, want 2 connections x 4 streams", most.Load())
	}
}

func TestAKnownLatencyIsWhatIsMeasured(t *testing.T) {
	const known = 50 * time.Millisecond
	s := serve(t, func(_ int64, stream grpc.ServerStream) error {
		sleep(stream.Context(), known)
		return echo(0, stream)
	})
	for name, rate := range map[string]float64{"closed": 0, "open": 100} {
		r := run(t, configured(t, s), Plan{Rate: rate, For: time.Minute, Requests: 40})
		// The histogram rounds to a thousandth. Upwards there is only the machine's load.
		if low := time.Duration(r.Latency.Min()) * time.Microsecond; low < known*999/1000 || r.Quantile(50) > 20*known {
			t.Errorf("%s: from %v, median %v, want both little above %v", name, low, r.Quantile(50), known)
		}
	}
}

// TestAStallShowsInAllTheCallsDueMeanwhile is about coordinated omission: a server that
// stalls for half a second makes the calls of that half second late, not just those that
// were under way.
func TestAStallShowsInAllTheCallsDueMeanwhile(t *testing.T) {
	const rate, stall, slow = 400, 500 * time.Millisecond, 100 * time.Millisecond
	var until atomic.Int64
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		if n == rate/4 {
			until.Store(time.Now().Add(stall).UnixNano())
		}
		sleep(stream.Context(), time.Until(time.Unix(0, until.Load())))
		return echo(0, stream)
	})
	r := run(t, configured(t, s), Plan{Rate: rate, Arrivals: Constant, For: time.Minute, Requests: rate})
	// Those due in the stall's first 400 ms waited at least 100.
	late := r.Latency.TotalCount() - countBelow(r, slow)
	if want := int64(rate * (stall - slow).Seconds() * 0.9); late < want {
		t.Errorf("%d calls took %v or longer, want at least %d of %d", late, slow, want, r.Calls())
	}
	if r.Waited == 0 {
		t.Error("no call waited for a stream, want those beyond 8")
	}

	until.Store(0)
	s.begun.Store(0)
	r = run(t, configured(t, s), Plan{For: time.Minute, Requests: rate})
	// Each time that this machine stalls, too, it meets eight others.
	if met := r.Latency.TotalCount() - countBelow(r, stall*9/10); met == 0 || met > late/2 {
		t.Errorf("closed loop: %d calls met the stall, of which 8 were under way; %d in an open loop", met, late)
	}
}

// countBelow counts latencies below a limit.
func countBelow(r *Result, limit time.Duration) (n int64) {
	for _, bar := range r.Latency.Distribution() {
		if bar.To < limit.Microseconds() {
			n += bar.Count
		}
	}
	return n
}

func TestCallsNeverAnsweredAreInTheLatencies(t *testing.T) {
	s := serve(t, func(_ int64, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return nil
	})
	config := configured(t, s)
	config.Timeout = 200 * time.Millisecond
	r := run(t, config, Plan{Rate: 100, Arrivals: Constant, For: 300 * time.Millisecond})
	if r.OK != 0 || r.Failures[outcomeTimedOut] == 0 || r.Failures[outcomeNotBegun] == 0 {
		t.Errorf("%d answered, %v, want calls that timed out and calls that found no stream", r.OK, r.Failures)
	}
	if r.Calls() < 25 || r.Calls() > 31 {
		t.Errorf("%d calls, want one per 10 ms of 300: a server that hangs is asked no less", r.Calls())
	}
	if got := r.Latency.TotalCount(); got != int64(r.Calls()) {
		t.Errorf("%d latencies of %d calls", got, r.Calls())
	}
	if top := r.Quantile(100); top < config.Timeout*99/100 {
		t.Errorf("the longest took %v, want at least the timeout", top)
	}
}

func TestFailuresAreNamedAndNotInTheLatencies(t *testing.T) {
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		switch n % 3 {
		case 0:
			return status.Error(codes.Unavailable, "no: 100 % of it")
		case 1:
			return status.Error(codes.NotFound, "what")
		}
		return echo(n, stream)
	})
	r := run(t, configured(t, s), Plan{For: time.Minute, Requests: 300})
	if r.OK != 100 || r.Failures["UNAVAILABLE"] != 100 || r.Failures["NOT_FOUND"] != 100 || r.Latency.TotalCount() != 100 {
		t.Errorf("%d OK, %v, %d latencies, want 100 of each", r.OK, r.Failures, r.Latency.TotalCount())
	}
	if want := map[string]string{"UNAVAILABLE": "no: 100 % of it", "NOT_FOUND": "what"}; !maps.Equal(r.Said, want) {
		t.Errorf("the server said %q, want %q", r.Said, want)
	}
}

func TestStreamedAnswersAreCountedToTheLast(t *testing.T) {
	const messages, size = 1000, 3000 // 3 MB per call: the windows must be widened
	s := serve(t, func(_ int64, stream grpc.ServerStream) error {
		for range messages {
			if err := stream.SendMsg(&rawcodec.Message{Body: make([]byte, size)}); err != nil {
				return err
			}
		}
		return nil
	})
	r := run(t, configured(t, s), Plan{For: time.Minute, Requests: 20})
	if r.OK != 20 || r.Messages != 20*messages || r.Bytes != 20*messages*(size+payload.FramePrefix) {
		t.Errorf("%d calls, %d messages, %d bytes, want 20, %d, %d; %v",
			r.OK, r.Messages, r.Bytes, 20*messages, 20*messages*(size+payload.FramePrefix), r.Failures)
	}
}

func TestLargeRequestsPassSmallWindows(t *testing.T) {
	var bytes atomic.Int64
	s := serve(t, echo, grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(64<<10),
		grpc.StatsHandler(received(&bytes)), grpc.MaxRecvMsgSize(2<<20))
	config := configured(t, s)
	var err error
	if config.Message, err = payload.Request(payload.Model, 1<<20); err != nil {
		t.Fatal(err)
	}
	r := run(t, config, Plan{For: time.Minute, Requests: 20})
	if want := int64(20 * (1<<20 - payload.FramePrefix)); r.OK != 20 || bytes.Load() != want {
		t.Errorf("%d calls, the server got %d bytes, want 20 and %d; %v", r.OK, bytes.Load(), want, r.Failures)
	}
}

func TestTimeEndsARun(t *testing.T) {
	s := serve(t, echo)
	c := dial(t, configured(t, s))
	for name, rate := range map[string]float64{"closed": 0, "open": 500} {
		var told atomic.Int64
		r, err := c.Run(t.Context(), Plan{Rate: rate, For: 1500 * time.Millisecond, Progress: func(p Progress) { told.Add(int64(p.OK)) }})
		if err != nil || r.OK == 0 || r.Elapsed > time.Minute {
			t.Errorf("%s: %d calls in %v, %v", name, r.OK, r.Elapsed, err)
		}
		if n := told.Load(); n == 0 || n > int64(r.OK) {
			t.Errorf("%s: progress told of %d calls of %d", name, n, r.OK)
		}
	}
}

func TestAnInterruptedRunReturnsWhatItHas(t *testing.T) {
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		if n > 10 {
			<-stream.Context().Done()
		}
		return echo(n, stream)
	})
	ctx, cancel := context.WithCancel(t.Context())
	cause := errors.New("enough")
	go func() {
		for s.begun.Load() < 18 {
			runtime.Gosched()
		}
		cancel()
	}()
	r, err := dial(t, configured(t, s)).Run(ctx, Plan{For: time.Minute})
	if !errors.Is(err, context.Canceled) || r.OK != 10 || r.Failures[outcomeInterrupted] != 8 {
		t.Errorf("%v, %d answered, %v, want the interruption, 10 and 8 given up (%v)", err, r.OK, r.Failures, cause)
	}
}

func TestPlansOutOfBoundsAreRefused(t *testing.T) {
	s := serve(t, echo)
	c := dial(t, configured(t, s))
	for _, plan := range []Plan{{}, {For: 2 * MaxFor}, {For: 1, Rate: -1}, {For: 1, Rate: math.NaN()}, {For: 1, Rate: 2 * MaxRate}} {
		if _, err := c.Run(t.Context(), plan); err == nil {
			t.Errorf("Run(%+v) succeeded", plan)
		}
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Connections = 0 }, func(c *Config) { c.Streams = MaxStreams + 1 },
		func(c *Config) { c.Timeout = 0 }, func(c *Config) { c.Message = nil },
		func(c *Config) { c.Metadata = [][2]string{{"X", "1"}} }, func(c *Config) { c.Metadata = [][2]string{{":path", "/"}} },
		func(c *Config) { c.Metadata = [][2]string{{"te", "x"}} }, func(c *Config) { c.Metadata = [][2]string{{"x", "a\nb"}} },
	} {
		config := configured(t, s)
		change(&config)
		if _, err := Dial(t.Context(), config); err == nil {
			t.Errorf("Dial(%+v) succeeded", config)
		}
	}
}

func ExampleResult() {
	r := Result{OK: 9900, Failures: map[string]uint64{"UNAVAILABLE": 100}, Elapsed: 10 * time.Second, CPU: 200 * time.Millisecond}
	fmt.Println(r.Calls(), r.PerSecond(), r.CPUPerCall())
	// Output: 10000 990 20µs
}
