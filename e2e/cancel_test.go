package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// cancellations accounts for calls at the model server, and for how much later it
// knew of each cancellation than the client.
type cancellations struct {
	at      []atomic.Int64 // when the client cancelled, by the number of the call; Unix nanoseconds
	slowest atomic.Int64   // nanoseconds

	begun, finished, cancelled, failed atomic.Int64
}

// callNumber is the metadata key that tells the server which call it has before it.
const callNumber = "x-call-number"

// forget begins the account anew.
func (c *cancellations) forget() {
	for i := range c.at {
		c.at[i].Store(0)
	}
	for _, n := range []*atomic.Int64{&c.slowest, &c.begun, &c.finished, &c.cancelled, &c.failed} {
		n.Store(0)
	}
}

// handle runs a call's handler on the server. Calls without a number do not count.
func (c *cancellations) handle(ctx context.Context, handler func() error) error {
	md, _ := metadata.FromIncomingContext(ctx)
	number := md.Get(callNumber)
	if len(number) == 0 {
		return handler()
	}
	c.begun.Add(1)
	err := handler()
	now := time.Now().UnixNano()
	switch {
	case err == nil:
		c.finished.Add(1)
	case ctx.Err() != nil || status.Code(err) == codes.Canceled: // a stream says so a little before its context
		c.cancelled.Add(1)
		n, _ := strconv.Atoi(number[0])
		if at := c.at[n].Load(); at != 0 {
			c.late(time.Duration(now - at))
		}
	default:
		c.failed.Add(1)
	}
	return err
}

func (c *cancellations) late(d time.Duration) {
	for {
		most := c.slowest.Load()
		if int64(d) <= most || c.slowest.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

func (c *cancellations) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			err = c.handle(ctx, func() error {
				answer, err = next(ctx, req)
				return err
			})
			return answer, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return c.handle(ss.Context(), func() error { return next(srv, ss) })
		}),
	}
}

// storm makes calls, unary ones and streams, each cancelled at a random point, and
// returns how many of them were answered before.
func (c *cancellations) storm(t *testing.T, calls int, conns []*grpc.ClientConn) (answered int64) {
	var next, ok atomic.Int64
	var callers sync.WaitGroup
	for _, cc := range conns {
		callers.Go(func() {
			for n := int(next.Add(1)) - 1; n < calls; n = int(next.Add(1)) - 1 {
				switch err := c.interrupted(t.Context(), cc, n); status.Code(err) {
				case codes.OK:
					ok.Add(1)
				case codes.Canceled:
				default:
					t.Errorf("call %d: %v", n, err)
				}
				if n%2 == 0 {
					continue
				}
				// Who cancels does not wait for the server. Were nobody to, calls would
				// pile up in sockets on a busy machine, and their cancellations behind them.
				if _, err := pb.NewGRPCInferenceServiceClient(cc).ModelReady(t.Context(), &pb.ModelReadyRequest{Name: model}); err != nil {
					t.Errorf("after call %d: %v", n, err)
				}
			}
		})
	}
	callers.Wait()
	return ok.Load()
}

// interrupted makes call number n, cancels it at a random point and returns its end.
func (c *cancellations) interrupted(ctx context.Context, cc grpc.ClientConnInterface, n int) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, callNumber, strconv.Itoa(n)))
	defer cancel()
	longest := 50 * time.Millisecond
	if n%21 == 0 {
		longest = time.Second // some are answered before, however slow this machine is
	}
	timer := time.AfterFunc(rand.N(longest), func() {
		c.at[n].Store(time.Now().UnixNano())
		cancel()
	})
	defer timer.Stop()
	if n%2 == 0 {
		return infer(ctx, cc, sample.NewRequest(model, heldBack()[0].Measurements)).err
	}
	return exchange(ctx, cc)
}

// exchange sends some requests over one stream and reads their answers.
func exchange(ctx context.Context, cc grpc.ClientConnInterface) error {
	stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		if err := stream.Send(sample.NewRequest(model, heldBack()[0].Measurements)); err != nil {
			break // Recv knows why
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// footprint is what a process holds once garbage is collected.
type footprint struct {
	goroutines int
	heap       uint64 // bytes
}

func measureFootprint() footprint {
	runtime.GC()
	runtime.GC() // pools give their contents up over two collections
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), m.HeapAlloc}
}

func TestCancelledCallsEndEverywhere(t *testing.T) {
	const (
		calls = 10_000
		// Clients that cancel nearly everything at once are cut off. So many
		// connections stay below that limit, which is not what is tested here.
		connections = 40
		// How long a cancellation may take to arrive, on a machine that is busy with
		// other things: one that is lost leaves its stream open for minutes.
		patience = 5 * time.Second
	)
	c := &cancellations{at: make([]atomic.Int64, calls)}
	v1 := startBackend(t, "v1", c.options()...)
	v1.turn(t, sample.Behaviour{Jitter: 25 * time.Millisecond})
	g := startGateway(t, routeTo(v1.addr))
	var conns []*grpc.ClientConn
	for range connections {
		conns = append(conns, dial(t, g.addr))
	}
	// The server may still begin a call whose cancellation has reached it already, so what is looked at later is
	// what was equal here. Ends are read first: none is seen without its beginning.
	var begun, finished, cancelled, failed int64
	ended := func() error {
		if err := atRest(g.Stats()); err != nil {
			return err
		}
		finished, cancelled, failed = c.finished.Load(), c.cancelled.Load(), c.failed.Load()
		begun = c.begun.Load()
		if over := finished + cancelled + failed; begun != over {
			return fmt.Errorf("the model server has begun %d calls, of which %d are over", begun, over)
		}
		return nil
	}
	c.storm(t, calls/10, conns) // opens every connection that will be needed
	eventually(t, 5*time.Second, "everything has ended after the first calls", ended)
	before := measureFootprint()
	c.forget()

	started := time.Now()
	answered := c.storm(t, calls, conns)
	took := time.Since(started)
	eventually(t, patience, "everything has ended after the last cancellation", ended)

	slowest := time.Duration(c.slowest.Load())
	t.Logf("%d calls in %v: %d answered; at the model server %d begun, %d finished, %d cancelled, the slowest %v after its client",
		calls, took.Round(time.Millisecond), answered, begun, finished, cancelled, slowest.Round(time.Millisecond))
	if begun != finished+cancelled || failed != 0 {
		t.Errorf("the model server has begun %d calls, finished %d and seen %d cancelled; %d failed", begun, finished, cancelled, failed)
	}
	if finished < answered {
		t.Errorf("clients have %d answers, the model server finished %d calls", answered, finished)
	}
	if slowest > patience {
		t.Errorf("a call was cancelled at the model server %v after its client, want at most %v", slowest, patience)
	}
	if answered == 0 || cancelled < calls/10 {
		t.Errorf("got %d answers and %d calls cancelled at the model server: the random points do not test much", answered, cancelled)
	}
	eventually(t, 10*time.Second, "goroutines and memory are where they were", func() error {
		after := measureFootprint()
		if after.goroutines > before.goroutines+20 || after.heap > before.heap+4<<20 {
			return fmt.Errorf("got %+v, before %+v", after, before)
		}
		return nil
	})
	// No connection was given up: the same clients go on.
	if s := g.Stats(); s.Conns != connections {
		t.Errorf("got %d connections, want %d", s.Conns, connections)
	}
}
