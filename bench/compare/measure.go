package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"sluice/bench/counters"
	"sluice/bench/load"
	"sluice/bench/payload"
	"sluice/bench/procfs"
)

// fewest is the least number of calls of a measurement: every stream of the widest shape
// gets a few.
const fewest = 4000

// fewestAtRate is the least number of calls of kind half, for p99 to mean something, as long as that takes at most
// longestAtRate times as long as asked for.
const (
	fewestAtRate  = 1000
	longestAtRate = 12
)

// measurer runs loads against the members of a fleet.
type measurer struct {
	yard     *yard
	fleet    *fleet         // of the round; nil: not started yet
	messages map[int][]byte // framed request size -> request
	seconds  time.Duration
	warmUp   time.Duration
	h2load   bool // use nghttp2's generator where it can: unary, plaintext, saturated
}

// sample warms a member up and measures it once, on the same connections. Calls are counted
// rather than timed, so that every one of them can be accounted for.
func (m *measurer) sample(ctx context.Context, target *member, at key, rate float64) (sample, error) {
	out := sample{Scenario: at.scenario, Kind: at.kind, Peer: at.peer, Round: at.round, Rate: rate, Workers: m.yard.workers}
	tooLong := fmt.Errorf("%s, %v: took longer than %v", at.peer, at.scenario, m.bound())
	ctx, cancel := context.WithTimeoutCause(ctx, m.bound(), tooLong)
	defer cancel()
	g, err := m.generator(ctx, target, at.scenario)
	if err != nil {
		return out, fmt.Errorf("%s, %v: %w", at.peer, at.scenario, err)
	}
	defer g.close()
	perSecond, err := g.warmUp(ctx, m.warmUp)
	if err != nil {
		return out, fmt.Errorf("%s, %v: %w", at.peer, at.scenario, err)
	}
	if rate > 0 {
		perSecond = rate
	}
	calls := max(m.fewest(at, rate), uint64(math.Ceil(perSecond*m.seconds.Seconds())))
	return out, m.measure(ctx, target, g, calls, &out)
}

// fewest returns the least number of calls of a measurement.
func (m *measurer) fewest(at key, rate float64) uint64 {
	n := uint64(at.scenario.Connections * at.scenario.Streams)
	if at.kind == half {
		return max(n, uint64(min(fewestAtRate, longestAtRate*rate*m.seconds.Seconds())))
	}
	if at.scenario.Stream || at.scenario.Size > 64<<10 {
		return n // slow enough without
	}
	return max(n, uint64(fewest*min(1, m.seconds.Seconds())))
}

// bound is the longest a single sample may take.
func (m *measurer) bound() time.Duration {
	return 20*time.Second + 2*longestAtRate*m.seconds + 5*m.warmUp
}

// reading is everything that is read before and after a measured load.
type reading struct {
	busy   time.Duration
	proxy  procfs.Usage // empty for direct
	server procfs.Usage
	calls  counters.Totals
}

// read takes a reading.
func (m *measurer) read(ctx context.Context, target *member, method string) (r reading, err error) {
	snapshot, err := counters.Fetch(ctx, m.fleet.addresses.Report)
	if err != nil {
		return reading{}, err
	}
	r.calls = snapshot[method]
	if target.process != nil {
		if r.proxy, err = procfs.Group(target.process.Group()); err != nil {
			return reading{}, errors.Join(fmt.Errorf("%s: %w", target.name(), err), target.said())
		}
	}
	if r.server, err = procfs.Group(m.fleet.backend.Group()); err != nil {
		return reading{}, fmt.Errorf("backend: %w: %s", err, m.fleet.backend.Log())
	}
	r.busy, err = procfs.Busy()
	return r, err
}

// measure runs one load between two readings and fills in the figures, or why there are none.
func (m *measurer) measure(ctx context.Context, target *member, g generator, calls uint64, out *sample) error {
	method := methodOf(out.Scenario)
	before, err := m.read(ctx, target, method)
	if err != nil {
		return err
	}
	result, err := g.run(ctx, calls, out.Rate)
	if err != nil {
		return fmt.Errorf("%s, %v: %w", out.Peer, out.Scenario, err)
	}
	after, err := m.read(ctx, target, method)
	if err != nil {
		return err
	}
	out.Calls = calls
	if out.Invalid = doubt(before, after, result, calls, out.Scenario); out.Invalid != "" {
		return nil
	}
	proxy, server := after.proxy.CPU-before.proxy.CPU, after.server.CPU-before.server.CPU
	others := after.busy - before.busy - proxy - server - result.cpu
	out.Seconds = result.elapsed.Seconds()
	out.CPUMicros = micros(proxy) / float64(calls)
	out.PerSecond = float64(calls) / out.Seconds
	out.Mean, out.P50 = micros(result.mean), micros(result.p50)
	if load.Stands(99, calls) {
		out.P99 = micros(result.p99)
	}
	if load.Stands(99.9, calls) {
		out.P999 = micros(result.p999)
	}
	out.Waited = float64(result.waited) / float64(calls)
	out.LagP50, out.LagP99 = micros(result.lagP50), micros(result.lagP99)
	out.GeneratorMicros = micros(result.cpu) / float64(calls)
	out.OtherCores = max(0, others.Seconds()/out.Seconds)
	return nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// doubt says why a measurement cannot be believed, unless every request was
// carried to the backend once, whole, and every answer came back whole.
func doubt(before, after reading, result outcome, requests uint64, s scenario) string {
	calls := after.calls.Minus(before.calls)
	bytes := requests * uint64(s.Size-payload.FramePrefix)
	switch {
	case result.trouble != "":
		return result.trouble
	case result.bytes != requests*s.answerBytes():
		return fmt.Sprintf("answers add up to %d bytes, want %d", result.bytes, requests*s.answerBytes())
	case calls.Begun != requests || calls.Answered != requests:
		return fmt.Sprintf("the backend saw %d calls and answered %d, want %d", calls.Begun, calls.Answered, requests)
	case calls.RequestBytes != bytes:
		return fmt.Sprintf("the backend got %d bytes, want %d", calls.RequestBytes, bytes)
	case !slices.Equal(before.proxy.PIDs, after.proxy.PIDs):
		return fmt.Sprintf("the proxy's processes changed from %v to %v: CPU time is missing", before.proxy.PIDs, after.proxy.PIDs)
	}
	return ""
}

// methodOf is what a scenario calls.
func methodOf(s scenario) string {
	if s.Stream {
		return payload.StreamMethod
	}
	return payload.InferMethod
}

// configured is the load generator's setting for a scenario.
func (m *measurer) configured(target *member, s scenario) load.Config {
	config := load.Config{
		Address: target.address, Connections: s.Connections, Streams: s.Streams,
		Method: methodOf(s), Message: m.messages[s.Size], Timeout: m.bound(),
	}
	if s.TLS {
		config.TLS = m.yard.trust
	}
	if s.Stream {
		config.Metadata = [][2]string{
			{payload.AnswerSizeKey, strconv.Itoa(streamedSize)},
			{payload.AnswerCountKey, strconv.Itoa(streamedAnswers)},
		}
	}
	if s.Varied {
		config.Varied = []load.Varied{
			{Name: "x-user-id", Prefix: "user-", From: 10_000, To: 19_999},
			{Name: "grpc-timeout", Suffix: "m", From: 9_000, To: 9_999},
		}
	}
	return config
}
