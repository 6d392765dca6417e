package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Of calls that fail, this many a second get a line, and a burst of them; for faults of servers, refusals by the gateway and
	// mistakes of callers, each.
	linesPerSecond = 10
	lineBurst      = 100
	// Faults at each version, and refusals, get a line this often, and a burst of them, whatever fails elsewhere.
	versionLineEvery = 10 * time.Second
	versionLineBurst = 5
	// lineRoom is how many may wait to be written.
	lineRoom = 256
	// suppressedEvery is how often the number of those without a line is told.
	suppressedEvery = 10 * time.Second
	// lastCalls is how many failed calls of each kind are remembered, and how many that fell back, or were late.
	lastCalls = 100
)

// Failure is a call that failed, that another version than the chosen one answered, or that was answered late, for people. It holds nothing that a client or a model server wrote but
// the ids by which the call can be found.
type Failure struct {
	At                  time.Time // when it was over
	RequestID, TraceID  string
	Method              string // _OTHER for one that a client made up
	Model, Version      string // as in the metrics
	Primary, Fallback   string // who should have answered, and why it did not; empty without fallback
	Code, Reason        string // Reason is empty for a model server's own status
	Duration            time.Duration
	Attempts            int
	Revision            uint64
	LastEndpoint        string // empty without attempts
	LastOutcome, LastIs string // outcome and reason of the last attempt
	fault               bool   // a server's or the gateway's
}

func newFailure(c *Call) Failure {
	f := Failure{
		At: c.Ended, RequestID: c.RequestID, Method: methodOf(c), Model: c.Series.Model, Version: c.Series.Version,
		Fallback: c.FallbackReason, Code: CodeName(c.Code), Reason: c.Reason, Duration: c.Ended.Sub(c.Opened),
		Attempts: c.begun, Revision: c.Revision,
	}
	if c.Trace.ID.IsValid() {
		f.TraceID = c.Trace.ID.String()
	}
	if c.FallbackReason != "" && c.Primary != nil {
		f.Primary = c.Primary.Version
	}
	if all := c.Attempts(); len(all) > 0 {
		last := &all[len(all)-1]
		f.LastEndpoint, f.LastOutcome, f.LastIs = last.Endpoint, last.Outcome, last.Reason
	}
	return f
}

// failureLog writes a line for each call that failed, within limits, and remembers the last of them, and of those
// that fell back. Writing may block; callers do not.
type failureLog struct {
	log     *slog.Logger
	metrics *metrics
	queue   chan Failure

	// A caller who makes mistakes, which costs him nothing, hides no fault by them. Nor do calls that were refused because
	// a version is cut off or full: each says the same, and the probe that fails meanwhile says why.
	faults, refusals, mistakes failedCalls

	fallbackLimit, lateLimit limiter
	fellBack, late           latest
}

// failedCalls are the calls of one kind that failed.
type failedCalls struct {
	limit      limiter
	suppressed atomic.Uint64
	latest
}

// latest remembers the last calls of a kind.
type latest struct {
	mu   sync.Mutex
	all  []Failure // a ring
	next int
}

func newFailureLog(log *slog.Logger, m *metrics) *failureLog {
	return &failureLog{
		log: log, metrics: m, queue: make(chan Failure, lineRoom),
		faults:        failedCalls{limit: limiter{every: time.Second / linesPerSecond, burst: lineBurst}},
		refusals:      failedCalls{limit: limiter{every: time.Second / linesPerSecond, burst: lineBurst}},
		mistakes:      failedCalls{limit: limiter{every: time.Second / linesPerSecond, burst: lineBurst}},
		fallbackLimit: limiter{every: time.Second / linesPerSecond, burst: lineBurst},
		lateLimit:     limiter{every: time.Second / linesPerSecond, burst: lineBurst},
	}
}

