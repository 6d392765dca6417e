package gateway_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/gateway"
	pb "sluice/proto/inference"
	"sluice/routing"
	"sluice/sample"
)

// server is a sample model server whose behaviour the test turns.
type server struct {
	*sample.Server
	knobs *sample.Knobs
	addr  string
	stop  func()
}

func startServer(t testing.TB, version string) *server {
	t.Helper()
	model, err := sample.Load(version)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	knobs := &sample.Knobs{}
	s := &server{Server: sample.NewServer(model, knobs), knobs: knobs, addr: ln.Addr().String()}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	s.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		<-done
	})
	t.Cleanup(s.stop)
	return s
}

// turn sets how the server behaves.
func (s *server) turn(t testing.TB, b sample.Behaviour) {
	t.Helper()
	if err := s.knobs.Set(b); err != nil {
		t.Fatal(err)
	}
}

// startGateway serves the routes and returns a client.
func startGateway(t testing.TB, routes string) pb.GRPCInferenceServiceClient {
	t.Helper()
	doc, err := routing.Parse("test.yaml", []byte(routes))
	if err != nil {
		t.Fatal(err)
	}
	table, err := routing.Build(doc, 1)
	if err != nil {
		t.Fatal(err)
	}
	router := routing.NewRouter()
	router.Publish(table)
	g, err := gateway.New(gateway.Config{Listen: "127.0.0.1:0", Admin: "off", DrainDelay: -1,
		Logger: slog.New(slog.DiscardHandler)}, router)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.Ready()
	cc, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := g.Stats().Calls; n != 0 {
			t.Errorf("%d calls left", n)
		}
	})
	return pb.NewGRPCInferenceServiceClient(cc)
}

// answer is what one call brought.
type answer struct {
	code     codes.Code
	version  string
	fallback string
	attempts string
}

func infer(client pb.GRPCInferenceServiceClient, md ...string) answer {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), md...), 5*time.Second)
	defer cancel()
	var header, trailer metadata.MD
	_, err := client.ModelInfer(ctx, sample.NewRequest("penguins", sample.Measurements{39.1, 18.7, 181, 3750}),
		grpc.Header(&header), grpc.Trailer(&trailer))
	get := func(key string) string { return strings.Join(append(header.Get(key), trailer.Get(key)...), ",") }
	return answer{status.Code(err), get("sluice-version"), get("sluice-fallback"), get("sluice-attempts")}
}

const twoVersions = `
routes:
  - model: penguins
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, endpoints: [%q]}
    weights: {v2: 100}
    fallback: {to: [v1], on: [UNAVAILABLE, INTERNAL]}
    breaker: {consecutive: 5, open_for: 300ms, max_open_for: 300ms}
`

func TestFailingCanaryIsAnsweredByFallback(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	// Open for long enough that a busy machine makes the calls below meanwhile.
	client := startGateway(t, strings.ReplaceAll(fmt.Sprintf(twoVersions, v1.addr, v2.addr), "300ms", "3s"))
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal})

	for i := range 5 {
		if got, want := infer(client), (answer{codes.OK, "v1", "v2 INTERNAL", "2"}); got != want {
			t.Fatalf("call %d = %+v, want %+v", i, got, want)
		}
	}
	// The breaker is open: no attempt is wasted any more.
	begun := v2.Counters().Begun
	for i := range 20 {
		if got, want := infer(client), (answer{codes.OK, "v1", "v2 BREAKER_OPEN", "1"}); got != want {
			t.Fatalf("call %d after opening = %+v, want %+v", i, got, want)
		}
	}
	if n := v2.Counters().Begun; n != begun {
		t.Errorf("the open version got %d calls", n-begun)
	}
	// It heals: after the open time one probe succeeds and traffic returns.
	v2.turn(t, sample.Behaviour{})
	healed := answer{codes.OK, "v2", "", "1"}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got := infer(client)
		if got == healed {
			break // it was the probe
		}
		if want := (answer{codes.OK, "v1", "v2 BREAKER_OPEN", "1"}); got != want || time.Now().After(end) {
			t.Fatalf("while it waits for its probe: %+v, want %+v", got, want)
		}
	}
	for i := range 20 {
		if got := infer(client); got != healed {
			t.Fatalf("call %d after healing = %+v, want %+v", i, got, healed)
		}
	}
}

