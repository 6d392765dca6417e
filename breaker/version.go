package breaker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// VersionSettings are all settings of one version.
type VersionSettings struct {
	Settings
	Limits
	// Preset is the kind of its model servers.
	Preset Preset
	// CutOff is the standing order that nobody calls the version, CutOffEndpoints that nobody calls
	// these addresses. An order that is new opens as [Breaker.ForceOpen] does; one that is no longer
	// there is a [Breaker.Reset].
	CutOff          bool
	CutOffEndpoints []string
}

// Version is what is known about one version: its breaker, the attempts under way, its latency, and
// its endpoints' breakers.
type Version struct {
	breaker  *Breaker
	limit    limit
	latency  p95
	judgment atomic.Pointer[judgment]

	mu        sync.Mutex
	settings  VersionSettings
	endpoints map[string]*Breaker
}

// judgment is the part of the settings by which attempts are classified.
type judgment struct {
	preset   Preset
	slowCall time.Duration
}

func newVersion(key string, s VersionSettings, now time.Time, events *Events) *Version {
	v := &Version{
		breaker:   newBreaker(Name{Version: key}, s.Settings, now, events),
		endpoints: make(map[string]*Breaker),
	}
	v.update(s, now)
	return v
}

// Allow asks to make an attempt at the version. Errors are those of [Breaker.Allow], [ErrFull] or
// [ErrShed] as they stand. The permit also holds a place of the in-flight limit.
func (v *Version) Allow(now time.Time, p Priority) (Permit, error) {
	// The limit comes first, so that no probe is taken that could not be made; but a full version that
	// is also open is open.
	if !v.breaker.Ready(now) {
		return Permit{}, v.breaker.refuse()
	}
	place, err := v.limit.acquire(p)
	if err != nil {
		return Permit{}, err
	}
	permit, err := v.breaker.Allow(now)
	if err != nil {
		release(place, Excluded)
		v.limit.release()
		return Permit{}, err
	}
	permit.version, permit.adaptive = v, place
	return permit, nil
}

// release gives back what the version holds for a permit.
func (v *Version) release(p *Permit, r Result) {
	release(p.adaptive, r.Outcome)
	v.limit.release()
	if r.Latency > 0 && (r.Outcome == Success || r.Outcome == Slow) {
		v.latency.observe(r.At, r.Latency)
	}
}

// Classify judges an attempt at the version by its own settings and latency.
func (v *Version) Classify(a Attempt) Outcome {
	j := v.judgment.Load()
	return Classify(j.preset, Thresholds{Slow: j.slowCall, Patience: v.patience(j.slowCall)}, a)
}

// ReportsInBand reports whether answers of the version's servers may carry errors beside their
// status, so that [Attempt].InBandError has a meaning.
func (v *Version) ReportsInBand() bool { return v.judgment.Load().preset.inBandErrors() }

// patience is the time an attempt must have had for a passed deadline to be the version's fault.
func (v *Version) patience(slowCall time.Duration) time.Duration {
	if slowCall > 0 {
		return slowCall
	}
	if d := v.latency.value(); d > 0 {
		return d
	}
	return unknownPatience
}

// P95 returns the latency that 95 of 100 good answers stay below, over the last seconds, and false
// while too few are known. It costs one load.
func (v *Version) P95() (time.Duration, bool) {
	d := v.latency.value()
	return d, d > 0
}

// Breaker returns the version's own breaker.
func (v *Version) Breaker() *Breaker { return v.breaker }

// InFlight is the number of attempts under way.
func (v *Version) InFlight() int { return int(v.limit.inFlight.Load()) }

// Crowded reports whether so many attempts are under way that those of sheddable calls would be refused: a
// time to leave undone what nobody waits for.
func (v *Version) Crowded() bool { return v.limit.crowded() }

// Endpoint returns the breaker of an address, which is made if there is none. Keep it; this is not for
// the path of a call.
func (v *Version) Endpoint(addr string, now time.Time) *Breaker {
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.endpoints[addr]
	if b == nil {
		b = newBreaker(Name{v.breaker.name.Version, addr}, v.settings.Settings, now, v.breaker.events)
		v.endpoints[addr] = b
		b.obey(false, slices.Contains(v.settings.CutOffEndpoints, addr), now)
	}
	return b
}

// Known returns the breaker of an address, if there is one.
func (v *Version) Known(addr string) (*Breaker, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, ok := v.endpoints[addr]
	return b, ok
}

// RetainEndpoints forgets the endpoints that are not in addrs. Permits given out for them may still be
// settled.
func (v *Version) RetainEndpoints(addrs []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for addr := range v.endpoints {
		if !slices.Contains(addrs, addr) {
			delete(v.endpoints, addr)
		}
	}
}

// update changes the settings and keeps everything that is known.
func (v *Version) update(s VersionSettings, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Limits = s.Limits.withDefaults()
	before := v.settings
	v.settings = s
	v.judgment.Store(&judgment{preset: s.Preset, slowCall: s.SlowCall})
	v.limit.update(s.Limits)
	v.breaker.update(s.Settings)
	for _, b := range v.endpoints {
		b.update(s.Settings)
	}
	v.breaker.obey(before.CutOff, s.CutOff, now)
	for addr, b := range v.endpoints {
		b.obey(slices.Contains(before.CutOffEndpoints, addr), slices.Contains(s.CutOffEndpoints, addr), now)
	}
}

// Reset closes the version's breaker and those of its endpoints, and forgets what they have counted.
// Standing orders are followed all the same.
func (v *Version) Reset(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.settings.CutOff {
		v.breaker.Reset(now)
	}
	for addr, b := range v.endpoints {
		if !slices.Contains(v.settings.CutOffEndpoints, addr) {
			b.Reset(now)
		}
	}
}

// Status returns what can be said about the version now.
func (v *Version) Status(now time.Time) VersionStatus {
	s := VersionStatus{
		Status: v.breaker.Status(now), InFlight: v.InFlight(), Limit: v.limit.now(),
		Full: v.limit.full.Load(), Shed: v.limit.shed.Load(), P95: v.latency.value(),
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range v.endpoints {
		s.Endpoints = append(s.Endpoints, b.Status(now))
	}
	slices.SortFunc(s.Endpoints, func(a, b Status) int { return strings.Compare(a.Name.Endpoint, b.Name.Endpoint) })
	return s
}
