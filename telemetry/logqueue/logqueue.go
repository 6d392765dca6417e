// Package logqueue keeps those who log from waiting for whoever reads the log.
//
// A program writes its log into a pipe as a rule, and the other end, a container's runtime or a collector, can stop reading.
// Then a write takes as long as that lasts, and so does whatever has something to say meanwhile: here, the data path.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// Reason is why lines were given up, in the words of telemetry.
type Reason string

// The reasons.
const (
	Full   Reason = "queue_full"    // they came faster than they were read
	Failed Reason = "export_failed" // they could not be written
)

// Size is how many bytes of lines may wait, beside as many that are being written.
const Size = 1 << 20

// Queue is an [io.Writer] that never waits: lines are written by a goroutine of its own, in order. Those that find no
// room are dropped whole, and counted. Its methods may be called by many goroutines at once.
type Queue struct {
	w    io.Writer
	lost func(n uint64)
	wake chan struct{} // one token: there is something to do
	done chan struct{}

	mu      sync.Mutex
	waiting []byte // whole lines
	dropped uint64 // behind the lines that wait
	onDrop  func(why Reason, n uint64)
	untold  map[Reason]uint64 // given up before anybody asked
	closed  bool
}

// New returns a queue of lines for w. Where n lines are missing because there was no room for them, or once w takes lines
// again after it had not taken n, lost is called with that number; it may write to w itself.
func New(w io.Writer, lost func(n uint64)) *Queue {
	q := &Queue{w: w, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{}), untold: make(map[Reason]uint64)}
	go q.run()
	return q
}

// Write takes a line, or several. It always reports success, as what was written of it is not known yet.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
	case q.dropped > 0 || len(q.waiting)+len(line) > Size: // after one was dropped, none until that has been said
		q.dropped++
		q.count(Full, 1)
	default:
		q.waiting = append(q.waiting, line...)
	}
	q.signal()
	return len(line), nil
}

// OnDrop has lines that are given up counted by f, and those before at once. It must not log.
func (q *Queue) OnDrop(f func(why Reason, n uint64)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onDrop = f
	for why, n := range q.untold {
		f(why, n)
	}
	clear(q.untold)
}

// count counts lines that are given up; q.mu is held.
func (q *Queue) count(why Reason, n uint64) {
	if q.onDrop != nil {
		q.onDrop(why, n)
		return
	}
	q.untold[why] += n
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close takes no more lines, says nothing of those that come all the same, and waits until all have been written, but no
// longer than patience, as that may hang. It reports whether they were.
func (q *Queue) Close(patience time.Duration) bool {
	q.mu.Lock()
	q.closed = true
	q.signal()
	q.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-q.done:
		return true
	case <-timer.C:
		return false
	}
}

// run writes what waits until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	var lines []byte
	var missing uint64
	for range q.wake {
		for more := true; more; {
			q.mu.Lock()
			lines, q.waiting = q.waiting, lines[:0]
			dropped, closed := q.dropped, q.closed
			q.dropped = 0
			q.mu.Unlock()
			more = len(lines) > 0 || dropped > 0
			if !more && closed {
				return
			}
			missing += dropped
			if !q.write(lines) {
				missing += countLines(lines)
			} else if more && missing > 0 {
				q.lost(missing)
				missing = 0
			}
		}
	}
}

// write reports false if lines could not be written, perhaps but in part, and counts them.
func (q *Queue) write(lines []byte) bool {
	if len(lines) == 0 {
		return true
	}
	_, err := q.w.Write(lines)
	if err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.count(Failed, countLines(lines))
	}
	return err == nil
}

func countLines(b []byte) uint64 { return uint64(bytes.Count(b, []byte{'\n'})) }
