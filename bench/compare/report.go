package main

import (
	"fmt"

	"sluice/bench/stats"
)

// report is a whole run, as -o json prints it.
type report struct {
	Machine   machine          `json:"machine"`
	Peers     []peerVersion    `json:"peers"`
	Skipped   []skippedPeer    `json:"skipped,omitempty"`
	Rounds    int              `json:"rounds"`
	Seconds   float64          `json:"seconds_per_measurement"`
	Reference string           `json:"reference"`
	SluiceEnv []string         `json:"sluice_env,omitempty"`
	Scenarios []scenarioReport `json:"scenarios"`
	Warnings  []string         `json:"warnings,omitempty"`
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
	scenario
	Rows []row `json:"peers"`
}

// row is one peer in one scenario. The summaries are nil if a sample is
// invalid, and CPU also for direct. The ratios are reference / peer.
type row struct {
	Peer        string         `json:"peer"`
	CPUMicros   *stats.Summary `json:"cpu_us_per_request,omitempty"`
	PerSecond   *stats.Summary `json:"requests_per_second,omitempty"`
	MeanLatency *stats.Summary `json:"mean_latency_us,omitempty"`
	CPURatio    *stats.Summary `json:"cpu_ratio,omitempty"`
	RateRatio   *stats.Summary `json:"requests_per_second_ratio,omitempty"`
	Samples     []sample       `json:"samples"`
}

// noisyCores is the share of a core that strangers may use during a
// measurement before the report warns of it.
const noisyCores = 0.15

// summarize fills in the scenarios and their warnings.
func (r *report) summarize(scenarios []scenario, measured results) error {
	invalid, noisy, total := 0, 0, 0
	for _, s := range scenarios {
		out := scenarioReport{scenario: s}
		for _, p := range r.Peers {
			samples := measured[s][p.Name]
			row, err := summarizeRow(p.Name, samples, measured[s][r.Reference])
			if err != nil {
				return fmt.Errorf("%v, %s: %w", s, p.Name, err)
			}
			out.Rows = append(out.Rows, row)
			for _, sample := range samples {
				total++
				if sample.Invalid != "" {
					invalid++
				} else if sample.OtherCores > noisyCores {
					noisy++
				}
			}
		}
		r.Scenarios = append(r.Scenarios, out)
	}
	if noisy > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf(
			"in %d of %d measurements other processes used more than %.2f of a core: figures are noisy", noisy, total, noisyCores))
	}
	if invalid > 0 {
		return fmt.Errorf("%d of %d measurements are invalid", invalid, total)
	}
	return nil
}

// summarizeRow condenses a peer's samples and sets them against the reference's.
func summarizeRow(name string, samples, reference []sample) (row, error) {
	out := row{Peer: name, Samples: samples}
	if !valid(samples) {
		return out, nil
	}
	cpu, rate := column(samples, cpuOf), column(samples, rateOf)
	out.PerSecond = summary(rate)
	out.MeanLatency = summary(column(samples, latencyOf))
	if cpu[0] > 0 {
		out.CPUMicros = summary(cpu)
	}
	if !valid(reference) {
		return out, nil
	}
	rateRatio, err := stats.Ratios(column(reference, rateOf), rate)
	if err != nil {
		return row{}, err
	}
	out.RateRatio = &rateRatio
	referenceCPU := column(reference, cpuOf)
	if out.CPUMicros == nil || referenceCPU[0] == 0 {
		return out, nil
	}
	cpuRatio, err := stats.Ratios(referenceCPU, cpu)
	if err != nil {
		return row{}, err
	}
	out.CPURatio = &cpuRatio
	return out, nil
}

func cpuOf(s sample) float64     { return s.CPUMicros }
func rateOf(s sample) float64    { return s.PerSecond }
func latencyOf(s sample) float64 { return s.MeanLatency }

// column picks one figure out of each sample.
func column(samples []sample, of func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return out
}

func summary(values []float64) *stats.Summary {
	s := stats.Summarize(values)
	return &s
}

// valid reports whether there are samples and all of them have figures.
func valid(samples []sample) bool {
	for _, s := range samples {
		if s.Invalid != "" {
			return false
		}
	}
	return len(samples) > 0
}
