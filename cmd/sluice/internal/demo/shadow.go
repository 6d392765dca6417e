package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/sample"
)

const (
	// candidate is the version that is only shadowed: it was trained differently.
	candidate = "v3"
	// shadowTime is how long the scenario takes unless it is told otherwise.
	shadowTime = 12 * time.Second
	// copiesEnd is how long the copies of a phase may take to come to their ends: their
	// own deadline, and some.
	copiesEnd = 7 * time.Second
)

// shadowPhases are the parts of the scenario, in each of which the shadow behaves in one
// way.
var shadowPhases = []phase{
	{"mirrored", 0.4, "the shadow gets a copy of every call", sample.Behaviour{}},
	{"failing", 0.25, "every inference of the shadow fails with INTERNAL from now on", sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal}},
	{"healed", 0.35, "the shadow is healthy again", sample.Behaviour{}},
}

// shadowRoute lets one version answer all calls, and the candidate get copies of them.
func shadowRoute(live, copies []string) *routingv1.Route {
	return &routingv1.Route{
		Model:    sample.ModelName,
		Versions: []*routingv1.Version{{Name: after, Endpoints: live}, {Name: candidate, Endpoints: copies}},
		Weights:  map[string]uint32{after: 100},
		Shadow:   []*routingv1.Shadow{{Version: candidate, Percent: 100}},
		Breaker: &routingv1.Breaker{
			Consecutive: 5, OpenFor: durationpb.New(canaryOpenFor), MaxOpenFor: durationpb.New(2 * canaryOpenFor),
		},
	}
}