// offer takes a failed call, unless there were too many.
func (l *failureLog) offer(c *Call) {
	kind, own := &l.mistakes, (*limiter)(nil)
	switch {
	case c.unanswered() && c.refusedAtOnce():
		kind, own = &l.refusals, &c.Series.refusalLines
	case c.unanswered():
		kind, own = &l.faults, &c.Series.lines
	}
	if (own == nil || !own.allow(c.Ended)) && !kind.limit.allow(c.Ended) {
		l.suppress(kind, dropRate)
		return
	}
	f := newFailure(c)
	f.fault = kind != &l.mistakes
	kind.remember(f)
	select {
	case l.queue <- f:
	default:
		l.suppress(kind, dropQueueFull)
	}
}

// recent returns the failed calls that are remembered, the latest first.
func (l *failureLog) recent() []Failure {
	all := slices.Concat(l.faults.recent(), l.refusals.recent(), l.mistakes.recent())
	slices.SortStableFunc(all, func(a, b Failure) int { return b.At.Compare(a.At) })
	return all
}

// noteFallback remembers a call that fell back, unless there were too many.
func (l *failureLog) noteFallback(c *Call) {
	if l.fallbackLimit.allow(c.Ended) {
		l.fellBack.remember(newFailure(c))
	}
}

// noteLate remembers a call that was answered late, unless there were too many.
func (l *failureLog) noteLate(c *Call) {
	if l.lateLimit.allow(c.Ended) {
		l.late.remember(newFailure(c))
	}
}

func (l *failureLog) suppress(kind *failedCalls, reason string) {
	kind.suppressed.Add(1)
	l.metrics.drop(signalLogs, reason, 1)
}

func (l *latest) remember(f Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < lastCalls {
		l.all = append(l.all, f)
		return
	}
	l.all[l.next] = f
	l.next = (l.next + 1) % lastCalls
}

// recent returns the calls remembered, the latest first.
func (l *latest) recent() []Failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Failure, 0, len(l.all))
	for i := range l.all {
		all = append(all, l.all[(l.next+len(l.all)-1-i)%len(l.all)])
	}
	return all
}

// run writes lines until ctx ends, and then what is left.
func (l *failureLog) run(ctx context.Context) {
	tick := time.NewTicker(suppressedEvery)
	defer tick.Stop()
	for {
		select {
		case f := <-l.queue:
			l.write(&f)
		case <-tick.C:
			l.tellSuppressed()
		case <-ctx.Done():
			for len(l.queue) > 0 {
				f := <-l.queue
				l.write(&f)
			}
			l.tellSuppressed()
			return
		}
	}
}

func (l *failureLog) tellSuppressed() {
	if n := l.faults.suppressed.Swap(0); n > 0 {
		l.log.Warn("calls failed without a line each", "suppressed", n)
	}
	if n := l.refusals.suppressed.Swap(0); n > 0 {
		l.log.Warn("calls were refused without a line each", "suppressed", n)
	}
	if n := l.mistakes.suppressed.Swap(0); n > 0 {
		l.log.Info("calls failed by mistakes of their callers without a line each", "suppressed", n)
	}
}

// write writes a line. Faults of the callers' own are no news to operators.
func (l *failureLog) write(f *Failure) {
	level := slog.LevelInfo
	if f.fault {
		level = slog.LevelWarn
	}
	attrs := append(make([]slog.Attr, 0, 16),
		slog.String("request_id", f.RequestID), slog.String("trace_id", f.TraceID), slog.String("method", f.Method),
		slog.String("model", f.Model), slog.String("version", f.Version),
		slog.String("code", f.Code), slog.String("reason", f.Reason),
		slog.Duration("duration", f.Duration), slog.Int("attempts", f.Attempts), slog.Uint64("revision", f.Revision))
	if f.LastEndpoint != "" {
		attrs = append(attrs, slog.String("endpoint", f.LastEndpoint), slog.String("outcome", f.LastOutcome), slog.String("attempt", f.LastIs))
	}
	if f.Fallback != "" {
		attrs = append(attrs, slog.String("fallback_from", f.Primary), slog.String("fallback_reason", f.Fallback))
	}
	l.log.LogAttrs(context.Background(), level, "call failed", attrs...)
}
