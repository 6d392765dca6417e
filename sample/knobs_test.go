package sample

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestKnobsRefuseWhatMakesNoSense(t *testing.T) {
	var knobs Knobs
	if err := knobs.Set(Behaviour{Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		behaviour Behaviour
		want      string
	}{
		{Behaviour{Delay: -1}, "Delay: got -1ns, want 0 or more"},
		{Behaviour{Jitter: -1}, "Jitter: got -1ns, want 0 or more"},
		{Behaviour{ErrorRate: 1.5}, "ErrorRate: got 1.5, want 0 to 1"},
		{Behaviour{ErrorRate: math.NaN()}, "ErrorRate: got NaN, want 0 to 1"},
		{Behaviour{ErrorCode: 17}, "ErrorCode: got 17, want a gRPC code, 0 to 16"},
	} {
		if err := knobs.Set(test.behaviour); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Set(%+v) = %v, want %q", test.behaviour, err, test.want)
		}
	}
	if got := knobs.Behaviour(); got != (Behaviour{Delay: time.Second}) {
		t.Errorf("after refusals the behaviour is %+v, want the one before", got)
	}
}

func TestDelayLiesBetweenDelayAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var knobs Knobs
		if err := knobs.Set(Behaviour{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		seen := make(map[time.Duration]bool)
		for range 100 {
			begin := time.Now()
			if err := knobs.inference(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			if took < 10*time.Millisecond || took >= 15*time.Millisecond {
				t.Fatalf("took %v, want 10 to 15 ms", took)
			}
			seen[took] = true
		}
		if len(seen) < 50 {
			t.Errorf("100 delays took only %d different values", len(seen))
		}
	})
}

func TestDelayEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var knobs Knobs
		if err := knobs.Set(Behaviour{Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := knobs.inference(ctx); status.Code(err) != codes.DeadlineExceeded || time.Since(begin) != time.Second {
			t.Errorf("inference() = %v after %v, want DEADLINE_EXCEEDED after 1s", err, time.Since(begin))
		}
	})
}

func TestErrorRateIsTheShareOfFailures(t *testing.T) {
	r := start(t, "v1")
	req := NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750})
	const calls = 1000
	for _, test := range []struct {
		behaviour Behaviour
		code      codes.Code
		min, max  int // 6.4 sigma around the mean: missed in 1 of 8e9 runs
	}{
		{Behaviour{}, codes.OK, 0, 0},
		{Behaviour{ErrorRate: 0.3}, codes.Unavailable, 208, 394},
		{Behaviour{ErrorRate: 1, ErrorCode: codes.Internal}, codes.Internal, calls, calls},
	} {
		r.set(t, test.behaviour)
		failed := 0
		for range calls {
			_, err := r.client.ModelInfer(t.Context(), req)
			if err == nil {
				continue
			}
			failed++
			if status.Code(err) != test.code {
				t.Fatalf("%+v: failed with %v", test.behaviour, err)
			}
		}
		if failed < test.min || failed > test.max {
			t.Errorf("%+v: %d of %d calls failed, want %d to %d", test.behaviour, failed, calls, test.min, test.max)
		}
	}
	c := r.server.Counters()
	if c.Begun != 3*calls || c.Answered+c.Failed != c.Begun || c.Failed < calls {
		t.Errorf("counters = %+v, want %d calls answered or failed", c, 3*calls)
	}
}

// TestHungCallsEndWithTheirDeadline and leave nothing behind on the server.
func TestHungCallsEndWithTheirDeadline(t *testing.T) {
	r := start(t, "v1")
	r.set(t, Behaviour{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			_, err := r.client.ModelInfer(ctx, NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}))
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("hung call: %v, want DEADLINE_EXCEEDED", err)
			}
		})
	}
	calls.Go(func() {
		stream, err := r.client.ModelStreamInfer(ctx)
		if err == nil {
			err = stream.Send(NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}))
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("hung stream: %v, want DEADLINE_EXCEEDED", err)
		}
	})
	calls.Wait()
	waitFor(t, r.server, func(c Counters) bool { return c.InFlight() == 0 })
	// A call may still be about to begin, only to see that it is over.
	if c := r.server.Counters(); c.Begun == 0 || c.Answered+c.Failed != 0 {
		t.Errorf("counters = %+v, want every call cancelled", c)
	}
}

// TestKnobsTurnWhileCallsRun is for the race detector.
func TestKnobsTurnWhileCallsRun(t *testing.T) {
	r := start(t, "v1")
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 100 {
				_, err := r.client.ModelInfer(t.Context(), NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}))
				if c := status.Code(err); c != codes.OK && c != codes.DataLoss {
					t.Errorf("call: %v", err)
				}
			}
		})
	}
	for i := range 100 {
		r.set(t, Behaviour{Delay: time.Duration(i) * time.Microsecond, ErrorRate: float64(i) / 100, ErrorCode: codes.DataLoss})
	}
	calls.Wait()
	if c := r.server.Counters(); c.Begun != 400 || c.InFlight() != 0 {
		t.Errorf("counters = %+v, want 400 calls, all ended", c)
	}
}