func TestOpensWithinThresholdPlusInFlight(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	client := startGateway(t, fmt.Sprintf(twoVersions, v1.addr, v2.addr))
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal})
	const parallel = 32
	var wg sync.WaitGroup
	begun := time.Now()
	for range parallel {
		wg.Go(func() {
			for range 10 {
				infer(client)
			}
		})
	}
	wg.Wait()
	probes := uint64(time.Since(begun)/(300*time.Millisecond)) + 1 // one after each time of being open
	if n := v2.Counters().Begun; n > 5+parallel+probes {
		t.Errorf("failing version got %d calls, want at most threshold and in flight", n)
	}
}

func TestClientFaultsOpenNothing(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	client := startGateway(t, fmt.Sprintf(twoVersions, v1.addr, v2.addr))
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.InvalidArgument})
	for i := range 50 {
		if got, want := infer(client), (answer{codes.InvalidArgument, "v2", "", "1"}); got != want {
			t.Fatalf("call %d = %+v, want %+v", i, got, want)
		}
	}
}

func TestForcedCallsDoNotFallBack(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	client := startGateway(t, fmt.Sprintf(twoVersions, v1.addr, v2.addr))
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal})
	if got, want := infer(client, "sluice-version", "v2"), (answer{codes.Internal, "v2", "", "1"}); got != want {
		t.Errorf("forced = %+v, want %+v", got, want)
	}
}

// TestDeadBackendsAreNotStormed fails everything: second attempts stay within
// the budget of a tenth of the calls, five per second and the burst.
func TestDeadBackendsAreNotStormed(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	routes := strings.Replace(fmt.Sprintf(twoVersions, v1.addr, v2.addr), "consecutive: 5", "consecutive: 1000000, failure_ratio: 1, min_calls: 1000000", 1)
	client := startGateway(t, routes)
	for _, s := range []*server{v1, v2} {
		s.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Unavailable})
	}
	begin := time.Now()
	const calls = 500
	for range calls {
		if got := infer(client); got.code != codes.Unavailable {
			t.Fatalf("answer = %+v, want UNAVAILABLE", got)
		}
	}
	attempts := float64(v1.Counters().Begun + v2.Counters().Begun)
	most := calls*1.1 + 5*time.Since(begin).Seconds() + 10 + 1
	if attempts > most {
		t.Errorf("%v attempts for %d calls, want at most %.0f", attempts, calls, most)
	}
}

func TestFullVersionFallsBackAtOnce(t *testing.T) {
	v1, v2 := startServer(t, "v1"), startServer(t, "v2")
	routes := strings.Replace(fmt.Sprintf(twoVersions, v1.addr, v2.addr), "    breaker:", "    limits: {in_flight: 1}\n    breaker:", 1)
	client := startGateway(t, routes)
	v2.turn(t, sample.Behaviour{Delay: time.Second})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { infer(client) })
	for v2.Counters().Begun == 0 {
		time.Sleep(time.Millisecond)
	}
	if got, want := infer(client), (answer{codes.OK, "v1", "v2 IN_FLIGHT_LIMIT", "1"}); got != want {
		t.Errorf("at the limit = %+v, want %+v", got, want)
	}
}

func TestUnavailableIsRetriedOnAnotherEndpoint(t *testing.T) {
	good, bad := startServer(t, "v1"), startServer(t, "v1")
	client := startGateway(t, fmt.Sprintf(`
routes:
  - model: penguins
    versions: [{name: v1, endpoints: [%q, %q]}]
    weights: {v1: 1}
`, good.addr, bad.addr))
	bad.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Unavailable})
	for i := range 30 {
		if got := infer(client); got.code != codes.OK || got.version != "v1" {
			t.Fatalf("call %d = %+v, want OK from v1", i, got)
		}
	}
	if bad.Counters().Begun == 0 {
		t.Error("the failing endpoint was never tried: this test shows nothing")
	}
}
