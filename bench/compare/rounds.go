package main

import (
	"context"
	"fmt"
	"io"
)

// results holds every sample: results[scenario][peer name] has one per round.
type results map[scenario]map[string][]sample

// runRounds measures every member once per scenario and round. Members take
// turns within a scenario and each round starts with another one, so that a
// machine that slows down or speeds up does so for all of them.
func runRounds(ctx context.Context, m *measurer, scenarios []scenario, rounds int, progress io.Writer) (results, error) {
	out := make(results)
	for _, s := range scenarios {
		out[s] = make(map[string][]sample)
	}
	members := m.fleet.members
	for round := range rounds {
		for _, s := range scenarios {
			for i := range members {
				target := members[(round+i)%len(members)]
				sample, err := m.sample(ctx, target, s)
				if err != nil {
					return nil, err
				}
				out[s][target.name()] = append(out[s][target.name()], sample)
				fmt.Fprintf(progress, "round %d/%d  %-14v %-12s %s\n", round+1, rounds, s, target.name(), sample)
			}
		}
	}
	return out, nil
}

// String returns a sample on one line.
func (s sample) String() string {
	if s.Invalid != "" {
		return "INVALID: " + s.Invalid
	}
	return fmt.Sprintf("%6.1f us CPU  %6.0f req/s  %7.0f us  (%d requests in %.1f s, others %.2f cores)",
		s.CPUMicros, s.PerSecond, s.MeanLatency, s.Requests, s.Seconds, s.OtherCores)
}