// showShadow lets a version that was trained differently get copies of calls whose right
// answers are known, fail, and heal.
func showShadow(ctx context.Context, s *stage) (err error) {
	admin := s.gateway.AdminAddr()
	if admin == nil {
		return errors.New("scenario shadow: what shadows bring is asked for at the address for operators, and there is none")
	}
	model, err := sample.Load(candidate)
	if err != nil {
		return err
	}
	copies, err := startReplicas(ctx, []*sample.Model{model})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copies.stop(ctx)) }()
	err = s.rollout.update(ctx, &routing.Update{
		Set: []*routingv1.Route{shadowRoute(s.replicas.endpoints()[after], copies.endpoints()[candidate])}, Reason: "a shadow to look at",
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
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	show := &shadowShow{
		stage: s, candidate: model, copies: copies,
		reports: adminv1connect.NewShadowServiceClient(&http.Client{Transport: transport}, "http://"+admin.String()),
	}
	show.traffic = newTraffic(conn, s.Rate, s.rollout.splitOf, show.record)
	if err := show.traffic.awaitAnswer(ctx, addr); err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(s.Out, "gateway on %s; model %q: %s answers all calls, and %s, trained differently, gets copies of them\n", addr, sample.ModelName, after, candidate)
	fmt.Fprintf(s.Out, "watch what the shadow brings:\n  sluice shadow --watch --admin %s\n", admin)
	if err := show.play(ctx); err != nil {
		return err
	}
	show.write(s.Out)
	if ctx.Err() != nil {
		return nil // interrupted: what there was to see has not all been there
	}
	return show.verdict()
}

// shadowShow is the scenario under way.
type shadowShow struct {
	*stage
	candidate *sample.Model
	copies    *replicas
	reports   adminv1connect.ShadowServiceClient
	traffic   *traffic

	mu     sync.Mutex // of what calls are recorded in
	phases []*shadowTally
}

// shadowTally is one phase: what callers got, and what the gateway says of the copies of
// these calls.
type shadowTally struct {
	name          string
	calls, failed uint64
	firstFailure  error
	latency       *hdrhistogram.Histogram
	// disagree is how many of the calls the two models, asked directly, answer with
	// different species.
	disagree uint64

	copies, answered, dropped, compared uint64
	differ, codes                       uint64 // in their species; in their status
}

// record counts a call for the phase that is under way: there are none between phases.
func (s *shadowShow) record(o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.phases[len(s.phases)-1]
	t.calls++
	if o.err != nil {
		if t.failed++; t.firstFailure == nil {
			t.firstFailure = o.err
		}
		return
	}
	_ = t.latency.RecordValue(max(1, o.latency.Microseconds())) // in range, so it cannot fail
	if s.live().Classify(o.row.Measurements) != s.candidate.Classify(o.row.Measurements) {
		t.disagree++
	}
}

// live is the model that answers callers.
func (s *shadowShow) live() *sample.Model { return s.versions[len(s.versions)-1] }

// play goes through the phases.
func (s *shadowShow) play(ctx context.Context) error {
	total := s.For
	if total == 0 {
		total = shadowTime
	}
	before, err := s.report(ctx)
	if err != nil {
		return err
	}
	for _, p := range shadowPhases {
		if err := s.copies.knobs[candidate].Set(p.canary); err != nil {
			return err
		}
		t := &shadowTally{name: p.name, latency: hdrhistogram.New(1, time.Minute.Microseconds(), 2)}
		s.mu.Lock()
		s.phases = append(s.phases, t)
		s.mu.Unlock()
		fmt.Fprintf(s.Out, "%s\n", p.says)
		flowing, stop := context.WithTimeout(ctx, time.Duration(p.part*float64(total)))
		s.traffic.run(flowing) // returns once all of them are answered
		stop()
		now, err := s.report(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		t.take(before, now)
		before = now
		fmt.Fprintf(s.Out, "%s: %d calls, %d failed; %d copies compared, %d with another species, %d with another status, %d not sent\n",
			t.name, t.calls, t.failed, t.compared, t.differ, t.codes, t.dropped)
		select {
		case <-ctx.Done():
			return nil
		default:
		}
	}
	return nil
}

// report returns what the gateway says once no copy is under way and those that were answered have been compared, which
// comes a moment later. A copy of a call that failed never is, so what is missing after a while is left to the verdict.
func (s *shadowShow) report(ctx context.Context) (*adminv1.ShadowReport, error) {
	ctx, cancel := context.WithTimeout(ctx, copiesEnd)
	defer cancel()
	for {
		resp, err := s.reports.ListShadows(ctx, &adminv1.ListShadowsRequest{Model: sample.ModelName})
		if err != nil {
			return nil, fmt.Errorf("asking what the shadow brings: %w", err)
		}
		if len(resp.GetShadows()) != 1 {
			return nil, fmt.Errorf("asking what the shadow brings: got %d shadows, want 1", len(resp.GetShadows()))
		}
		r := resp.GetShadows()[0]
		over := r.GetOffered() == r.GetAnswered()+sum(r.GetDropped())+sum(r.GetFailed())
		if over && r.GetCompared() == r.GetAnswered() {
			return r, nil
		}
		select {
		case <-ctx.Done():
			if over {
				return r, nil
			}
			return nil, fmt.Errorf("copies are still under way after %v", copiesEnd)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// take notes what copies have brought between two reports.
func (t *shadowTally) take(before, now *adminv1.ShadowReport) {
	t.copies, t.answered = now.GetOffered()-before.GetOffered(), now.GetAnswered()-before.GetAnswered()
	t.dropped = sum(now.GetDropped()) - sum(before.GetDropped())
	t.compared = now.GetCompared() - before.GetCompared()
	t.codes = now.GetDifferences()["codes"] - before.GetDifferences()["codes"]
	t.differ = speciesDiffer(now) - speciesDiffer(before)
}

// speciesDiffer is how many calls got another species than the shadow's.
func speciesDiffer(r *adminv1.ShadowReport) uint64 {
	for _, o := range r.GetOutputs() {
		if o.GetName() == sample.OutputSpecies {
			return o.GetMismatched()
		}
	}
	return 0
}

func sum(counts map[string]uint64) (n uint64) {
	for _, v := range counts {
		n += v
	}
	return n
}

// write is the table at the end.
func (s *shadowShow) write(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "PHASE\tCALLS\tFAILED\tP50\tP99\tCOPIES\tNOT SENT\tCOMPARED\tOTHER STATUS\tOTHER SPECIES\tMODELS DISAGREE ON\t")
	var calls, failed uint64
	for _, t := range s.phases {
		calls, failed = calls+t.calls, failed+t.failed
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", t.name, t.calls, t.failed,
			milliseconds(time.Duration(t.latency.ValueAtQuantile(50))*time.Microsecond),
			milliseconds(time.Duration(t.latency.ValueAtQuantile(99))*time.Microsecond),
			t.copies, t.dropped, t.compared, t.codes, t.differ, t.disagree)
	}
	_ = w.Flush() // whoever has closed out has seen enough
	fmt.Fprintf(out, "of %d calls, %d failed\n", calls, failed)
	fmt.Fprintln(out, "latencies are of this machine, whose processors clients, models and the gateway share; docs/performance.md has what shadows cost callers")
	fmt.Fprintln(out, "\"models disagree on\" is how often both, asked directly about the same penguins, name different species")
}

// verdict is nil if the phases show what the scenario promises.
func (s *shadowShow) verdict() error {
	for _, t := range s.phases {
		switch {
		case t.calls == 0:
			return fmt.Errorf("%s: no calls", t.name)
		case t.failed > 0:
			return fmt.Errorf("%s: %d of %d calls failed, the first with: %w", t.name, t.failed, t.calls, t.firstFailure)
		case t.copies != t.calls:
			return fmt.Errorf("%s: %d copies of %d calls", t.name, t.copies, t.calls)
		case t.name == "mirrored" && (t.compared != t.calls || t.differ != t.disagree):
			return fmt.Errorf("%s: %d of %d calls were compared and %d found to differ, the models disagree on %d", t.name, t.compared, t.calls, t.differ, t.disagree)
		case t.name == "failing" && (t.codes == 0 || t.dropped == 0):
			return fmt.Errorf("%s: %d failures of the shadow were seen, %d copies not sent: its breaker has not opened", t.name, t.codes, t.dropped)
		case t.name == "healed" && t.compared == t.codes:
			return fmt.Errorf("%s: the shadow got none of its copies back in %d calls", t.name, t.calls)
		}
	}
	return nil
}
