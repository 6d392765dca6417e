package relay

// progressed is told when bytes of one of the call's streams have left its queue.
func (c *Call) progressed(w *worker, e progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	c.progressAt.Store(c.relay.since(w.now))
	if e.stream != &c.down {
		c.creditDown(w)
		return
	}
	c.creditUp(w)
	if c.answered && e.ended {
		c.finish(w, c.result)
	}
}

// creditDown gives the client's stream window back for bytes that have left,
// or are kept in the bounded body buffer while the policy looks at them.
func (c *Call) creditDown(w *worker) {
	waits := 0
	switch {
	case c.done:
		return
	case c.att == nil:
	case !c.att.sent:
		return // it waits for a connection
	default:
		waits = int(c.att.queued.Load())
	}
	if n := c.down.held - waits; n > 0 {
		c.down.held -= n
		c.down.conn.mu.Lock()
		c.down.credit(w, n)
		c.down.conn.mu.Unlock()
	}
}

// creditUp gives the upstream's stream window back for bytes that have left for
// the client.
func (c *Call) creditUp(w *worker) {
	a := c.att
	if a == nil || !a.sent {
		return
	}
	if n := a.held - int(c.down.queued.Load()); n > 0 {
		a.held -= n
		a.conn.mu.Lock()
		a.credit(w, n)
		a.conn.mu.Unlock()
	}
}
