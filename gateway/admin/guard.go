package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// defaultProbeTimeout is little, since who makes a change waits for it.
	defaultProbeTimeout = 800 * time.Millisecond
	// maxProbes bounds how many endpoints one request connects to, and
	// probesAtOnce how many at the same time.
	maxProbes    = 256
	probesAtOnce = 64
)

// unreachableError says that a change would send calls to versions none of whose
// endpoints can be reached.
type unreachableError struct{ findings []string }

// Error lists the versions.
func (e *unreachableError) Error() string { return strings.Join(e.findings, "; ") }

// guard looks at whom a change sends more calls to. A version that would get a
// larger share, or gets its share at other endpoints, has to have one that can be
// reached; of a route that is new nobody has been served yet, so there it is a
// warning only, and so it is of a version that becomes a fallback. With force, the change is made all the same and overruled is true.
func (s *Service) guard(ctx context.Context, would *routingv1.Change, force bool) (warnings []string, overruled bool, err error) {
	var versions []*routing.Version
	fresh := make(map[string]bool)           // models
	spare := make(map[*routing.Version]bool) // fallbacks
	left := maxProbes
	for _, r := range would.GetRoutes() {
		fresh[r.GetModel()] = r.GetBefore() == nil
		gain, standBy := gaining(r.GetBefore(), r.GetAfter())
		for _, v := range slices.Concat(gain, standBy) {
			if left -= len(v.Endpoints); left >= 0 {
				versions = append(versions, v)
				spare[v] = slices.Contains(standBy, v)
			}
		}
	}
	if left < 0 {
		warnings = append(warnings, fmt.Sprintf("only the first %d endpoints were looked at", maxProbes))
	}
	var refused []string
	for i, results := range s.probe(ctx, versions, true) {
		problem, certain := unreachable(versions[i], results)
		switch {
		case problem == "":
		case spare[versions[i]]:
			warnings = append(warnings, "fallback: "+problem)
		case fresh[versions[i].Model] || !certain:
			warnings = append(warnings, problem)
		case force:
			warnings, overruled = append(warnings, "forced: "+problem), true
		default:
			refused = append(refused, problem)
		}
	}
	return warnings, overruled, refusal(refused)
}

func refusal(findings []string) error {
	if len(findings) == 0 {
		return nil
	}
	return &unreachableError{findings}
}

// gaining returns the versions whose share grows or is served elsewhere, and of the others
// those that become a fallback, or are one elsewhere.
func gaining(before, after *routingv1.Route) (gain, standBy []*routing.Version) {
	if after == nil {
		return nil, nil
	}
	old := make(map[string]*routingv1.Version)
	for _, v := range before.GetVersions() {
		old[v.GetName()] = v
	}
	sumBefore, sumAfter := sum(before), sum(after)
	table, err := routing.Build(&routingv1.Document{Routes: []*routingv1.Route{after}}, 1)
	if err != nil {
		return nil, nil // refused before it comes here
	}
	route, _ := table.Route(after.GetModel())
	docs := after.GetVersions()
	for i, v := range route.Versions {
		was := old[v.Name]
		// Shares are compared crosswise; weights and sums fit 32 bits.
		grows := uint64(v.Weight)*max(sumBefore, 1) > uint64(before.GetWeights()[v.Name])*sumAfter
		moved := !slices.Equal(was.GetEndpoints(), docs[i].GetEndpoints()) || !proto.Equal(was.GetTls(), docs[i].GetTls())
		switch {
		case v.Weight > 0 && (grows || moved):
			gain = append(gain, v)
		case slices.Contains(route.Fallback, v) && (moved || !slices.Contains(before.GetFallback().GetTo(), v.Name)):
			standBy = append(standBy, v)
		}
	}
	return gain, standBy
}

func sum(route *routingv1.Route) uint64 {
	total := uint64(0)
	for _, w := range route.GetWeights() {
		total += uint64(w)
	}
	return total
}

// unreachable says why a version cannot be reached; "" if one of its endpoints
// answers. It is not certain if there was no time to look at all of them.
func unreachable(v *routing.Version, results []probed) (problem string, certain bool) {
	var problems []string
	certain = true
	for _, r := range results {
		if r.err == nil {
			return "", true
		}
		certain = certain && !errors.Is(r.err, errNotProbed)
		problems = append(problems, fmt.Sprintf("%s: %v", r.endpoint, r.err))
	}
	const shown = 3
	if n := len(problems); n > shown {
		problems = append(problems[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	return fmt.Sprintf("version %q of model %q has no endpoint that can be reached (%s)", v.Name, v.Model, strings.Join(problems, "; ")), certain
}

// probed is what came of one probe.
type probed struct {
	endpoint string
	err      error
}

var errNotProbed = errors.New("not looked at: others took too long")

// probe asks the endpoints of versions, many at once, and returns what came of it
// by version, in the order of the endpoints' names. It takes no longer than
// [Config.ProbeTimeout]. If one is enough, a version's first success ends the rest of its
// probes.
func (s *Service) probe(ctx context.Context, versions []*routing.Version, oneIsEnough bool) [][]probed {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProbeTimeout)
	defer cancel()
	results := make([][]probed, len(versions))
	slots := make(chan struct{}, probesAtOnce)
	var group sync.WaitGroup
	for i, v := range versions {
		group.Go(func() { results[i] = s.probeVersion(ctx, v, slots, oneIsEnough) })
	}
	group.Wait()
	return results
}

// probeVersion asks the endpoints of one version, each while it holds a slot.
func (s *Service) probeVersion(ctx context.Context, v *routing.Version, slots chan struct{}, oneIsEnough bool) []probed {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	results := make([]probed, len(v.Endpoints))
	var group sync.WaitGroup
	for i, endpoint := range slices.Sorted(slices.Values(v.Endpoints)) {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := errNotProbed
			if ctx.Err() == nil {
				err = s.cfg.Prober.Probe(ctx, v, endpoint)
			}
			results[i] = probed{endpoint, err}
			if err == nil && oneIsEnough {
				enough()
			}
		})
	}
	group.Wait()
	return results
}
