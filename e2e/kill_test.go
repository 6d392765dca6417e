package e2e

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// twoModels is a document that sends the model penguins to one server and the
// model birds to another.
func twoModels(penguins, birds string) string {
	// What a dead server's calls meet is to be seen, not its breaker.
	return routeTo(penguins) + fmt.Sprintf(`
    breaker: {dry_run: true}
  - model: birds
    versions: [{name: v1, endpoints: [%q], rename: {model: %s}}]
    weights: {v1: 1}
`, birds, model)
}

func TestModelServerKilledInMidStream(t *testing.T) {
	victim := startRole(t, "backend")
	other := startBackend(t, "v1")
	g := startGateway(t, twoModels(victim.await(t, `listening on (\S+)`)[1], other.addr))
	cc := dial(t, g.addr)
	l := startLoad("birds", 4, cc, dial(t, g.addr))

	const streams = 50
	var begun, over sync.WaitGroup
	begun.Add(streams)
	killed := make(chan time.Time, 1)
	var mu sync.Mutex
	var slowest time.Duration
	for range streams {
		over.Go(func() {
			err := keepExchanging(t, cc, &begun)
			now := time.Now()
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want UNAVAILABLE", err)
			}
			at := <-killed
			killed <- at
			mu.Lock()
			slowest = max(slowest, now.Sub(at))
			mu.Unlock()
		})
	}
	begun.Wait()
	at := time.Now()
	victim.kill()
	killed <- at
	over.Wait()
	if slowest > patience {
		t.Errorf("the last of %d streams learned of the end after %v", streams, slowest)
	}
	started := time.Now()
	a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements))
	checkRefusal(t, a.err, codes.Unavailable, "UPSTREAM_UNREACHABLE", "no connection")
	if took := time.Since(started); took > patience {
		t.Errorf("a call to the killed server took %v to fail", took)
	}
	t.Logf("%d streams ended within %v; %d calls of others went on", streams, slowest.Round(time.Millisecond), l.stop(t))
}

// keepExchanging sends and receives over one stream until it fails, and says once
// that it has begun.
func keepExchanging(t *testing.T, cc grpc.ClientConnInterface, begun *sync.WaitGroup) error {
	stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 30*time.Second))
	for i := 0; err == nil; i++ {
		if i == 1 {
			begun.Done()
		}
		_ = stream.Send(sample.NewRequest(model, heldBack()[0].Measurements)) // Recv knows why it failed
		_, err = stream.Recv()
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// A stopped process keeps its connections and answers nothing.
func TestModelServerStoppedInMidCall(t *testing.T) {
	victim := startRole(t, "backend")
	other := startBackend(t, "v1")
	g := startGateway(t, twoModels(victim.await(t, `listening on (\S+)`)[1], other.addr))
	cc := dial(t, g.addr)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	if a := infer(within(t, 10*time.Second), cc, req); a.err != nil {
		t.Fatal(a.err)
	}
	l := startLoad("birds", 4, cc, dial(t, g.addr))
	victim.pause(t)
	const deadline = 500 * time.Millisecond
	var calls sync.WaitGroup
	for range 100 {
		calls.Go(func() {
			started := time.Now()
			a := infer(within(t, deadline), cc, req)
			if status.Code(a.err) != codes.DeadlineExceeded {
				t.Errorf("got %v, want DEADLINE_EXCEEDED", a.err)
			}
			if took := time.Since(started); took > deadline+patience {
				t.Errorf("took %v, want the deadline of %v", took, deadline)
			}
		})
	}
	calls.Wait()
	eventually(t, patience, "the load is all that is left", func() error {
		if n := g.Stats().Calls; n > 8 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	l.stop(t)
	victim.signal(t, syscall.SIGCONT)
	if a := infer(within(t, 10*time.Second), cc, req); a.err != nil {
		t.Errorf("after the server went on: %v", a.err)
	}
}

func TestClientKilledInMidStream(t *testing.T) {
	v1 := startBackend(t, "v1")
	g := startGateway(t, routeTo(v1.addr))
	l := startLoad(model, 4, dial(t, g.addr))
	victim := startRole(t, "client", targetVariable+"="+g.addr)
	victim.await(t, "streaming")
	if n := v1.Counters().InFlight(); n < clientStreams {
		t.Errorf("the model server has %d calls, want the %d streams of the client among them", n, clientStreams)
	}
	victim.kill()
	eventually(t, patience, "the client's streams have ended", func() error {
		if s := g.Stats(); s.Conns != 1 || s.Calls > 4 {
			return fmt.Errorf("got %+v, want one connection and the calls of the load", s)
		}
		if c := v1.Counters(); c.Cancelled != clientStreams {
			return fmt.Errorf("the model server has %+v, want %d cancelled", c, clientStreams)
		}
		return nil
	})
	l.stop(t)
}
