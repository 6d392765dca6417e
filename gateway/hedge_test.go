package gateway

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"sluice/breaker"
	pb "sluice/proto/inference"
)

// pair is a version with two endpoints, of which whichever is called first is slow.
type pair struct {
	*rig
	addrs       [2]string
	begun       atomic.Int64  // attempts that have reached a server
	reached     chan struct{} // closed when a first attempt has
	first, next http.HandlerFunc
	sent        [2]chan *seen // to the first server of a call and to the other one
}

// startPair starts it. The first server of a call does what first says, the other one
// what next says; nil means OK. The other one does it once the first one has the request,
// however slow it is to read.
func startPair(t *testing.T, more string, first, next http.HandlerFunc, change ...func(*Config)) *pair {
	t.Helper()
	if first == nil {
		first = ok
	}
	if next == nil {
		next = ok
	}
	p := &pair{first: first, next: next, reached: make(chan struct{}), sent: [2]chan *seen{make(chan *seen, 1000), make(chan *seen, 1000)}}
	reached := sync.OnceFunc(func() { close(p.reached) })
	for i := range p.addrs {
		p.addrs[i] = streams(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			arrived := &seen{r.URL.Path, fieldsOf(r.Header), body}
			if arrived.one("grpc-previous-rpc-attempts") == "" {
				p.sent[0] <- arrived
				p.begun.Add(1)
				reached()
				p.first(w, r)
				return
			}
			<-p.reached
			p.sent[1] <- arrived
			p.begun.Add(1)
			p.next(w, r)
		})
	}
	p.rig = start(t, routeTo(`, rename: {model: fraud_xgb}`, p.addrs[:]...)+more, change...)
	return p
}

const hedgeSoon = "    hedge: {delay: 20ms}\n"

func (r *rig) taken() uint64 {
	for _, tg := range r.director.snapshot.Load().targets.all() {
		return tg.budget.Status(time.Now()).Taken
	}
	return 0
}

// A call that one endpoint keeps waiting is answered by another one of the same version.
// It is paid for, the first server is told to stop, and what is learned of it is that it
// took at least so long: no failure, and no reason to prefer it.
func TestLateCallsAreAnsweredByAnotherEndpoint(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	p := startPair(t, hedgeSoon, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(stopped)
	}, nil)
	a := p.call(modelInfer, infer("fraud", ""))
	if a.code != codes.OK || a.one("sluice-attempts") != "2" || a.one("sluice-version") != "v7" || a.one("sluice-fallback") != "" {
		t.Fatalf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the first server was not told to stop")
	}
	first, second := <-p.sent[0], <-p.sent[1]
	if string(first.body) != string(second.body) || !strings.Contains(string(second.body), "fraud_xgb") {
		t.Errorf("the servers got %q and %q, want the same, renamed", first.body, second.body)
	}
	if got := second.one("grpc-previous-rpc-attempts"); got != "1" {
		t.Errorf("grpc-previous-rpc-attempts: got %q, want 1", got)
	}
	if n := p.taken(); n != 1 {
		t.Errorf("%d second attempts were paid for, want 1", n)
	}
	guard, _ := p.director.guardOf("fraud v7")
	if s := guard.Status(time.Now()); s.Counts.Failures != 0 || s.Counts.Calls != 1 || s.InFlight != 0 {
		t.Errorf("the version: %+v, %d in flight; want one good call", s.Counts, s.InFlight)
	}
	var costs []float64
	for _, e := range p.director.snapshot.Load().endpoints() {
		costs = append(costs, e.latency.load(time.Now(), 0))
	}
	if max(costs[0], costs[1]) < 0.02 {
		t.Errorf("the endpoints are thought to take %v s, want one that takes 20 ms at least", costs)
	}
}

// Whichever of the two attempts fails, the other one may still answer. Nothing is left to how fast they are: the first is
// not over before there is a second, and one is not over before the other is known to have failed.
func TestFailedAttemptLeavesTheOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second codes.Code // OK answers
		secondIsLast  bool
		want          codes.Code
	}{
		"second fails": {codes.OK, codes.Internal, false, codes.OK},
		"first fails":  {codes.Internal, codes.OK, true, codes.OK},
		"both fail":    {codes.Internal, codes.Unavailable, false, codes.Internal},
	} {
		var p *pair
		counts := func() breaker.Counts {
			guard, _ := p.director.guardOf("fraud v7")
			return guard.Status(time.Now()).Counts
		}
		server := func(code codes.Code, last bool) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(ms) {
					if p.begun.Load() == 2 && (!last || counts().Failures == 1) {
						break
					}
				}
				if code == codes.OK {
					ok(w, r)
					return
				}
				fails(code, "for the test")(w, r)
			}
		}
		p = startPair(t, hedgeSoon, nil, nil)
		p.first, p.next = server(c.first, !c.secondIsLast), server(c.second, c.secondIsLast)
		a := p.call(modelInfer, infer("fraud", ""))
		if a.code != c.want || a.one("sluice-attempts") != "2" {
			t.Errorf("%s: got %v %q, fields %v; want what the last one says", name, a.code, a.message, a.header)
		}
		failed := uint32(1)
		if c.want != codes.OK {
			failed = 2
		}
		if got := counts(); got.Failures != failed || got.Calls != 2 {
			t.Errorf("%s: the version: %+v, want %d failed of 2", name, got, failed)
		}
	}
}

