package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/bench/counters"
	"sluice/bench/h2load"
	"sluice/bench/payload"
	"sluice/bench/procfs"
)

// sample is one measurement of one peer. A sample with Invalid set has no
// figures: a proxy that answers calls itself is faster than one that forwards them.
type sample struct {
	Requests    uint64  `json:"requests"`
	Seconds     float64 `json:"seconds"`
	CPUMicros   float64 `json:"cpu_us_per_request"` // the proxy's processes; 0 for direct
	PerSecond   float64 `json:"requests_per_second"`
	MeanLatency float64 `json:"mean_latency_us"`
	// OtherCores is the number of cores kept busy by processes that have no
	// part in the run.
	OtherCores float64 `json:"other_cores"`
	Invalid    string  `json:"invalid,omitempty"`
}

// firstGuess is the number of requests that finds out how fast a peer is. It is
// enough to fill every stream of the widest shape a few times.
const firstGuess = 4000

// measurer runs loads against the members of a fleet.
type measurer struct {
	fleet   *fleet
	bodies  map[int]string // framed request size -> file
	seconds time.Duration
	warmUp  time.Duration
	rates   map[rateKey]float64 // requests per second, from the last run of its kind
}

type rateKey struct {
	peer string
	scenario
}

// sample warms a member up and measures it once. Requests are counted rather
// than timed, so that every one of them can be accounted for.
func (m *measurer) sample(ctx context.Context, target *member, s scenario) (sample, error) {
	key, warmUp := rateKey{target.name(), s}, m.warmUp/3
	if _, known := m.rates[key]; !known {
		warmUp = m.warmUp
		result, _, err := m.load(ctx, target, s, firstGuess)
		if err != nil {
			return sample{}, err
		}
		m.rates[key] = result.PerSecond
	}
	result, _, err := m.load(ctx, target, s, m.requests(key, warmUp))
	if err != nil {
		return sample{}, err
	}
	if warmUp == m.warmUp {
		m.rates[key] = result.PerSecond
	}
	measured, err := m.measure(ctx, target, s, m.requests(key, m.seconds))
	if err == nil && measured.Invalid == "" {
		m.rates[key] = measured.PerSecond
	}
	return measured, err
}

// requests returns how many requests take about a duration.
func (m *measurer) requests(key rateKey, d time.Duration) uint64 {
	return max(firstGuess, uint64(math.Ceil(m.rates[key]*d.Seconds())))
}

// load runs h2load once. A run that takes much longer than it should ends with an error.
func (m *measurer) load(ctx context.Context, target *member, s scenario, requests uint64) (h2load.Result, time.Duration, error) {
	tooLong := fmt.Errorf("%s, %v: %d requests took longer than %v", target.name(), s, requests, m.bound())
	ctx, cancel := context.WithTimeoutCause(ctx, m.bound(), tooLong)
	defer cancel()
	return h2load.Run(ctx, h2load.Load{
		URL:         "http://" + target.address + payload.InferMethod,
		BodyFile:    m.bodies[s.Size],
		Connections: s.Connections,
		Streams:     s.Streams,
		Requests:    requests,
	})
}

// bound is the longest a single load may take.
func (m *measurer) bound() time.Duration { return 20*time.Second + 5*(m.seconds+m.warmUp) }

// reading is everything that is read before and after a measured load.
type reading struct {
	busy   time.Duration
	proxy  procfs.Usage // empty for direct
	server procfs.Usage
	calls  counters.Totals
}

// read takes a reading.
func (m *measurer) read(ctx context.Context, target *member) (r reading, err error) {
	snapshot, err := counters.Fetch(ctx, m.fleet.addresses.Report)
	if err != nil {
		return reading{}, err
	}
	r.calls = snapshot[payload.InferMethod]
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

// measure runs one load between two readings.
func (m *measurer) measure(ctx context.Context, target *member, s scenario, requests uint64) (sample, error) {
	before, err := m.read(ctx, target)
	if err != nil {
		return sample{}, err
	}
	result, generator, err := m.load(ctx, target, s, requests)
	if err != nil {
		return sample{}, err
	}
	after, err := m.read(ctx, target)
	if err != nil {
		return sample{}, err
	}
	if doubt := doubt(before, after, result, requests, s.Size); doubt != "" {
		return sample{Requests: requests, Invalid: doubt}, nil
	}
	proxy, server := after.proxy.CPU-before.proxy.CPU, after.server.CPU-before.server.CPU
	others := after.busy - before.busy - proxy - server - generator
	return sample{
		Requests:    requests,
		Seconds:     result.Elapsed.Seconds(),
		CPUMicros:   float64(proxy.Nanoseconds()) / 1e3 / float64(requests),
		PerSecond:   result.PerSecond,
		MeanLatency: float64(result.MeanLatency.Nanoseconds()) / 1e3,
		OtherCores:  max(0, others.Seconds()/result.Elapsed.Seconds()),
	}, nil
}

// doubt says why a measurement cannot be believed, unless every request was
// carried to the backend once, whole, and every answer came back whole.
func doubt(before, after reading, result h2load.Result, requests uint64, size int) string {
	if err := result.Check(requests, requests*payload.AnswerSize); err != nil {
		return err.Error()
	}
	calls := after.calls.Minus(before.calls)
	bytes := requests * uint64(size-payload.FramePrefix)
	switch {
	case calls.Begun != requests || calls.Answered != requests:
		return fmt.Sprintf("the backend saw %d calls and answered %d, want %d", calls.Begun, calls.Answered, requests)
	case calls.RequestBytes != bytes:
		return fmt.Sprintf("the backend got %d bytes, want %d", calls.RequestBytes, bytes)
	case !slices.Equal(before.proxy.PIDs, after.proxy.PIDs):
		return fmt.Sprintf("the proxy's processes changed from %v to %v: CPU time is missing", before.proxy.PIDs, after.proxy.PIDs)
	}
	return ""
}
