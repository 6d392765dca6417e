package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/sample"
)

const (
	// driftTime is how long the scenario may take unless it is told otherwise. It ends when there is nothing
	// more to see.
	driftTime = 90 * time.Second
	// driftWindow is much shorter than anybody would set it, so that there is something to see; at 200 calls a
	// second for each version it has some 800 samples. Who gives the scenario more time has a slower machine,
	// and gets one window in a thirtieth of it: 500 samples are needed.
	driftWindow = 4 * time.Second
	driftParts  = 30
	// driftLearn is how many samples of each version are the reference.
	driftLearn = 600
	// driftPoll is the time between two looks at what the gateway has found.
	driftPoll = 200 * time.Millisecond
)

// The feature that moves, and by how much: as if somebody had bent the caliper. The first version does not look at it,
// and the second one hardly does, so that answers stay as they are.
const (
	movedColumn = 1 // bill_depth_mm
	movedBy     = 2
)

// driftRoute gives both versions half of the calls, and watches their data.
func driftRoute(endpoints map[string][]string, window time.Duration) *routingv1.Route {
	perSecond, learn := 1000.0, uint32(driftLearn)
	route := &routingv1.Route{
		Model:   sample.ModelName,
		Weights: map[string]uint32{before: 50, after: 50},
		Drift: &routingv1.Drift{
			PerSecond: &perSecond, Learn: &learn, Window: durationpb.New(window),
			// With windows as short as these, a false alarm in 720 of them would be one in 48 minutes.
			ExpectedRun: durationpb.New(24 * time.Hour),
			Columns:     []*routingv1.TensorColumns{{Tensor: sample.InputName, Names: sample.Features}},
		},
	}
	for _, version := range []string{before, after} {
		route.Versions = append(route.Versions, &routingv1.Version{Name: version, Endpoints: endpoints[version]})
	}
	return route
}

// showDrift lets one feature of what is asked move while calls flow.
func showDrift(ctx context.Context, s *stage) (err error) {
	if s.Drift == nil || s.WriteDrift == nil || s.gateway.AdminAddr() == nil {
		return errors.New("scenario drift: the gateway has no admin address to ask what it has found")
	}
	window := max(driftWindow, s.For/driftParts)
	err = s.rollout.update(ctx, &routing.Update{Set: []*routingv1.Route{driftRoute(s.replicas.endpoints(), window)}, Reason: "data that will move"})
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
	calls := new(callCount)
	traffic := newTraffic(conn, s.Rate, s.rollout.splitOf, calls.record)
	if err := traffic.awaitAnswer(ctx, addr); err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(s.Out, "gateway on %s; model %q: %s and %s have half of the calls each, in windows of %v instead of an hour\n",
		addr, sample.ModelName, before, after, window)
	fmt.Fprintf(s.Out, "look yourself:\n  sluice drift %s --admin %s\n", sample.ModelName, s.gateway.AdminAddr())

	limited, cancel := context.WithTimeout(ctx, cmp.Or(s.For, driftTime))
	defer cancel()
	var callers sync.WaitGroup
	callers.Go(func() { traffic.run(limited) })
	err = playDrift(limited, s, traffic)
	cancel()
	callers.Wait()
	switch {
	case ctx.Err() != nil:
		return nil // interrupted: what there was to see has not all been there
	case err != nil:
		return err
	}
	return calls.verdict()
}

// playDrift tells what the gateway finds, first of penguins as they are and then of altered ones.
func playDrift(ctx context.Context, s *stage, traffic *traffic) error {
	w := &driftWatch{stage: s, begin: time.Now(), shown: make(map[string]time.Time)}
	w.say("penguins as they are; each version learns what is usual from %d calls", driftLearn)
	if _, err := w.until(ctx, "a window in which nothing moves", quiet); err != nil {
		return err
	}
	w.say("from now on, %s of every penguin is %d more", sample.Features[movedColumn], movedBy)
	alter := func(m *sample.Measurements) { m[movedColumn] += movedBy }
	traffic.alter.Store(&alter)
	resp, err := w.until(ctx, "an alarm of both versions", raised)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.Out)
	s.WriteDrift(s.Out, resp)
	return judgeDrift(resp)
}

// driftWatch looks at what the gateway has found, window by window.
type driftWatch struct {
	*stage
	begin time.Time
	shown map[string]time.Time // by version, the end of the window told of last
}

