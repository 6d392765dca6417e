package breaker

import "time"

// Status is a breaker at one moment, for people and metrics.
type Status struct {
	Name  Name
	State State
	// Forced says that an operator has opened it.
	Forced bool
	// DryRun says that it only reports.
	DryRun bool
	// Cause and Since tell why and since when it is in State.
	Cause Cause
	Since time.Time
	// BadSince is when the first of the results came that opened it, until it is closed again; see [Event].
	BadSince time.Time
	// OpenUntil is when the first probe is due; zero unless State is Open and not Forced. It may have
	// passed: the breaker waits for a call to be the probe.
	OpenUntil time.Time
	// Openings is the number of open periods since it was last closed.
	Openings int
	// Counts are the last results in the closed state.
	Counts Counts
	// Sample is the request ID of the last result that was not good.
	Sample string
	// Refused is the number of calls it has refused, or in a dry run would have.
	Refused uint64
	// NotClosed is how long in all it was in another state than Closed, in a dry run too.
	NotClosed time.Duration
	// Stale is the number of results that came too late to count: the state had changed.
	Stale uint64
	// Repeated is the number of permits settled more than once, each a mistake of their holder.
	Repeated uint64
}

// Status returns what can be said about the breaker now.
func (b *Breaker) Status(now time.Time) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := condition(b.condition.Load())
	return Status{
		Name: b.name, State: c.state(), Forced: c.forced(), DryRun: c.dryRun(),
		Cause: b.cause, Since: b.since, BadSince: b.badSince, OpenUntil: b.until, Openings: b.openings,
		Counts: b.counts(now), Sample: b.sample,
		Refused: b.refused.Load(), NotClosed: b.notClosedUntil(now), Stale: b.stale, Repeated: b.repeated.Load(),
	}
}

// VersionStatus is a version at one moment.
type VersionStatus struct {
	Status
	// InFlight is the number of attempts under way.
	InFlight int
	// Limit is the number of attempts that may be under way now: the configured limit, or what the
	// adaptive one thinks.
	Limit int
	// Full and Shed are the numbers of calls refused for the limit; Shed are those for which there
	// was room, but not for their priority.
	Full, Shed uint64
	// P95 is the latency that 95 of 100 good answers stay below; 0 while unknown.
	P95 time.Duration
	// Endpoints are the version's endpoints by address.
	Endpoints []Status
}
