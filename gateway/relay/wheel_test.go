package relay

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// expiring makes a call in a relay's wheel that records when it ends.
func expiring(r *Relay, after time.Duration) *Call {
	near := &conn{relay: r, streams: make(map[uint32]*stream), closed: true, side: &downstreamSide{relay: r}}
	c := &Call{relay: r, opened: time.Now()}
	c.down.conn, c.down.call, c.down.closed = near, c, true
	c.deadline = time.Now().Add(after)
	r.calls.Add(1)
	return c
}

func TestEveryDeadlineIsMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &recorder{over: make(map[*Call]int)}
		r := New(Config{}, p)
		defer r.Close()
		var all []*Call
		for _, d := range []time.Duration{-time.Second, 0, 1, time.Millisecond, 9 * time.Millisecond, 10 * time.Millisecond,
			11 * time.Millisecond, 3 * time.Second, 10 * time.Second, 11 * time.Second, 25 * time.Second, time.Minute} {
			c := expiring(r, d)
			r.wheel.arm(c, time.Now(), c.deadline)
			all = append(all, c)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.over) != len(all) {
			t.Fatalf("%d of %d deadlines were met", len(p.over), len(all))
		}
		for _, o := range p.ended {
			if o.Kind != DeadlineExceeded {
				t.Errorf("ended as %v", o.Kind)
			}
		}
		for _, c := range all {
			if c.timer.armed {
				t.Error("a timer is still armed")
			}
		}
	})
}

// Every deadline on its own: at most two ticks late, never early.
func TestDeadlinePrecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &recorder{over: make(map[*Call]int)}
		r := New(Config{}, p)
		defer r.Close()
		for i := range 60 {
			c := expiring(r, time.Duration(i)*777*time.Microsecond)
			r.wheel.arm(c, time.Now(), c.deadline)
			begun := len(p.outcomes())
			for len(p.outcomes()) == begun {
				time.Sleep(time.Millisecond)
			}
			if late := time.Since(c.deadline); late < 0 || late > 2*wheelTick+time.Millisecond {
				t.Fatalf("deadline of %v was met %v late", c.deadline.Sub(c.opened), late)
			}
		}
	})
}

func TestCancelledTimersDoNotFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &recorder{over: make(map[*Call]int)}
		r := New(Config{}, p)
		defer r.Close()
		var all []*Call
		for i := range 1000 {
			c := expiring(r, time.Duration(i)*time.Millisecond)
			r.wheel.arm(c, time.Now(), c.deadline)
			all = append(all, c)
		}
		for i, c := range all { // in no order of the slots
			if i%3 == 0 {
				r.wheel.arm(c, time.Now(), c.deadline.Add(time.Hour)) // moved
			}
			r.wheel.cancel(c)
			r.wheel.cancel(c)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(p.outcomes()); n != 0 {
			t.Errorf("%d cancelled timers fired", n)
		}
		r.wheel.mu.Lock()
		defer r.wheel.mu.Unlock()
		if r.wheel.n != 0 || r.wheel.running {
			t.Errorf("an empty wheel counts %d and turns: %v", r.wheel.n, r.wheel.running)
		}
	})
}

// A wheel at rest starts again without losing time.
func TestWheelStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &recorder{over: make(map[*Call]int)}
		r := New(Config{}, p)
		defer r.Close()
		for i := range 5 {
			c := expiring(r, 50*time.Millisecond)
			r.wheel.arm(c, time.Now(), c.deadline)
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if n := len(p.outcomes()); n != i+1 {
				t.Fatalf("%d deadlines met, want %d", n, i+1)
			}
			time.Sleep(time.Duration(i) * 30 * time.Second)
		}
	})
}

func TestWheelUnderConcurrency(t *testing.T) {
	r := New(Config{}, &recorder{over: make(map[*Call]int)})
	defer r.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var mine [50]*Call
			for i := range 5000 {
				k := i % len(mine)
				if mine[k] != nil {
					r.wheel.cancel(mine[k])
				}
				mine[k] = expiring(r, time.Hour)
				r.wheel.arm(mine[k], time.Now(), mine[k].deadline)
			}
			for _, c := range mine {
				r.wheel.cancel(c)
			}
		})
	}
	wg.Wait()
	r.wheel.mu.Lock()
	defer r.wheel.mu.Unlock()
	if r.wheel.n != 0 {
		t.Errorf("%d timers are left", r.wheel.n)
	}
}
