package e2e

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/sample"
)

// load makes unary calls from a number of goroutines until it is stopped.
type load struct {
	model   string
	stopped chan struct{}
	callers sync.WaitGroup
	ok      atomic.Int64
	failed  atomic.Int64
	slowest atomic.Int64          // nanoseconds
	first   atomic.Pointer[error] // of the failures
}

// startLoad calls a model through each connection from so many goroutines at once.
func startLoad(model string, perConn int, conns ...*grpc.ClientConn) *load {
	l := &load{model: model, stopped: make(chan struct{})}
	for _, cc := range conns {
		for range perConn {
			l.callers.Go(func() { l.call(cc) })
		}
	}
	return l
}

func (l *load) call(cc *grpc.ClientConn) {
	req := sample.NewRequest(l.model, heldBack()[0].Measurements)
	for {
		select {
		case <-l.stopped:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		started := time.Now()
		err := infer(ctx, cc, req).err
		took := int64(time.Since(started))
		cancel()
		if err != nil {
			l.failed.Add(1)
			l.first.CompareAndSwap(nil, &err)
			continue
		}
		l.ok.Add(1)
		for most := l.slowest.Load(); took > most && !l.slowest.CompareAndSwap(most, took); most = l.slowest.Load() {
		}
	}
}

// patience is the longest a call of a load may take beside whatever else happens.
// Undisturbed, calls take milliseconds; what disturbs them in these tests lasts
// much longer than this.
const patience = 2 * time.Second

// stop ends the load after the calls under way. The test fails if a call has
// failed, or has taken longer than patience.
func (l *load) stop(t testing.TB) (calls int64) {
	t.Helper()
	close(l.stopped)
	l.callers.Wait()
	calls = l.ok.Load()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed, the first with: %v", n, n+calls, *l.first.Load())
	}
	if slowest := time.Duration(l.slowest.Load()); slowest > patience {
		t.Errorf("the slowest of %d calls took %v, want at most %v", calls, slowest, patience)
	}
	if calls == 0 {
		t.Error("the load has made no call")
	}
	return calls
}
