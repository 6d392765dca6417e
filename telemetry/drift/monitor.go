package drift

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/proto/inference/tensor"
	"sluice/telemetry/drift/stat"
	"sluice/telemetry/payload"
)

// Sample is a copy of a call that was answered.
type Sample interface {
	// Tensors reads what was asked and what was answered. What it returns is valid until Release.
	Tensors() (inputs, outputs []tensor.Tensor, err error)
	// Release gives the copy's memory back. Nothing of the sample is used afterwards.
	Release()
}

// Shelf keeps small values beside the routing state; a routing.Shelf is one.
type Shelf interface {
	Get(ctx context.Context, key string) ([]byte, error)
	All(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Swap(ctx context.Context, key string, old, value []byte) (bool, error)
}

// Config says where a monitor keeps what.
type Config struct {
	// Shelf returns the store's shelf of a name. It has to be set.
	Shelf func(name string) Shelf
	// Shared says that other gateways use the store, so that counts are exchanged.
	Shared bool
	Logger *slog.Logger // default slog.Default()
	// Alarmed, unless nil, is told of every alarm; it must not block.
	Alarmed func(Alarm)
	// Payloads writes samples down, of versions that say so; nil writes none. The monitor runs it.
	Payloads *payload.Sampler
}

// queueRoom is how many copies may wait to be looked at, over all versions. A copy takes as much memory as the
// call's messages; the relay bounds their sum.
const queueRoom = 256

// Monitor watches the data of versions.
type Monitor struct {
	cfg     Config
	replica string // distinguishes the counts of gateways that share a store
	queue   chan job
	dropped atomic.Uint64
	failed  sync.Once
	draws   int // by which references are calibrated

	mu       sync.Mutex
	versions map[Key]*Version
	learned  map[Key]bool // have learnt enough to say so
	alarms   alarms
}

type job struct {
	version *Version
	id      uint64
	sample  Sample
}

// New returns a monitor. Its Run has to run for anything to be counted.
func New(cfg Config) *Monitor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Monitor{
		cfg: cfg, replica: strconv.FormatUint(rand.Uint64(), 36), queue: make(chan job, queueRoom), draws: stat.CalibrationDraws,
		versions: make(map[Key]*Version), learned: make(map[Key]bool),
	}
}

// Watch returns the version of a key, which is watched with these settings from now on. data is the version of
// its training data, if that is known.
func (m *Monitor) Watch(key Key, s Settings, data string) *Version {
	m.mu.Lock()
	v := m.versions[key]
	if v == nil {
		v = newVersion(m, key)
		m.versions[key] = v
	}
	m.mu.Unlock()
	v.configure(s, data, time.Now())
	return v
}

// Retain forgets the versions that keep does not want. References stay in the store.
func (m *Monitor) Retain(keep func(Key) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.versions {
		if !keep(key) {
			delete(m.versions, key)
			delete(m.learned, key)
		}
	}
	m.alarms.retain(keep)
}

// all returns the versions that are watched.
func (m *Monitor) all() []*Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*Version, 0, len(m.versions))
	for _, v := range m.versions {
		all = append(all, v)
	}
	return all
}

func (m *Monitor) version(key Key) *Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.versions[key]
}

func (m *Monitor) offer(j job) {
	select {
	case m.queue <- j:
	default:
		j.sample.Release()
		m.dropped.Add(1)
	}
}

// learnt notes that a version has samples enough to learn from. The version's lock may be held.
func (m *Monitor) learnt(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned[key] = true
}

// Run counts, exchanges and judges until ctx ends, and returns nil. What is offered afterwards is dropped.
func (m *Monitor) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { m.count(ctx); return nil })
	if m.cfg.Payloads != nil {
		group.Go(func() error { return m.cfg.Payloads.Run(ctx) })
	}
	group.Go(func() error { m.pace(ctx); return nil })
	group.Go(func() error { return newKeeper(m).run(ctx) })
	return group.Wait()
}

// count looks at the samples, one at a time.
func (m *Monitor) count(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			m.drain()
			return
		case j := <-m.queue:
			j.version.count(j.id, j.sample)
			j.sample.Release()
		}
	}
}

// drain releases what still waits.
func (m *Monitor) drain() {
	for {
		select {
		case j := <-m.queue:
			j.sample.Release()
			m.dropped.Add(1)
		default:
			return
		}
	}
}

// pace adjusts the gates once a second, by how long it really was.
func (m *Monitor) pace(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			for _, v := range m.all() {
				v.adjust(now.Sub(last).Seconds())
			}
			last = now
		}
	}
}

// raise tells everybody of an alarm.
func (m *Monitor) raise(a Alarm) {
	a.At = time.Now()
	m.alarms.add(a)
	m.cfg.Logger.Warn("drift", "model", a.Model, "version", a.Version, "feature", a.Feature, "reason", a.Reason,
		"samples", a.Window.Samples, "from", a.Window.From, "to", a.Window.To, "text", a.Text)
	if m.cfg.Alarmed != nil {
		m.cfg.Alarmed(a)
	}
}
