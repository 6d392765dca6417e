package main

import (
	"context"
	"fmt"
	"time"

	"sluice/bench/h2load"
	"sluice/bench/load"
	"sluice/bench/payload"
)

// generator makes calls at one member.
type generator interface {
	// warmUp makes calls for a while and returns how many there were per second.
	warmUp(ctx context.Context, d time.Duration) (perSecond float64, err error)
	// run makes a number of calls, at a rate or, with 0, as fast as they are answered.
	run(ctx context.Context, calls uint64, rate float64) (outcome, error)
	close()
}

// outcome is what a generator reports of a run.
type outcome struct {
	elapsed              time.Duration
	mean, p50, p99, p999 time.Duration
	bytes                uint64 // of answers
	cpu                  time.Duration

	// Of calls at a rate: how many found no stream free when they were due, and how late the
	// generator began the others.
	waited         uint64
	lagP50, lagP99 time.Duration
	trouble        string // why the run does not count; empty if it does
}

// generator connects to a member.
func (m *measurer) generator(ctx context.Context, target *member, s scenario) (generator, error) {
	if m.h2load {
		return foreign{h2load.Load{
			URL: "http://" + target.address + payload.InferMethod, BodyFile: m.yard.bodyFile(s.Size),
			Connections: s.Connections, Streams: s.Streams,
		}}, nil
	}
	client, err := load.Dial(ctx, m.configured(target, s))
	if err != nil {
		return nil, err
	}
	return own{client, m.bound()}, nil
}

// own is the bench's own generator.
type own struct {
	client *load.Client
	bound  time.Duration
}

func (g own) close() { g.client.Close() }

func (g own) warmUp(ctx context.Context, d time.Duration) (float64, error) {
	r, err := g.client.Run(ctx, load.Plan{For: d})
	if err != nil {
		return 0, err
	}
	return r.PerSecond(), nil
}

func (g own) run(ctx context.Context, calls uint64, rate float64) (outcome, error) {
	r, err := g.client.Run(ctx, load.Plan{Rate: rate, Requests: calls, For: g.bound})
	if err != nil {
		return outcome{}, err
	}
	out := outcome{
		elapsed: r.Elapsed, bytes: r.Bytes, cpu: r.CPU,
		mean: time.Duration(r.Latency.Mean() * float64(time.Microsecond)),
		p50:  r.Quantile(50), p99: r.Quantile(99), p999: r.Quantile(99.9),
		waited: r.Waited, lagP50: r.Late(50), lagP99: r.Late(99),
	}
	if r.TooLong > 0 {
		out.trouble = fmt.Sprintf("%d calls took more than %v, up to where latencies are known", r.TooLong, load.Longest)
	}
	if r.OK != calls || r.Calls() != calls {
		out.trouble = fmt.Sprintf("%d of %d calls were answered with OK; %v", r.OK, calls, r.Failures)
	}
	return out, nil
}

// foreign is nghttp2's h2load, to check the bench's own generator by. It knows nothing of
// rates, of gRPC's status and of quantiles, and connects anew for each run.
type foreign struct{ load h2load.Load }

func (g foreign) close() {}

func (g foreign) warmUp(ctx context.Context, _ time.Duration) (float64, error) {
	g.load.Requests = fewest
	r, _, err := h2load.Run(ctx, g.load)
	return r.PerSecond, err
}

func (g foreign) run(ctx context.Context, calls uint64, _ float64) (outcome, error) {
	g.load.Requests = calls
	r, cpu, err := h2load.Run(ctx, g.load)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{elapsed: r.Elapsed, mean: r.MeanLatency, bytes: r.DataBytes, cpu: cpu}
	if err := r.Check(calls, calls*payload.AnswerSize); err != nil {
		out.trouble = err.Error()
	}
	return out, nil
}
