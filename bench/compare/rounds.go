package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"sluice/bench/stats"
)

// takeSamples takes every sample that is asked for and not there yet: each scenario's peers in
// turn, round by round, so that a machine that slows down or speeds up does so for all of
// them. In each round their order is drawn anew: what one leaves behind, in caches and in connections
// that are still closing, is not always the same one's burden. Saturation comes first, because the rate of
// kind half is derived from it. It stops early, without an error, once until has passed.
func (o *options) takeSamples(ctx context.Context, m *measurer, s *samples, until time.Time, progress io.Writer) error {
	order := rand.New(rand.NewPCG(o.seed, 0))
	for _, k := range o.kinds() {
		for round := range o.rounds {
			for _, sc := range o.scenarios {
				if time.Now().After(until) {
					fmt.Fprintln(progress, "the time is over; the same command goes on from here")
					return nil
				}
				if err := o.turn(ctx, m, s, key{scenario: sc, kind: k, round: round}, order, progress); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// kinds are the ways each scenario is measured.
func (o *options) kinds() []kind {
	if o.latency {
		return []kind{saturated, half}
	}
	return []kind{saturated}
}

// turn measures every peer once.
func (o *options) turn(ctx context.Context, m *measurer, s *samples, at key, order *rand.Rand, progress io.Writer) error {
	var rate float64
	if at.kind == half {
		if rate = halfRate(s, at.scenario); rate == 0 {
			return nil // no proxy was saturated: there is nothing to compare
		}
	}
	for i, target := range shuffled(m.fleet.of(at.scenario.TLS), order) {
		at.peer = target.name()
		if s.have[at] {
			continue
		}
		sample, err := m.sample(ctx, target, at, rate)
		if err != nil {
			return err
		}
		sample.Turn = i
		if err := s.add(record{Sample: &sample}); err != nil {
			return err
		}
		fmt.Fprintf(progress, "%-9s round %d/%d  %-16v %-12s %s\n", at.kind, at.round+1, o.rounds, at.scenario, at.peer, sample)
	}
	return nil
}

// shuffled returns members in the order that is drawn next.
func shuffled(members []*member, order *rand.Rand) []*member {
	order.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members
}

// halfRate returns half the rate of the slowest proxy, or the rate that earlier samples
// were taken at.
func halfRate(s *samples, sc scenario) float64 {
	slowest := math.Inf(1)
	for _, one := range s.all {
		if one.Scenario == sc && one.Kind == half && one.Rate > 0 {
			return one.Rate
		}
	}
	for _, p := range s.peers() {
		if slices.Contains(bounds, p.Name) {
			continue
		}
		if rates := values(s.of(sc, saturated, p.Name), rateOf); len(rates) > 0 {
			slowest = min(slowest, stats.Summarize(rates).Median)
		}
	}
	if math.IsInf(slowest, 1) {
		return 0
	}
	return slowest / 2
}
