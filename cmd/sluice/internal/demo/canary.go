package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/sample"
)

const (
	// canaryTime is how long the scenario takes unless it is told otherwise.
	canaryTime = 12 * time.Second
	// canaryOpenFor is the time before the first probe of the canary's breaker. It is
	// short, so that there is something to see of the way back.
	canaryOpenFor = 500 * time.Millisecond
)

// phase is a part of the scenario, in which the canary behaves in one way.
type phase struct {
	name   string
	part   float64 // of the whole time
	says   string
	canary sample.Behaviour
}

var phases = []phase{
	{"healthy", 0.25, "both versions are healthy", sample.Behaviour{}},
	{"failing", 0.40, "every inference of the canary fails with INTERNAL from now on", sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal}},
	{"healed", 0.35, "the canary is healthy again", sample.Behaviour{}},
}

// canaryRoute gives the canary a tenth of the calls, and lets the version before it
// answer when it fails.
func canaryRoute(endpoints map[string][]string) *routingv1.Route {
	route := &routingv1.Route{
		Model:    sample.ModelName,
		Weights:  map[string]uint32{before: 90, after: 10},
		Fallback: &routingv1.Fallback{To: []string{before}, On: []string{"UNAVAILABLE", "INTERNAL"}},
		Breaker: &routingv1.Breaker{
			Consecutive: 5, OpenFor: durationpb.New(canaryOpenFor), MaxOpenFor: durationpb.New(2 * canaryOpenFor),
		},
		Slo: &routingv1.SLO{Availability: 99.9},
	}
	for _, version := range []string{before, after} {
		route.Versions = append(route.Versions, &routingv1.Version{Name: version, Endpoints: endpoints[version]})
	}
	return route
}

// showCanary lets the canary fail and heal while calls flow.
func showCanary(ctx context.Context, s *stage) (err error) {
	err = s.rollout.update(ctx, &routing.Update{
		Set: []*routingv1.Route{canaryRoute(s.replicas.endpoints())}, Reason: "a canary that will fail",
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.rollout.end(context.WithoutCancel(ctx))) }()
	addr := s.gateway.Addr().String()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	account := new(account)
	traffic := newTraffic(conn, s.Rate, s.rollout.splitOf, account.record)
	if err := traffic.awaitAnswer(ctx, addr); err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(s.Out, "gateway on %s; model %q: %s has 90 %% of the calls, the canary %s 10 %%, and %s answers when it fails\n",
		addr, sample.ModelName, before, after, before)
	if admin := s.gateway.AdminAddr(); admin != nil {
		fmt.Fprintf(s.Out, "watch its breaker, and the incident when it fails:\n"+
			"  sluice breakers --watch --admin %[1]s\n  sluice incidents --admin %[1]s\n  sluice postmortem INCIDENT --admin %[1]s\n", admin)
	}
	flowing, stop := context.WithCancel(ctx)
	defer stop()
	var calls sync.WaitGroup
	calls.Go(func() { traffic.run(flowing) })
	err = playCanary(ctx, s, account)
	stop()
	calls.Wait()
	if err != nil {
		return err
	}
	writeAccount(s.Out, account.all())
	if ctx.Err() != nil {
		return nil // interrupted: what there was to see has not all been there
	}
	return verdictOf(account.all())
}

// playCanary goes through the phases and tells, every second, what callers got.
func playCanary(ctx context.Context, s *stage, account *account) error {
	total := s.For
	if total == 0 {
		total = canaryTime
	}
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for _, p := range phases {
		had := s.replicas.calls(after)
		if err := s.replicas.knobs[after].Set(p.canary); err != nil {
			return err
		}
		account.begin(p.name)
		fmt.Fprintf(s.Out, "%6s  %s\n", seconds(time.Since(begin)), p.says)
		for end := time.After(time.Duration(p.part * float64(total))); end != nil; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				fmt.Fprintf(s.Out, "%6s  %s\n", seconds(time.Since(begin)), account.lately())
			case <-end:
				end = nil
			}
		}
		account.end(s.replicas.calls(after) - had)
	}
	return nil
}

// phaseTally counts the calls that began in one phase, as their callers saw them.
type phaseTally struct {
	name             string
	calls, failed    uint64
	byBefore, byFail uint64 // answered by the version before: as drawn, after a failed attempt
	byCutOff         uint64 // and at once, the canary being cut off
	byAfter          uint64 // answered by the canary
	reached          uint64 // calls that the canary's servers got
	latency          *hdrhistogram.Histogram
	firstFailure     error
	cutOff, returned time.Duration // when callers first noticed either; 0 if never
	begun            time.Time
}