func (w *driftWatch) say(format string, args ...any) {
	fmt.Fprintf(w.Out, "%6s  %s\n", seconds(time.Since(w.begin)), fmt.Sprintf(format, args...))
}

// until tells of every window until what is found is what is waited for.
func (w *driftWatch) until(ctx context.Context, what string, found func(*adminv1.GetDriftResponse) bool) (*adminv1.GetDriftResponse, error) {
	tick := time.NewTicker(driftPoll)
	defer tick.Stop()
	for {
		resp, err := w.Drift(ctx, w.gateway.AdminAddr().String())
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the time was over before there was %s", what)
		case err != nil:
			return nil, err
		}
		for _, v := range resp.GetVersions() {
			if end := v.GetWindow().GetTo().AsTime(); v.GetWindow() != nil && end.After(w.shown[v.GetVersion()]) {
				w.shown[v.GetVersion()] = end
				w.say("%s", windowLine(v))
			}
		}
		if found(resp) {
			return resp, nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// windowLine tells the PSI of each input in a window, and which states are not ok.
func windowLine(v *adminv1.VersionDrift) string {
	var parts []string
	for _, f := range inputs(v) {
		psi := "-"
		if f.GetPsi() != nil {
			psi = fmt.Sprintf("%.3f", f.GetPsi().GetValue())
		}
		part := f.GetFeature() + " " + psi
		if f.GetState() != "ok" {
			part += " " + f.GetState()
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%s, %4d samples, PSI: %s", v.GetVersion(), v.GetWindow().GetSamples(), strings.Join(parts, ", "))
}

// inputs are the features of what is asked, in the order of their names.
func inputs(v *adminv1.VersionDrift) []*adminv1.FeatureDrift {
	var all []*adminv1.FeatureDrift
	for _, f := range v.GetFeatures() {
		if slices.Contains(sample.Features, f.GetFeature()) {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *adminv1.FeatureDrift) int { return strings.Compare(a.GetFeature(), b.GetFeature()) })
	return all
}

// quiet reports a whole window of both versions in which everything that is asked is ok.
func quiet(resp *adminv1.GetDriftResponse) bool {
	for _, v := range resp.GetVersions() {
		all := inputs(v)
		if len(all) != sample.NumFeatures || slices.ContainsFunc(all, func(f *adminv1.FeatureDrift) bool { return f.GetState() != "ok" }) {
			return false
		}
	}
	return len(resp.GetVersions()) == 2
}

// raised reports an alarm of both versions for the feature that moves, and a window that both have.
func raised(resp *adminv1.GetDriftResponse) bool {
	versions := make(map[string]bool)
	for _, a := range resp.GetAlarms() {
		if a.GetFeature() == sample.Features[movedColumn] && a.GetReason() == "distribution" {
			versions[a.GetVersion()] = true
		}
	}
	known := func(c *adminv1.DriftContrast) bool { return c.GetVerdict() != "unknown" }
	return len(versions) == 2 && slices.ContainsFunc(resp.GetContrasts(), known)
}

// judgeDrift is nil if the feature that moves was raised and no other one that is asked. A model may answer strange
// penguins otherwise, and then that is raised, too, rightly.
func judgeDrift(resp *adminv1.GetDriftResponse) error {
	for _, v := range resp.GetVersions() {
		for _, f := range inputs(v) {
			if f.GetFeature() != sample.Features[movedColumn] && f.GetState() == "drift" {
				return fmt.Errorf("%s: %s has drifted, and nobody has moved it", v.GetVersion(), f.GetFeature())
			}
		}
	}
	for _, a := range resp.GetAlarms() {
		if a.GetFeature() != sample.Features[movedColumn] && slices.Contains(sample.Features, a.GetFeature()) {
			return fmt.Errorf("%s: %s was raised, and nobody has moved it: %s", a.GetVersion(), a.GetFeature(), a.GetText())
		}
	}
	return nil
}

// callCount counts calls. It may be used by any number of goroutines.
type callCount struct {
	calls, failed atomic.Uint64
	first         atomic.Pointer[error] // failure
}

func (c *callCount) record(o outcome) {
	c.calls.Add(1)
	if o.err != nil {
		c.failed.Add(1)
		c.first.CompareAndSwap(nil, &o.err)
	}
}

func (c *callCount) verdict() error {
	if n := c.failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with: %w", n, c.calls.Load(), *c.first.Load())
	}
	return nil
}
