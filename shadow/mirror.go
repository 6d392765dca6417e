package shadow

import (
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proto/inference/redact"
	"sluice/shadow/client"
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
	// Examples says what of the calls that differ most may be remembered; nil remembers
	// their request ids alone.
	Examples *redact.Rules
}

// Mirror sends copies to one shadow version. Its methods may be called concurrently.
type Mirror struct {
	target  Target
	limits  Limits
	client  *client.Client
	counts  counters
	verdict *verdict

	settings atomic.Pointer[Settings]
	rate     rateLimit
	held     atomic.Int64 // bytes, for those who do not take mu
	last     atomic.Int64 // the size of the copy that was offered last

	wake chan struct{} // for the worker: there may be something to do
	done sync.WaitGroup

	mu       sync.Mutex
	queue    []job     // a ring of limits.Queued places
	head, n  int       // of queue: the first copy, and how many there are
	over     []*flight // calls that have ended, and whose answers are to be compared
	bytes    int       // memory of the copies that wait or are under way
	answers  int       // bytes that the calls under way may bring
	inFlight int
	due      int // the worker wants to be woken when it has so much to do
	closed   bool
}

// New returns a mirror. It has to be closed.
func New(t Target, l Limits, s Settings) *Mirror {
	m := &Mirror{target: t, limits: l.withDefaults(), verdict: newVerdict(time.Now()), wake: make(chan struct{}, 1)}
	m.client = client.New(agent, m.ended)
	m.queue = make([]job, m.limits.Queued)
	m.Update(s)
	m.done.Go(func() { newWorker(m).run() })
	return m
}

// Update changes the settings; what is under way stays. Other rules begin another verdict:
// what was found by the old ones says nothing of these.
func (m *Mirror) Update(s Settings) {
	if before := m.settings.Swap(&s); before != nil && !reflect.DeepEqual(before.Rules, s.Rules) {
		m.Forget()
	}
}

// Forget begins the verdict anew, because another server answers now. Counts go on.
func (m *Mirror) Forget() { m.verdict.restart(time.Now()) }

// Admit asks, when a call begins that has been sampled, whether a copy is wanted. If
// not, it is counted as dropped; if so, the caller owes an Offer or a Withdraw.
func (m *Mirror) Admit(now time.Time) bool {
	m.counts.offered.Add(1)
	switch rate := m.settings.Load().Rate; {
	case !m.target.Ready(now):
		m.Withdraw(BreakerOpen)
	case m.full():
		m.Withdraw(QueueBytes)
	case rate > 0 && !m.rate.take(now, rate):
		m.Withdraw(RateLimit)
	default:
		return true
	}
	return false
}

// full reports whether there is hardly room for another copy like the last one, so that it
// is not worth making one. However large that was, copies are made again while an eighth of
// the memory is free.
func (m *Mirror) full() bool {
	most := int64(m.limits.Bytes)
	return m.held.Load()+min(m.last.Load(), most/8) > most
}

// Room reports whether a copy would be taken now, for somebody who offers alone and can
// wait, and would not be dropped once it is uncompressed. One that is too large for an empty
// mirror would be all the same.
func (m *Mirror) Room(c *Copy) bool {
	const spare = 2 * maxPlain // for this one, and one that is just being looked at
	j := newJob(c)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n == 0 && m.inFlight == 0 ||
		(m.n == 0 || j.measured && m.n < len(m.queue)) && m.bytes+j.size+spare <= m.limits.Bytes && !m.full()
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
	m.last.Store(int64(j.size))
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
	m.hold(j.size)
	m.queue[(m.head+m.n)%len(m.queue)] = j
	m.n++
	m.stir()
	m.mu.Unlock()
}

// refuse drops a copy that is not in the queue; m.mu is held and released.
func (m *Mirror) refuse(c *Copy, r Reason) {
	m.mu.Unlock()
	c.Payload.Release()
	m.Withdraw(r)
}