// account counts by phase. It may be used by any number of goroutines.
type account struct {
	mu     sync.Mutex
	phases []*phaseTally
	last   phaseTally // as told lately
}

// begin begins a phase.
func (a *account) begin(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// 1 us to 60 s at two digits: calls end after callTimeout.
	a.phases = append(a.phases, &phaseTally{name: name, latency: hdrhistogram.New(1, time.Minute.Microseconds(), 2), begun: time.Now()})
	a.last = phaseTally{}
}

// end notes how many calls the canary's servers got in the phase.
func (a *account) end(reached uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.phases[len(a.phases)-1].reached = reached
}

func (a *account) record(o outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := len(a.phases) - 1
	for i >= 0 && o.begun.Before(a.phases[i].begun) {
		i-- // it began before
	}
	if i < 0 {
		return // before there was a phase
	}
	a.phases[i].add(o)
}

func (t *phaseTally) add(o outcome) {
	t.calls++
	if o.err != nil {
		if t.failed++; t.firstFailure == nil {
			t.firstFailure = o.err
		}
		return
	}
	_ = t.latency.RecordValue(max(1, o.latency.Microseconds())) // in range, so it cannot fail
	since := max(o.begun.Add(o.latency).Sub(t.begun), 1)
	switch _, why, fell := strings.Cut(o.fallback, " "); {
	case fell && why == "BREAKER_OPEN":
		if t.byCutOff++; t.cutOff == 0 {
			t.cutOff = since
		}
	case fell:
		t.byFail++
	case o.version == after:
		if t.byAfter++; t.returned == 0 {
			t.returned = since
		}
	default:
		t.byBefore++
	}
}

// lately is what has happened in the phase since it was asked last.
func (a *account) lately() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, l := a.phases[len(a.phases)-1], a.last
	a.last = *t
	return fmt.Sprintf("%s: %d calls, %d failed; by %s %d, by %s %d; fell back %d after a failure, %d at once",
		t.name, t.calls-l.calls, t.failed-l.failed, before, t.byBefore-l.byBefore, after, t.byAfter-l.byAfter,
		t.byFail-l.byFail, t.byCutOff-l.byCutOff)
}

// all returns the phases that have begun. Nothing is recorded any more.
func (a *account) all() []*phaseTally {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.phases
}

// writeAccount is the table at the end. Nothing in it is assumed: answers say who
// gave them and what they fell back from, and the canary's servers count what
// reached them.
func writeAccount(out io.Writer, phases []*phaseTally) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "PHASE\tCALLS\tFAILED\tBY %s\tBY %s\tFELL BACK AFTER A FAILURE\tAT ONCE\t%s'S SERVERS GOT\tP50\tP99\t\n",
		strings.ToUpper(before), strings.ToUpper(after), strings.ToUpper(after))
	for _, t := range phases {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n", t.name, t.calls, t.failed, t.byBefore, t.byAfter, t.byFail, t.byCutOff, t.reached,
			milliseconds(time.Duration(t.latency.ValueAtQuantile(50))*time.Microsecond),
			milliseconds(time.Duration(t.latency.ValueAtQuantile(99))*time.Microsecond))
	}
	_ = w.Flush() // whoever has closed out has seen enough
	for _, t := range phases {
		switch {
		case t.name == "failing" && t.cutOff > 0:
			fmt.Fprintf(out, "%s was cut off %s after it had begun to fail\n", after, milliseconds(t.cutOff))
		case t.name == "healed" && t.returned > 0:
			fmt.Fprintf(out, "%s had its calls back %s after it had healed\n", after, milliseconds(t.returned))
		}
	}
}

// verdictOf is nil if callers saw what the scenario promises.
func verdictOf(phases []*phaseTally) error {
	for _, t := range phases {
		switch {
		case t.calls == 0:
			return fmt.Errorf("%s: no calls", t.name)
		case t.failed > 0:
			return fmt.Errorf("%s: %d of %d calls failed, the first with: %w", t.name, t.failed, t.calls, t.firstFailure)
		case t.name == "failing" && t.byCutOff == 0:
			return fmt.Errorf("the canary was never cut off in %d calls", t.calls)
		case t.name == "healed" && t.byAfter == 0:
			return fmt.Errorf("the canary got none of its calls back in %d", t.calls)
		}
	}
	return nil
}
