package shadow

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/shadow/compare"
)

// Limits bound what a mirror holds and does. Zero fields take the value of
// [DefaultLimits].
type Limits struct {
	Queued   int           // copies that wait
	Bytes    int           // memory of the copies that wait or are under way
	Answers  int           // bytes of answers that calls under way may bring together
	InFlight int           // calls at once
	Deadline time.Duration // of a call
}

// DefaultLimits are the limits of a mirror that is told nothing else.
func DefaultLimits() Limits {
	return Limits{Queued: 1000, Bytes: 32 << 20, Answers: 64 << 20, InFlight: 256, Deadline: 5 * time.Second}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	fill(&l.Queued, d.Queued)
	fill(&l.Bytes, d.Bytes)
	fill(&l.Answers, d.Answers)
	fill(&l.InFlight, d.InFlight)
	fill(&l.Deadline, d.Deadline)
	return l
}

func fill[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Settings are what a route says of one of its shadows.
type Settings struct {
	// Rate is the greatest number of copies per second; 0 means no limit.
	Rate float64
	// Sequences sends copies of requests that belong to a sequence, too.
	Sequences bool
	// Metadata names the credentials that are passed on nevertheless, in lower case.
	Metadata []string
	// Rules say how answers are compared.
	Rules compare.Rules
}

// Mirror sends copies to one shadow version. Its methods may be called concurrently.
type Mirror struct {
	target  Target
	limits  Limits
	conns   *conns
	counts  counters
	verdict *verdict

	settings atomic.Pointer[Settings]
	rate     rateLimit

	mu      sync.Mutex
	work    sync.Cond // there is something to do, or nothing ever again
	queue   []job     // a ring of limits.Queued places
	head, n int
	bytes   int // memory of the copies that wait or are under way
	answers int // bytes that the calls under way may bring
	workers int
	idle    int
	closed  bool
	done    sync.WaitGroup
}

// idleWorkers is how many workers stay when there is nothing to do.
const idleWorkers = 4

// New returns a mirror. It has to be closed.
func New(t Target, l Limits, s Settings) *Mirror {
	m := &Mirror{target: t, limits: l.withDefaults(), conns: newConns(), verdict: newVerdict(time.Now())}
	m.work.L = &m.mu
	m.queue = make([]job, m.limits.Queued)
	m.Update(s)
	return m
}

// Update changes the settings; what is known and under way stays.
func (m *Mirror) Update(s Settings) { m.settings.Store(&s) }

// Admit asks, when a call begins that has been sampled, whether a copy is wanted. If
// not, it is counted as dropped; if so, the caller owes an Offer or a Withdraw.
func (m *Mirror) Admit(now time.Time) bool {
	m.counts.offered.Add(1)
	switch rate := m.settings.Load().Rate; {
	case rate > 0 && !m.rate.take(now, rate):
		m.Withdraw(RateLimit)
	case !m.target.Ready(now):
		m.Withdraw(BreakerOpen)
	default:
		return true
	}
	return false
}

// Decline counts a call that was sampled, and of which no copy is wanted now.
func (m *Mirror) Decline(r Reason) {
	m.counts.offered.Add(1)
	m.Withdraw(r)
}

// Withdraw says that an admitted call has no copy.
func (m *Mirror) Withdraw(r Reason) { m.counts.by[r].Add(1) }

// Offer hands a copy over. It takes the payload in any case.
func (m *Mirror) Offer(c *Copy) {
	j := newJob(c)
	m.mu.Lock()
	switch {
	case m.closed:
		m.refuse(c, Closed)
		return
	case m.n == len(m.queue):
		m.refuse(c, QueueFull)
		return
	case m.bytes+j.size > m.limits.Bytes:
		m.refuse(c, QueueBytes)
		return
	}
	m.bytes += j.size
	m.queue[(m.head+m.n)%len(m.queue)] = j
	m.n++
	switch {
	case m.wake():
	case m.workers < m.limits.InFlight:
		m.workers++
		m.done.Go(m.worker)
	}
	m.mu.Unlock()
}

// refuse drops a copy that is not in the queue; m.mu is held and released.
func (m *Mirror) refuse(c *Copy, r Reason) {
	m.mu.Unlock()
	c.Payload.Release()
	m.Withdraw(r)
}

// worker sends copies until there are none and enough others wait for more.
func (m *Mirror) worker() {
	w := newWorker(m)
	for {
		j, ok := m.next()
		if !ok {
			return
		}
		w.handle(j)
		m.finish(j)
	}
}

// next waits for a copy; without one the worker ends.
func (m *Mirror) next() (job, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.closed {
		if m.n > 0 {
			// Alone, any answer may come.
			if m.answers == 0 || m.answers+m.queue[m.head].allowance <= m.limits.Answers {
				j := m.pop()
				m.answers += j.allowance
				return j, true
			}
		} else if m.idle >= idleWorkers {
			break
		}
		m.idle++
		m.work.Wait() // who wakes it takes it off idle
	}
	m.workers--
	return job{}, false
}

// pop takes the first copy out of the queue; m.mu is held.
func (m *Mirror) pop() job {
	j := m.queue[m.head]
	m.queue[m.head] = job{}
	m.head = (m.head + 1) % len(m.queue)
	m.n--
	return j
}

// finish gives back what a call was allowed to bring.
func (m *Mirror) finish(j job) {
	m.mu.Lock()
	m.answers -= j.allowance
	if m.n > 0 {
		m.wake()
	}
	m.mu.Unlock()
}

// wake gives an idle worker something to do; m.mu is held.
func (m *Mirror) wake() bool {
	if m.idle == 0 {
		return false
	}
	m.idle--
	m.work.Signal()
	return true
}

// free gives back the memory of a copy that nobody refers to any more.
func (m *Mirror) free(size int) {
	m.mu.Lock()
	m.bytes -= size
	m.mu.Unlock()
}

// Close drops what waits, ends what is under way, and returns when that is done.
func (m *Mirror) Close() {
	m.mu.Lock()
	m.closed = true
	var waiting []job
	for m.n > 0 {
		waiting = append(waiting, m.pop())
		m.bytes -= waiting[len(waiting)-1].size
	}
	m.idle = 0
	m.work.Broadcast()
	m.mu.Unlock()
	for _, j := range waiting {
		j.Payload.Release()
		m.Withdraw(Closed)
	}
	m.conns.close() // calls under way fail at once
	m.done.Wait()
}
