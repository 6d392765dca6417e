package labels

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Shelf keeps small values beside the routing state; a routing.Shelf is one.
type Shelf interface {
	All(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Swap(ctx context.Context, key string, old, value []byte) (bool, error)
}

// Marker marks bits for all gateways to see; a routing.Marker is one.
type Marker interface {
	Mark(ctx context.Context, set string, keep time.Duration, items [][]uint32) (fresh []bool, err error)
}

// Config says where a monitor keeps what.
type Config struct {
	// Signer signs ids and checks them. It has to be set.
	Signer *Signer
	// Shelf returns the store's shelf of a name. It has to be set.
	Shelf  func(name string) Shelf
	Logger *slog.Logger // default slog.Default()
	// Marker lets gateways that share a store know of each other's labels; nil if they do not. It is asked once for the
	// labels of a request and a version, and has 2 s.
	Marker Marker
	// OwnKey says that the signer's key is this process's own, which is said once labels are taken.
	OwnKey bool
	// Alarmed, unless nil, is told of every alarm; it must not block.
	Alarmed func(Alarm)
}

// Monitor takes labels for versions, and says what they tell.
type Monitor struct {
	cfg     Config
	gateway string // distinguishes the counts of gateways that share a store
	refused [Reasons]atomic.Uint64
	counted atomic.Uint64
	repeats atomic.Uint64
	askFrom atomic.Int64  // when one request is to ask the store for marks again, Unix time in nanoseconds; 0 while it answers
	mute    atomic.Bool   // that the store does not answer was logged
	alone   atomic.Uint64 // labels of which other gateways could not be asked

	mu       sync.Mutex
	versions map[Key]*Version
	told     bool // that the key is the process's own
	alarms   alarms
}

// New returns a monitor. Its Run has to run for counts to be exchanged and judged.
func New(cfg Config) *Monitor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Monitor{cfg: cfg, gateway: strconv.FormatUint(rand.Uint64(), 36), versions: make(map[Key]*Version)}
}

// Signer signs the ids of the predictions whose labels the monitor takes.
func (m *Monitor) Signer() *Signer { return m.cfg.Signer }

// Watch returns the version of a key, which takes labels with these settings from now on.
func (m *Monitor) Watch(key Key, s Settings) *Version {
	m.mu.Lock()
	v := m.versions[key]
	fresh := v == nil
	if fresh {
		v = &Version{key: key}
	}
	v.configure(s, time.Now())
	if fresh {
		m.versions[key] = v // and not before: others may use it at once
	}
	tell := m.cfg.OwnKey && !m.told
	m.told = m.told || tell
	m.mu.Unlock()
	if tell {
		m.cfg.Logger.Warn("labels: ids of predictions are signed with a key of this process's own, so that labels are taken by this gateway alone " +
			"and until it ends; --label-key-file names keys that last")
	}
	return v
}

// Retain forgets the versions that keep does not want. What they have left in the store stays for other gateways.
func (m *Monitor) Retain(keep func(Key) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.versions {
		if !keep(key) {
			delete(m.versions, key)
		}
	}
	m.alarms.retain(keep)
}

// Outcome is what became of a label.
type Outcome struct {
	// Duplicate says that its prediction had a label before, which is the one that counts.
	Duplicate bool
	// Refused says why it was not counted; nil if it was, or is a duplicate.
	Refused *Refusal
}

// Take counts labels. It waits for nothing but the store's marks, if there are any, and for those 2 s at most: if they
// cannot be had, labels are only compared with those that this gateway has taken itself.
func (m *Monitor) Take(ctx context.Context, all []Label) []Outcome {
	now := time.Now()
	out := make([]Outcome, len(all))
	batches := make(map[marks][]candidate)
	for i := range all {
		c, refused := m.check(&all[i], now)
		if refused != nil {
			out[i].Refused = refused
			continue
		}
		c.index = i
		set := marks{c.version, c.cohort}
		batches[set] = append(batches[set], c)
	}
	for set, batch := range batches {
		m.takeBatch(ctx, set, batch, out, now)
	}
	for i := range out {
		switch o := &out[i]; {
		case o.Refused != nil:
			m.refused[o.Refused.Reason].Add(1)
		case o.Duplicate:
			m.repeats.Add(1)
		default:
			m.counted.Add(1)
		}
	}
	return out
}

// marks name the set of bits that belong to the predictions of a cohort.
type marks struct {
	version *Version
	cohort  int64
}

// candidate is a label that has been checked.
type candidate struct {
	index   int
	id      *Identity
	label   *Label
	version *Version
	cohort  int64
}

