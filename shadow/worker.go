package shadow

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/shadow/client"
	"sluice/shadow/compare"
)

// agent is the user agent of shadows' calls.
const agent = "sluice-shadow"

// worker is the one goroutine of a mirror, beside those of its connections: it sends
// copies, and compares the answers of those that have come back. It waits for none of
// them. It keeps its working memory.
type worker struct {
	m        *Mirror
	round    round
	under    flights
	timer    *time.Timer // for the end of the first of under
	rest     *time.Timer
	turn     time.Time // since when it has let nobody else go first
	comparer compare.Comparer
	answer   []byte // of the caller
	request  []byte // before it is renamed
}

// largeScratch is the working memory that a worker keeps at most, in bytes.
const largeScratch = 1 << 20

func newWorker(m *Mirror) *worker {
	w := &worker{m: m, timer: time.NewTimer(time.Hour), rest: time.NewTimer(time.Hour)}
	w.timer.Stop()
	w.rest.Stop()
	return w
}

// linger is how long a worker that has worked waits for more: what is done together costs
// far less, a wake-up and a system call here and there, and no copy is in a hurry. It is
// short beside what a model takes: copies come to the shadow all at once, and wait there
// for each other.
const linger = 5 * time.Millisecond

// run works until the mirror is closed.
func (w *worker) run() {
	defer w.timer.Stop()
	defer w.rest.Stop()
	due := 1 // how much there has to be before it is worth while to wake up
	for w.m.next(&w.round, due) {
		now := time.Now()
		w.turn = now
		for _, f := range w.round.over {
			w.conclude(f)
			w.yield()
		}
		for _, j := range w.round.jobs {
			w.send(j)
			w.yield()
		}
		if len(w.round.jobs)+len(w.round.over) > 0 {
			w.m.client.Flush()
			due = maxRound
			select { // however much there is to do
			case now := <-w.timer.C:
				w.expire(now)
			default:
			}
			continue
		}
		if due > 1 {
			w.rest.Reset(linger)
		}
		select {
		case <-w.m.wake:
		case <-w.rest.C:
			due = 1
		case now := <-w.timer.C:
			w.expire(now)
		}
	}
}

// slice is how long a worker goes on before it lets callers' calls go first.
const slice = 50 * time.Microsecond

// yield lets others go first, from time to time.
func (w *worker) yield() {
	if time.Since(w.turn) > slice {
		runtime.Gosched()
		w.turn = time.Now()
	}
}

// expireAgain is when those that are still under way are looked at again.
const expireAgain = 10 * time.Millisecond

// expire cancels the calls whose time is over.
func (w *worker) expire(now time.Time) {
	for f := w.under.first; f != nil; f = f.after {
		if left := f.until.Sub(now); left > 0 {
			w.timer.Reset(left)
			return
		}
		w.m.client.Cancel(&f.Call, now) // it comes back among those that are over
	}
	if w.under.first != nil {
		w.timer.Reset(expireAgain) // the client is just handing it over
	}
}

// send sends a copy, or counts why not.
func (w *worker) send(j job) {
	m := w.m
	f := newFlight(j)
	now := time.Now()
	drop := func(r Reason) { w.release(f, &m.counts.by[r]) }
	if reason, ok := w.prepare(f); !ok {
		drop(reason)
		return
	}
	endpoint, ok := m.target.Pick(now)
	if !ok {
		drop(NoEndpoint)
		return
	}
	if f.settle, ok = m.target.Admit(now); !ok {
		drop(BreakerOpen)
		return
	}
	if f.span = m.target.Trace(f.Copy, endpoint, now); f.span != nil {
		f.Fields = append(f.Fields, literal("traceparent", f.span.Traceparent()))
	}
	f.until = now.Add(m.limits.Deadline)
	if w.under.add(f); w.under.first == f {
		w.timer.Reset(m.limits.Deadline)
	}
	m.client.Start(endpoint, &f.Call, now)
}

// authoritySuffix marks the calls of shadows, as Envoy's shadow requests are.
const authoritySuffix = "-shadow"