// A call that is wrong is wrong for every server: nobody waits for the second one to say so.
func TestCallersFaultEndsTheRace(t *testing.T) {
	t.Parallel()
	p := startPair(t, hedgeSoon, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		fails(codes.InvalidArgument, "no such input"))
	if a := p.call(modelInfer, infer("fraud", "")); a.code != codes.InvalidArgument || a.message != "no such input" {
		t.Errorf("got %v %q", a.code, a.message)
	}
}

// Without a delay of the route's the version's own 95th percentile is it, and while that
// is unknown nothing is hedged.
func TestObservedLatencyDecidesWhenToHedge(t *testing.T) {
	t.Parallel()
	var slow, hangs atomic.Bool
	late := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case slow.CompareAndSwap(true, false):
			time.Sleep(200 * ms)
		case hangs.CompareAndSwap(true, false):
			<-r.Context().Done()
			return
		}
		ok(w, r)
	}
	p := startPair(t, "    hedge: {}\n", late, late)
	slow.Store(true)
	if a := p.call(modelInfer, infer("fraud", "")); a.one("sluice-attempts") != "1" {
		t.Errorf("hedged after %s attempts, with nothing known", a.one("sluice-attempts"))
	}
	for range 100 {
		p.call(modelInfer, infer("fraud", ""))
	}
	hangs.Store(true)
	if a := p.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-attempts") != "2" {
		t.Errorf("got %v after %s attempts, want 2", a.code, a.one("sluice-attempts"))
	}
}

// What may be done once only, or by one server only, is.
func TestWhatIsNeverHedged(t *testing.T) {
	t.Parallel()
	sequence := &pb.ModelInferRequest{ModelName: "fraud", Parameters: map[string]*pb.InferParameter{
		"sequence_id": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 7}},
	}}
	late := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * ms)
		ok(w, r)
	}
	for _, c := range []struct {
		name, settings string
		path           string
		body           func() io.Reader
		fields         []string
	}{
		{name: "stream", path: modelStreamInfer},
		{name: "unknown method", path: "/shop.Checkout/Pay", fields: []string{"sluice-model", "fraud"}},
		{name: "management", path: "/inference.GRPCInferenceService/RepositoryModelLoad", settings: "    allow_management: true\n",
			body: func() io.Reader { return message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"}) }},
		{name: "sequence", body: func() io.Reader { return message(sequence) }},
		{name: "sequence in pieces", body: func() io.Reader { return slowly(5*ms, pieces(t, sequence, 24)...) }},
		{name: "compressed sequence", body: func() io.Reader { return gzipped(t, sequence) }, fields: []string{"grpc-encoding", "gzip"}},
		{name: "no room to spare", settings: "    limits: {in_flight: 2}\n"},
	} {
		p := startPair(t, hedgeSoon+c.settings, late, late)
		if c.path == "" {
			c.path = modelInfer
		}
		body := infer("fraud", "")
		if c.body != nil {
			body = c.body()
		}
		if a := p.call(c.path, body, c.fields...); a.code != codes.OK || a.one("sluice-attempts") != "1" {
			t.Errorf("%s: got %v %q after %s attempts, want one", c.name, a.code, a.message, a.one("sluice-attempts"))
		}
	}
	// Other parameters do not keep a call from being hedged.
	p := startPair(t, hedgeSoon, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ok)
	other := &pb.ModelInferRequest{ModelName: "fraud", Parameters: map[string]*pb.InferParameter{"priority": {}}}
	if a := p.call(modelInfer, message(other)); a.one("sluice-attempts") != "2" {
		t.Errorf("with another parameter: %s attempts, want 2", a.one("sluice-attempts"))
	}
	// Nor is there a second attempt without a second endpoint, or without budget.
	alone := start(t, routeTo("", streams(t, late))+hedgeSoon)
	if a := alone.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-attempts") != "1" {
		t.Errorf("one endpoint: got %v after %s attempts", a.code, a.one("sluice-attempts"))
	}
	// Nor at one that is not well.
	p = startPair(t, hedgeSoon, late, late)
	p.director.snapshot.Load().endpoints()[0].unhealthy.Store(true)
	if a := p.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-attempts") != "1" {
		t.Errorf("the other endpoint is unhealthy: got %v after %s attempts", a.code, a.one("sluice-attempts"))
	}
	p = startPair(t, hedgeSoon, late, late)
	for _, tg := range p.director.snapshot.Load().targets.all() {
		for tg.budget.Take(time.Now().Add(time.Minute)) { // so that nothing comes back meanwhile
		}
	}
	if a := p.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-attempts") != "1" {
		t.Errorf("no budget: got %v after %s attempts", a.code, a.one("sluice-attempts"))
	}
}

// pieces cuts a framed message after n bytes.
func pieces(t *testing.T, m proto.Message, n int) []io.Reader {
	t.Helper()
	b, err := io.ReadAll(message(m))
	if err != nil {
		t.Fatal(err)
	}
	return []io.Reader{strings.NewReader(string(b[:n])), strings.NewReader(string(b[n:]))}
}
