package main

import (
	"fmt"
	"maps"
	"slices"

	"sluice/bench/stats"
)

// report is a whole run, as -o json prints it.
type report struct {
	Sessions  []session        `json:"sessions"`
	Peers     []peerVersion    `json:"peers"`
	Skipped   []skippedPeer    `json:"skipped,omitempty"`
	Reference string           `json:"reference"`
	Scenarios []scenarioReport `json:"scenarios"`
	Growth    []growth         `json:"growth,omitempty"`
	Warnings  []string         `json:"warnings,omitempty"`
	Samples   []sample         `json:"samples"`
}

// peerVersion names a peer that was measured.
type peerVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// skippedPeer names a peer that was not, and why.
type skippedPeer struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// scenarioReport holds one row per peer, in the order of the peers.
type scenarioReport struct {
	Name string `json:"scenario"` // as -scenarios takes it
	scenario
	Rate float64 `json:"half_rate,omitempty"` // calls per second, of the columns at half load
	Rows []row   `json:"peers"`
}

// row is one peer in one scenario. A summary is nil if there are no samples, or an invalid
// one among them; CPU time also for direct. Ratios are reference / peer, round by round; the reference itself has none.
type row struct {
	Peer    string `json:"peer"`
	Invalid string `json:"invalid,omitempty"` // why there are no figures

	// With every stream busy.
	CPU       *stats.Summary `json:"cpu_us_per_call,omitempty"`
	PerSecond *stats.Summary `json:"calls_per_second,omitempty"`
	CPURatio  *stats.Summary `json:"cpu_ratio,omitempty"`
	RateRatio *stats.Summary `json:"calls_per_second_ratio,omitempty"`
	Beside    beside         `json:"beside"`

	// At the same rate for all.
	HalfCPU      *stats.Summary `json:"half_cpu_us_per_call,omitempty"`
	P50          *stats.Summary `json:"half_p50_us,omitempty"`
	P99          *stats.Summary `json:"half_p99_us,omitempty"`
	P999         *stats.Summary `json:"half_p99_9_us,omitempty"`
	HalfCPURatio *stats.Summary `json:"half_cpu_ratio,omitempty"`
	P50Ratio     *stats.Summary `json:"half_p50_ratio,omitempty"`
	P99Ratio     *stats.Summary `json:"half_p99_ratio,omitempty"`
	HalfBeside   beside         `json:"half_beside"`
}

// beside is what to know of figures before they are believed.
type beside struct {
	Samples int    `json:"samples"`
	Calls   uint64 `json:"calls"` // of the shortest sample: what quantiles stand on
	Noisy   int    `json:"noisy"` // samples during which others used the machine
	// Medians over the samples; the last two of kind half.
	Generator float64 `json:"generator_cpu_us_per_call"`
	Waited    float64 `json:"waited_share"`
	Lag       float64 `json:"lag_p50_us"`
}

// growth is how a peer's CPU time per call grows with the number of connections that the
// same calls are spread over.
type growth struct {
	Few, Many scenario      `json:"-"`
	Between   string        `json:"between"`
	Peer      string        `json:"peer"`
	Ratio     stats.Summary `json:"cpu_ratio"`
}

// noisyCores is the share of a core that strangers may use during a
// measurement before the report warns of it.
const noisyCores = 0.15

// newReport condenses samples. The error says that some are invalid.
func newReport(s *samples, reference string) (*report, error) {
	r := &report{Sessions: s.sessions, Peers: s.peers(), Reference: reference, Samples: s.all}
	for _, one := range s.sessions {
		for _, p := range one.Skipped {
			if !slices.Contains(r.Skipped, p) {
				r.Skipped = append(r.Skipped, p)
			}
		}
	}
	for _, sc := range s.scenarios() {
		out := scenarioReport{Name: sc.String(), scenario: sc}
		for _, p := range r.Peers {
			if row, ok := newRow(s, sc, p.Name, reference); ok {
				out.Rows = append(out.Rows, row)
			}
		}
		for _, one := range s.all {
			if one.Scenario == sc && one.Kind == half {
				out.Rate = one.Rate
			}
		}
		r.Scenarios = append(r.Scenarios, out)
	}
	r.Growth = growths(s, r.Peers)
	return r, r.judge(s.all)
}

// judge warns of noisy samples and returns an error about invalid ones.
func (r *report) judge(all []sample) error {
	invalid, noisy := 0, 0
	for _, one := range all {
		if one.Invalid != "" {
			invalid++
		} else if one.noisy() {
			noisy++
		}
	}
	if noisy > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf(
			"in %d of %d measurements other processes used more than %.2f of a core: figures are noisy", noisy, len(all), noisyCores))
	}
	if invalid > 0 {
		return fmt.Errorf("%d of %d measurements are invalid", invalid, len(all))
	}
	return nil
}

