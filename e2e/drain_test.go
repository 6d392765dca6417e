package e2e

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"sluice/sample"
)

// dialAll connects to several gateways and spreads calls over those that can be
// reached, as a client behind a headless service does.
func dialAll(t testing.TB, addrs ...string) *grpc.ClientConn {
	t.Helper()
	r := manual.NewBuilderWithScheme("gateways")
	var state resolver.State
	for _, a := range addrs {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	r.InitialState(state)
	return dial(t, "gateways:///all", grpc.WithResolvers(r),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
}

func TestNoUnaryCallIsLostAtSIGTERM(t *testing.T) {
	v1 := startBackend(t, "v1")
	v1.turn(t, sample.Behaviour{Delay: 5 * time.Millisecond, Jitter: 100 * time.Millisecond})
	leaving := startSluice(t, routeTo(v1.addr), "--drain-delay", "300ms", "--drain-timeout", "10s")
	staying := startSluice(t, routeTo(v1.addr))

	var conns []*grpc.ClientConn
	for range 4 {
		conns = append(conns, dialAll(t, leaving.addr, staying.addr))
	}
	l := startLoad(model, 16, conns...)
	time.Sleep(500 * time.Millisecond)
	took := leaving.stop(t, 15*time.Second)
	time.Sleep(300 * time.Millisecond)
	calls := l.stop(t)

	c := v1.Counters()
	t.Logf("%d calls, drained in %v", calls, took)
	if c.Begun != uint64(calls) || c.Answered != uint64(calls) {
		t.Errorf("clients count %d answers, the model server %+v; want every call served once", calls, c)
	}
	if took < 300*time.Millisecond || took > 8*time.Second {
		t.Errorf("drained in %v, want the delay of 300 ms and little more", took)
	}
	if err := leaving.out.has("draining: no new calls"); err != nil {
		t.Errorf("log: %v", err)
	}
}

// Whoever balances load learns of the drain before calls are refused, and a call
// under way is waited for.
func TestDrainIsAnnouncedAndWaitsForCalls(t *testing.T) {
	v1 := startBackend(t, "v1")
	s := startSluice(t, routeTo(v1.addr), "--drain-delay", "1s", "--drain-timeout", "10s")
	cc := dial(t, s.addr)
	watch, err := healthpb.NewHealthClient(cc).Watch(within(t, 20*time.Second), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		got, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got.GetStatus()
	}
	if got := next(); got != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("before: got %v", got)
	}

	v1.turn(t, sample.Behaviour{Delay: 2 * time.Second})
	slow := make(chan error, 1)
	go func() {
		slow <- infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements)).err
	}()
	eventually(t, 5*time.Second, "the slow call has begun", func() error {
		if n := v1.Counters().Begun; n != 1 {
			return fmt.Errorf("%d calls have", n)
		}
		return nil
	})
	v1.turn(t, sample.Behaviour{})
	ended := make(chan time.Duration, 1)
	go func() { ended <- s.stop(t, 15*time.Second) }()
	if got := next(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("while draining: got %v", got)
	}
	if a := infer(within(t, 5*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
		t.Errorf("a call during the drain delay: %v", a.err)
	}
	if err := <-slow; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if took := <-ended; took > 8*time.Second {
		t.Errorf("took %v to end, although only a watch of its health was left", took)
	}
}