// prepare makes the call that is sent. If there is none, it says why.
func (w *worker) prepare(f *flight) (why Reason, ok bool) {
	c, s := f.Copy, w.m.settings.Load()
	w.request = c.Payload.AppendRequest(w.request[:0])
	defer w.shrink()
	plain, err := expand(w.request, c.Encoding, maxPlain)
	if err != nil {
		return notExpanded(err), false
	}
	if !f.measured {
		w.answer = c.Payload.AppendAnswer(w.answer[:0])
		answer, err := expand(w.answer, c.Payload.AnswerEncoding(), maxPlain)
		if err != nil {
			return notExpanded(err), false
		}
		if !w.m.measure(&f.job, len(plain)-len(w.request), allowanceFor(len(answer))) {
			return QueueBytes, false
		}
	}
	asked, _, err := split(plain)
	if err != nil {
		return Encoding, false
	}
	for _, message := range asked {
		switch sequence, shared := stateful(c.Path, message); {
		case shared:
			return SharedMemory, false
		case sequence && !s.Sequences:
			return Sequence, false
		}
	}
	if f.Body, ok = w.m.target.Rewrite(c.Path, f.Body[:0], plain); !ok {
		return Rename, false
	}
	f.Path, f.Limit = c.Path, f.allowance
	if c.Authority != "" {
		f.Authority = c.Authority + authoritySuffix
	}
	f.Fields = passedOn(f.Fields[:0], c, s.Metadata)
	f.Fields = append(f.Fields, literal("grpc-timeout", strconv.FormatInt(max(1, w.m.limits.Deadline.Milliseconds()), 10)+"m"))
	return 0, true
}

// notExpanded is why there is no copy of messages that cannot be decompressed.
func notExpanded(err error) Reason {
	if errors.Is(err, errExpanded) {
		return TooLarge
	}
	return Encoding
}

// shrink gives up working memory that few copies need.
func (w *worker) shrink() {
	if cap(w.request) > largeScratch {
		w.request = nil
	}
	if cap(w.answer) > largeScratch {
		w.answer = nil
	}
}

// conclude counts what came of a copy, and compares the answers if there is one.
func (w *worker) conclude(f *flight) {
	m := w.m
	if f.End == client.Unsent && !f.again && f.Ended.Before(f.until) {
		if endpoint, ok := m.target.Pick(f.Ended); ok {
			f.again = true
			m.client.Start(endpoint, &f.Call, f.Ended)
			return
		}
	}
	w.under.remove(f)
	a, failed := f.attempt(m.limits.Deadline)
	f.settle(a)
	difference, ended := compare.None, &m.counts.answered
	if failed == 0 {
		difference = w.judge(f, a)
	} else {
		ended = &m.counts.by[failed]
	}
	if f.span != nil {
		f.span.End(a, failed, difference)
	}
	w.release(f, ended)
}

// attempt says how the call ended, and why it failed if it did.
func (f *flight) attempt(had time.Duration) (a Attempt, failed Reason) {
	a = Attempt{Had: had, Code: f.Code, Latency: f.Latency, Ended: f.Ended}
	late := !f.Ended.Before(f.until) // the server has looked at the clock, too, and whatever it says then was faster
	switch {
	case f.End == client.Oversized:
		a.Kind = Oversized
	case f.End == client.Canceled, late && (f.End != client.Answered || f.Code != uint32(codes.OK)):
		a.Kind, a.Code, failed = TimedOut, uint32(codes.DeadlineExceeded), Deadline
	case f.End == client.Answered:
	default:
		a.Kind, a.Code, failed = NotReached, uint32(codes.Unavailable), Unreachable
	}
	return a, failed
}

// release gives back all that a copy has held, whose end is counted by ended.
func (w *worker) release(f *flight, ended *atomic.Uint64) {
	f.Payload.Release()
	w.round.settle(f.job, ended)
	f.free()
}

// judge compares the answers, and says how they differ.
func (w *worker) judge(f *flight, attempt Attempt) compare.Difference {
	c := f.Copy
	w.answer = c.Payload.AppendAnswer(w.answer[:0])
	defer w.shrink()
	settings, format := w.m.settings.Load(), compare.FormatOf(c.Path)
	a, err := answerOf(c.Code, w.answer, c.Payload.AnswerEncoding(), maxPlain)
	b, errB := answerOf(attempt.Code, f.Answer, f.Encoding, f.allowance)
	var r compare.Result
	switch {
	case attempt.Kind == Oversized, errors.Is(errB, errExpanded):
		r = compare.Result{Difference: compare.Sizes, Why: fmt.Sprintf("the caller got %d bytes, the shadow answers with more than %d", len(w.answer), f.allowance)}
	case err != nil:
		r = compare.Result{Difference: compare.Unreadable, Why: "the caller's answer: " + err.Error()}
	case errB != nil:
		r = compare.Result{Difference: compare.Unreadable, Why: "the shadow's answer: " + errB.Error()}
	default:
		r = w.comparer.Compare(format, &settings.Rules, a, b)
	}
	w.m.verdict.add(c, attempt, &r, func() *Remembered {
		if settings.Examples == nil {
			return nil
		}
		return remember(settings.Examples, format, f.Body, a, b)
	})
	return r.Difference
}

// answerOf returns the messages of an answer.
func answerOf(code uint32, body []byte, encoding string, limit int) (compare.Answer, error) {
	plain, err := expand(body, encoding, limit)
	if err != nil {
		return compare.Answer{}, err
	}
	messages, _, err := split(plain)
	return compare.Answer{Code: code, Messages: messages}, err
}