// newRow condenses a peer's samples and sets them against the reference's. It reports false if
// there are none.
func newRow(s *samples, sc scenario, peer, reference string) (row, bool) {
	out := row{Peer: peer}
	full, rest := s.of(sc, saturated, peer), s.of(sc, half, peer)
	if len(full)+len(rest) == 0 {
		return out, false
	}
	for _, samples := range []map[int]sample{full, rest} {
		for _, round := range slices.Sorted(maps.Keys(samples)) {
			if why := samples[round].Invalid; why != "" {
				out.Invalid = why
				return out, true
			}
		}
	}
	out.CPU, out.PerSecond = summary(full, cpuOf), summary(full, rateOf)
	out.Beside, out.HalfBeside = besides(full), besides(rest)
	out.HalfCPU = summary(rest, cpuOf)
	out.P50, out.P99, out.P999 = summary(rest, p50Of), summary(rest, p99Of), summary(rest, p999Of)

	if peer == reference {
		return out, true
	}
	fullReference, restReference := s.of(sc, saturated, reference), s.of(sc, half, reference)
	out.CPURatio, out.RateRatio = ratios(fullReference, full, cpuOf), ratios(fullReference, full, rateOf)
	out.HalfCPURatio = ratios(restReference, rest, cpuOf)
	out.P50Ratio, out.P99Ratio = ratios(restReference, rest, p50Of), ratios(restReference, rest, p99Of)
	return out, true
}

// besides condenses what stands beside the figures of samples.
func besides(samples map[int]sample) beside {
	out := beside{Samples: len(samples)}
	for _, one := range samples {
		if out.Calls == 0 || one.Calls < out.Calls {
			out.Calls = one.Calls
		}
		if one.noisy() {
			out.Noisy++
		}
	}
	if len(samples) > 0 {
		out.Generator = stats.Summarize(values(samples, func(s sample) float64 { return s.GeneratorMicros })).Median
		out.Waited = stats.Summarize(values(samples, func(s sample) float64 { return s.Waited })).Median
		out.Lag = stats.Summarize(values(samples, func(s sample) float64 { return s.LagP50 })).Median
	}
	return out
}

// noisy reports whether strangers used so much of the machine that a sample may be off.
func (s *sample) noisy() bool { return s.OtherCores > noisyCores }

// growths compares scenarios that differ in their number of connections, and either have as many calls
// open on each or as many in all.
func growths(s *samples, peers []peerVersion) (out []growth) {
	all := s.scenarios()
	for _, few := range all {
		for _, many := range all {
			same := few
			same.Connections, same.Streams = many.Connections, many.Streams
			if same != many || few.Connections >= many.Connections ||
				few.Streams != many.Streams && few.Connections*few.Streams != many.Connections*many.Streams {
				continue
			}
			for _, p := range peers {
				if r := ratios(s.of(many, saturated, p.Name), s.of(few, saturated, p.Name), cpuOf); r != nil {
					out = append(out, growth{few, many, fmt.Sprintf("%v and %v", few, many), p.Name, *r})
				}
			}
		}
	}
	return out
}

func cpuOf(s sample) float64  { return s.CPUMicros }
func rateOf(s sample) float64 { return s.PerSecond }
func p50Of(s sample) float64  { return s.P50 }
func p99Of(s sample) float64  { return s.P99 }
func p999Of(s sample) float64 { return s.P999 }

// values picks a figure out of each valid sample, in the order of the rounds.
func values(samples map[int]sample, of func(sample) float64) (out []float64) {
	for _, round := range slices.Sorted(maps.Keys(samples)) {
		if samples[round].Invalid == "" {
			out = append(out, of(samples[round]))
		}
	}
	return out
}

// summary condenses a figure; nil if it is not there.
func summary(samples map[int]sample, of func(sample) float64) *stats.Summary {
	all := values(samples, of)
	if len(all) == 0 || slices.Min(all) <= 0 {
		return nil
	}
	s := stats.Summarize(all)
	return &s
}

// ratios divides a figure round by round, where both have it.
func ratios(dividends, divisors map[int]sample, of func(sample) float64) *stats.Summary {
	var a, b []float64
	for _, round := range slices.Sorted(maps.Keys(dividends)) {
		x, y := dividends[round], divisors[round]
		if x.Invalid == "" && y.Invalid == "" && of(x) > 0 && of(y) > 0 {
			a, b = append(a, of(x)), append(b, of(y))
		}
	}
	s, err := stats.Ratios(a, b)
	if err != nil {
		return nil // no round has both
	}
	return &s
}
