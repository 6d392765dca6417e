package logqueue

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a writer that takes nothing while it is held.
type pipe struct {
	turn chan struct{} // held by who has it
	fail error
	got  bytes.Buffer
}

func newPipe() *pipe { return &pipe{turn: make(chan struct{}, 1)} }

func (p *pipe) hold()    { p.turn <- struct{}{} }
func (p *pipe) release() { <-p.turn }

func (p *pipe) Write(b []byte) (int, error) {
	p.hold()
	defer p.release()
	if p.fail != nil {
		return 0, p.fail
	}
	return p.got.Write(b)
}

func (p *pipe) lost(n uint64) { fmt.Fprintf(p, "lost %d\n", n) }

// TestLogThatNobodyReadsHoldsNobodyUp: who logs goes on; what has no room is counted, and missed at its place.
func TestLogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		q := New(p, p.lost)
		line := func(i int) string { return fmt.Sprintf("line %04d %s\n", i, strings.Repeat("x", 1000)) }
		var want strings.Builder
		p.hold()
		fmt.Fprint(q, line(0))
		want.WriteString(line(0))
		synctest.Wait() // it is being written
		const room = Size / 1011
		for i := range 3 * room {
			fmt.Fprint(q, line(1+i))
			if i < room {
				want.WriteString(line(1 + i))
			}
		}
		fmt.Fprint(q, "short\n") // there would be room for that, but not in order
		const lost = 2*room + 1
		fmt.Fprintf(&want, "lost %d\n", lost)
		var counted uint64
		q.OnDrop(func(why Reason, n uint64) {
			if why != Full {
				t.Errorf("lines are given up for %s", why)
			}
			counted += n
		})
		if counted != lost {
			t.Errorf("%d dropped lines were counted, want %d", counted, lost)
		}
		p.release()
		synctest.Wait()
		fmt.Fprint(q, "well again\n")
		fmt.Fprint(q, strings.Repeat("y", Size+1)) // no line of this length is ever taken
		want.WriteString("well again\nlost 1\n")
		if !q.Close(time.Second) {
			t.Error("the log was not written to its end")
		}
		if got := p.got.String(); got != want.String() {
			t.Errorf("the log has %d bytes that end in %q, want %d that end in %q", len(got), tail(got), want.Len(), tail(want.String()))
		}
		if counted != lost+1 {
			t.Errorf("%d dropped lines were counted, want %d", counted, lost+1)
		}
		if n, err := fmt.Fprint(q, "too late\n"); n != 9 || err != nil {
			t.Errorf("a line after the end: %d bytes and %v, want it taken for written", n, err)
		}
	})
}

func tail(s string) string { return s[max(0, len(s)-50):] }

// TestLogThatFailsIsTakenUpAgain: lines that cannot be written, as on a full disk, are counted and then missed in the log.
func TestLogThatFailsIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		p.fail = syscall.ENOSPC
		q := New(p, p.lost)
		fmt.Fprint(q, "one\ntwo\n")
		synctest.Wait()
		var counted uint64
		q.OnDrop(func(why Reason, n uint64) {
			if why != Failed {
				t.Errorf("lines are given up for %s", why)
			}
			counted += n
		})
		fmt.Fprint(q, "three\n")
		synctest.Wait()
		p.fail = nil
		fmt.Fprint(q, "four\n")
		if !q.Close(time.Second) {
			t.Error("the log was not written to its end")
		}
		if got := p.got.String(); got != "four\nlost 3\n" || counted != 3 {
			t.Errorf("%d lines were counted, and the log is %q", counted, got)
		}
	})
}

// TestEndDoesNotWaitForReaders: a log that hangs when the program ends is given up after a while.
func TestEndDoesNotWaitForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, hold := make(chan struct{}), make(chan struct{})
		q := New(writerFunc(func(b []byte) (int, error) { close(r); <-hold; return len(b), nil }), func(uint64) {})
		defer func() { close(hold); synctest.Wait() }()
		fmt.Fprint(q, "line\n")
		<-r
		begin := time.Now()
		if q.Close(2 * time.Second) {
			t.Error("a log that hangs is said to be written")
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it took %v, want 2s", took)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestEveryLineIsWrittenOrCounted: of many who log at once, each line arrives whole, once, in its order, or is counted.
func TestEveryLineIsWrittenOrCounted(t *testing.T) {
	p := newPipe()
	var said, counted uint64
	q := New(p, func(n uint64) { said += n })
	q.OnDrop(func(_ Reason, n uint64) { counted += n }) // under the queue's lock
	const callers, each = 20, 2000
	p.hold()
	pad := strings.Repeat("z", 100)
	var logging sync.WaitGroup
	for c := range callers {
		logging.Go(func() {
			for i := range each {
				fmt.Fprintf(q, "%d %d %s\n", c, i, pad)
			}
		})
	}
	logging.Wait() // nobody reads meanwhile, and it ends
	p.release()
	if !q.Close(time.Minute) {
		t.Fatal("the log was not written to its end")
	}
	var lines uint64
	next := make([]int, callers)
	for line := range strings.Lines(p.got.String()) {
		var c, i int
		var z string
		if _, err := fmt.Sscanf(line, "%d %d %s\n", &c, &i, &z); err != nil || z != pad {
			t.Fatalf("line %d is %q", lines, line)
		}
		if i < next[c] {
			t.Fatalf("line %d of caller %d comes after %d", i, c, next[c]-1)
		}
		next[c] = i + 1
		lines++
	}
	if said != counted || lines+counted != callers*each {
		t.Errorf("%d lines were written, %d counted, %d said to be lost, of %d", lines, counted, said, callers*each)
	}
	if counted == 0 {
		t.Error("none was dropped, so nothing was proven")
	}
}