// mark is what tells the prediction from others: random bits, as those of its answer are.
func (c *candidate) mark() uint64 { return c.id.mark(max(0, c.label.Row)) }

// check finds out whose label it is, and whether it fits.
func (m *Monitor) check(l *Label, now time.Time) (candidate, *Refusal) {
	id, err := m.cfg.Signer.Parse(l.ID)
	switch {
	case errors.Is(err, ErrKey):
		return candidate{}, refuse(UnknownKey, "prediction_id: %v", err)
	case errors.Is(err, ErrSignature):
		return candidate{}, refuse(BadSignature, "prediction_id: %v", err)
	case err != nil:
		return candidate{}, refuse(Malformed, "prediction_id: %v", err)
	}
	v := m.version(Key{id.Model, id.Version})
	if v == nil {
		return candidate{}, refuse(UnknownVersion, "nobody takes labels for version %q of %q: it is not in the routes, or its route has no labels setting", id.Version, id.Model)
	}
	cohort, refused := v.admit(id, l, now)
	return candidate{id: id, label: l, version: v, cohort: cohort}, refused
}

// takeBatch counts those of a cohort's labels that no gateway has counted before.
func (m *Monitor) takeBatch(ctx context.Context, set marks, batch []candidate, out []Outcome, now time.Time) {
	batch = set.version.unseen(set.cohort, batch, out)
	if len(batch) == 0 {
		return
	}
	fresh := m.mark(ctx, set, batch)
	for i, c := range batch {
		if !fresh[i] {
			out[c.index].Duplicate = true
			continue
		}
		out[c.index] = set.version.take(c, now)
	}
}

const (
	// markSlow is after how long a store that has not answered yet is not asked by other requests.
	markSlow = 200 * time.Millisecond
	// markAgain is for how long; then one request asks again, and the others go on without.
	markAgain = 5 * time.Second
)

// mark asks the other gateways which labels are new. If nobody answers, all are.
func (m *Monitor) mark(ctx context.Context, set marks, batch []candidate) []bool {
	if m.cfg.Marker != nil {
		if m.mayAsk() {
			if fresh, ok := m.ask(ctx, set, batch); ok {
				return fresh
			}
		}
		m.alone.Add(uint64(len(batch)))
	}
	fresh := make([]bool, len(batch))
	for i := range fresh {
		fresh[i] = true
	}
	return fresh
}

// mayAsk reports whether the store is to be asked: it answers, or this is the request that finds out whether it does again.
func (m *Monitor) mayAsk() bool {
	from, now := m.askFrom.Load(), time.Now()
	return from == 0 || now.UnixNano() >= from && m.askFrom.CompareAndSwap(from, now.Add(markAgain).UnixNano())
}

// ask asks the store. It says so when the store begins not to answer, and when it does again.
func (m *Monitor) ask(ctx context.Context, set marks, batch []candidate) (fresh []bool, ok bool) {
	items := make([][]uint32, len(batch))
	for i := range batch {
		items[i] = markBits(batch[i].mark())
	}
	slow := time.AfterFunc(markSlow, func() { m.askFrom.CompareAndSwap(0, time.Now().Add(markAgain).UnixNano()) })
	defer slow.Stop()
	name, keep := set.version.markSet(set.cohort)
	fresh, err := m.cfg.Marker.Mark(context.WithoutCancel(ctx), name, keep, items) // a caller who gives up says nothing about the store
	if err == nil {
		slow.Stop()
		m.askFrom.Store(0)
		if m.mute.Swap(false) {
			m.cfg.Logger.Info("labels: the store says again which labels other gateways have taken")
		}
		return fresh, true
	}
	m.askFrom.Store(time.Now().Add(markAgain).UnixNano())
	if !m.mute.Swap(true) {
		m.cfg.Logger.Warn("labels: the store cannot be asked which labels other gateways have taken, going on without", "error", err)
	}
	return nil, false
}

func (m *Monitor) version(key Key) *Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.versions[key]
}

// all returns the versions that take labels.
func (m *Monitor) all() []*Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*Version, 0, len(m.versions))
	for _, v := range m.versions {
		all = append(all, v)
	}
	return all
}

// Counts say what became of the labels that this gateway was told; they only grow.
type Counts struct {
	Counted, Duplicates uint64
	// Unshared labels were taken without knowing whether another gateway has.
	Unshared uint64
	Refused  [Reasons]uint64
}

// Counts returns them as they are now.
func (m *Monitor) Counts() Counts {
	c := Counts{Counted: m.counted.Load(), Duplicates: m.repeats.Load(), Unshared: m.alone.Load()}
	for i := range c.Refused {
		c.Refused[i] = m.refused[i].Load()
	}
	return c
}