// stir wakes the worker if there is enough for it to do; m.mu is held.
func (m *Mirror) stir() {
	todo := len(m.over)
	if m.sendable() {
		todo += m.n
	}
	if todo >= m.due || m.closed {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// sendable reports whether a copy waits that may be sent now; m.mu is held.
func (m *Mirror) sendable() bool {
	if m.n == 0 || m.inFlight >= m.limits.InFlight {
		return false
	}
	// Alone, any answer may come.
	return m.inFlight == 0 || m.answers+m.queue[m.head].allowance <= m.limits.Answers
}

// ended takes in calls that are over.
func (m *Mirror) ended(calls []*client.Call) {
	m.mu.Lock()
	for _, k := range calls {
		m.over = append(m.over, flightOf(k))
	}
	m.stir()
	m.mu.Unlock()
}

// round is what the worker takes from its mirror at once, and what it gives back when it
// comes for more. It keeps its memory.
type round struct {
	jobs []job     // copies to be sent
	over []*flight // calls that have ended

	answers, bytes, flights int // of the copies that hold nothing any more
	ended                   []*atomic.Uint64
}

// maxRound is how many copies are sent together at most.
const maxRound = 64

// next takes back what the last round has held, and fills the next one. It reports false
// once the mirror is closed and empty. If there is nothing to do, the worker is woken when
// there is so much as due.
func (m *Mirror) next(r *round, due int) (more bool) {
	clear(r.jobs)
	clear(r.over)
	r.jobs = r.jobs[:0]
	m.mu.Lock()
	m.answers -= r.answers
	m.inFlight -= r.flights
	m.hold(-r.bytes)
	r.over, m.over = m.over, r.over[:0]
	for len(r.jobs) < maxRound && m.sendable() {
		j := m.pop()
		m.answers += j.allowance
		m.inFlight++
		r.jobs = append(r.jobs, j)
		if !j.measured {
			break // what it takes is known once it has been looked at
		}
	}
	if m.due = due; len(r.jobs)+len(r.over) > 0 {
		m.due = math.MaxInt // it is awake
	}
	more = !m.closed || m.inFlight > 0
	m.mu.Unlock()
	for _, n := range r.ended {
		n.Add(1) // now that they hold nothing any more
	}
	r.answers, r.bytes, r.flights, r.ended = 0, 0, 0, r.ended[:0]
	return more
}

// settle notes that a copy has come to an end, which is counted by ended.
func (r *round) settle(j job, ended *atomic.Uint64) {
	r.answers += j.allowance
	r.bytes += j.size
	r.flights++
	r.ended = append(r.ended, ended)
}

// measure notes what a copy that is about to be sent takes uncompressed: so many bytes more
// in the queue, and an allowance. It reports false if there is no room.
func (m *Mirror) measure(j *job, more, allowance int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if more > 0 && m.bytes+more > m.limits.Bytes {
		return false
	}
	m.hold(more)
	m.answers += allowance - j.allowance
	j.size += more
	j.allowance = allowance
	return true
}

// pop takes the first copy out of the queue; m.mu is held.
func (m *Mirror) pop() job {
	j := m.queue[m.head]
	m.queue[m.head] = job{}
	m.head = (m.head + 1) % len(m.queue)
	m.n--
	return j
}

// hold accounts for memory; m.mu is held.
func (m *Mirror) hold(bytes int) {
	m.bytes += bytes
	m.held.Store(int64(m.bytes))
}

// Pending is how many copies have not come to an end.
func (m *Mirror) Pending() uint64 { return m.counts.read().Pending() }

// Close drops what waits, ends what is under way, and returns when that is done.
func (m *Mirror) Close() {
	m.mu.Lock()
	m.closed = true
	var waiting []job
	for m.n > 0 {
		waiting = append(waiting, m.pop())
		m.hold(-waiting[len(waiting)-1].size)
	}
	m.mu.Unlock()
	for _, j := range waiting {
		j.Payload.Release()
		m.Withdraw(Closed)
	}
	m.client.Close() // calls under way fail at once
	m.mu.Lock()
	m.stir()
	m.mu.Unlock()
	m.done.Wait()
}
