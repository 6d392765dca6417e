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

// Config says where a monitor keeps what.
type Config struct {
	// Signer signs ids and checks them. It has to be set.
	Signer *Signer
	// Shelf returns the store's shelf of a name. It has to be set.
	Shelf  func(name string) Shelf
	Logger *slog.Logger // default slog.Default()
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

// Take counts a label. It reports whether the prediction had one before, which is then the one that counts. It never
// waits for the store.
func (m *Monitor) Take(l *Label) (duplicate bool, refused *Refusal) {
	duplicate, refused = m.take(l, time.Now())
	switch {
	case refused != nil:
		m.refused[refused.Reason].Add(1)
	case duplicate:
		m.repeats.Add(1)
	default:
		m.counted.Add(1)
	}
	return duplicate, refused
}

func (m *Monitor) take(l *Label, now time.Time) (bool, *Refusal) {
	id, err := m.cfg.Signer.Parse(l.ID)
	switch {
	case errors.Is(err, ErrKey):
		return false, refuse(UnknownKey, "prediction_id: %v", err)
	case errors.Is(err, ErrSignature):
		return false, refuse(BadSignature, "prediction_id: %v", err)
	case err != nil:
		return false, refuse(Malformed, "prediction_id: %v", err)
	}
	v := m.version(Key{id.Model, id.Version})
	if v == nil {
		return false, refuse(UnknownVersion, "nobody takes labels for version %q of %q: it is not in the routes, or its route has no labels setting", id.Version, id.Model)
	}
	return v.take(id, l, now)
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
	Refused             [Reasons]uint64
}

// Counts returns them as they are now.
func (m *Monitor) Counts() Counts {
	c := Counts{Counted: m.counted.Load(), Duplicates: m.repeats.Load()}
	for i := range c.Refused {
		c.Refused[i] = m.refused[i].Load()
	}
	return c
}
