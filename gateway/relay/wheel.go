package relay

import (
	"sync"
	"time"
)

const (
	wheelTick  = 10 * time.Millisecond
	wheelSlots = 1024 // a turn of about ten seconds
	// wheelRest is how long an empty wheel keeps turning: starting it for every
	// lonely call would cost more.
	wheelRest = time.Second
)

// wheel is a hashed timing wheel (Varghese and Lauck, 1987) for the deadlines of
// calls: nearly all are cancelled, and arming or cancelling is two pointers under
// a lock. Deadlines are met up to a tick late, never early.
type wheel struct {
	relay *Relay

	mu      sync.Mutex
	slots   [wheelSlots]*Call
	n       int
	tick    int64 // last tick handled
	running bool
}

// wheelEntry is a call's place in the wheel, guarded by the wheel's mutex.
type wheelEntry struct {
	next, prev *Call
	at         int64
	armed      bool
}

func (wh *wheel) tickOf(t time.Time) int64 { return wh.relay.since(t) / int64(wheelTick) }

// dueTick is the first tick at which t has passed for sure.
func (wh *wheel) dueTick(t time.Time) int64 { return wh.tickOf(t) + 1 }

// arm sets c's timer to t, replacing an earlier one, and returns the tick at which it acts.
func (wh *wheel) arm(c *Call, now, t time.Time) int64 {
	wh.mu.Lock()
	defer wh.mu.Unlock()
	if c.timer.armed {
		wh.remove(c)
	}
	if !wh.running {
		wh.running = true
		wh.tick = wh.tickOf(now)
		wh.relay.spawn(wh.run)
	}
	c.timer.at = max(wh.dueTick(t), wh.tick+1)
	c.timer.armed = true
	slot := &wh.slots[c.timer.at%wheelSlots]
	c.timer.next, c.timer.prev = *slot, nil
	if *slot != nil {
		(*slot).timer.prev = c
	}
	*slot = c
	wh.n++
	return c.timer.at
}

// cancel takes c out of the wheel.
func (wh *wheel) cancel(c *Call) {
	wh.mu.Lock()
	if c.timer.armed {
		wh.remove(c)
	}
	wh.mu.Unlock()
}

// remove unlinks c; wh.mu is held.
func (wh *wheel) remove(c *Call) {
	if c.timer.prev != nil {
		c.timer.prev.timer.next = c.timer.next
	} else {
		wh.slots[c.timer.at%wheelSlots] = c.timer.next
	}
	if c.timer.next != nil {
		c.timer.next.timer.prev = c.timer.prev
	}
	c.timer = wheelEntry{}
	wh.n--
}

// run turns the wheel until it has been empty for a while or the relay closes.
func (wh *wheel) run() {
	w := wh.relay.newWorker()
	ticker := time.NewTicker(wheelTick)
	defer ticker.Stop()
	last := w.now
	var due []*Call
	for {
		select {
		case <-wh.relay.ctx.Done():
			wh.mu.Lock()
			wh.running = false
			wh.mu.Unlock()
			return
		case w.now = <-ticker.C:
		}
		wh.mu.Lock()
		if wh.n > 0 {
			last = w.now
		} else if w.now.Sub(last) > wheelRest {
			wh.running = false
			wh.mu.Unlock()
			return
		}
		due = wh.collect(wh.tickOf(w.now), due[:0])
		wh.mu.Unlock()
		for i, c := range due {
			c.expired(w)
			due[i] = nil
		}
		w.flush()
	}
}

// collect unlinks what is due up to tick now. At most one turn's slots are
// looked at, however late the tick is; wh.mu is held.
func (wh *wheel) collect(now int64, due []*Call) []*Call {
	for t := max(wh.tick+1, now-wheelSlots+1); t <= now; t++ {
		for c := wh.slots[t%wheelSlots]; c != nil; {
			next := c.timer.next
			if c.timer.at <= now {
				wh.remove(c)
				due = append(due, c)
			}
			c = next
		}
	}
	wh.tick = max(wh.tick, now)
	return due
}
