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
// them. In each round the order of the scenarios, and for each that of its peers, is drawn anew: what one leaves behind, in
// caches, in memory and in connections that are still closing, is not always the same one's burden. Saturation comes first, because the rate of
// kind half is derived from it. It stops early, without an error, once until has passed.
func (o *options) takeSamples(ctx context.Context, m *measurer, s *samples, until time.Time, progress io.Writer) error {
	order := rand.New(rand.NewPCG(o.seed, 0))
	for _, k := range o.kinds() {
		for round := range o.rounds {
			over, err := o.round(ctx, m, s, key{kind: k, round: round}, order, until, progress)
			if err != nil {
				return err
			}
			if over {
				fmt.Fprintln(progress, "the time is over; the same command goes on from here")
				return nil
			}
		}
	}
	return nil
}

// round takes a round's samples, by processes of its own. How memory is laid out, which connection falls to which thread and
// how calls happen to be batched is settled when processes start and connect, and may make one faster for as long as it runs: with the
// same processes in all rounds, that luck would be in every figure and in no bound. It reports whether the time was over
// before the end. A round that is there already starts nothing.
func (o *options) round(ctx context.Context, m *measurer, s *samples, at key, order *rand.Rand, until time.Time, progress io.Writer) (over bool, err error) {
	defer func() {
		if m.fleet != nil {
			m.fleet.stop()
			m.fleet = nil
		}
	}()
	for _, at.scenario = range shuffled(o.scenarios, order) {
		if time.Now().After(until) {
			return true, nil
		}
		if err := o.turn(ctx, m, s, at, order, progress); err != nil {
			return false, err
		}
	}
	return false, nil
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
	for i, p := range shuffled(m.yard.peers, order) {
		at.peer = p.Name()
		if s.have[at] {
			continue
		}
		if m.fleet == nil {
			var err error
			if m.fleet, err = m.yard.start(ctx); err != nil {
				return err
			}
		}
		sample, err := m.sample(ctx, m.fleet.member(at.peer, at.scenario.TLS), at, rate)
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

// shuffled returns scenarios or peers in the order that is drawn next.
func shuffled[T any](all []T, order *rand.Rand) []T {
	all = slices.Clone(all)
	order.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
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
