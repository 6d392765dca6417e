package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Run makes calls as planned and returns once the last has ended, each at the latest with
// its timeout. If ctx ends before, what is open is given up, and the result so far comes
// with the context's error.
func (c *Client) Run(ctx context.Context, plan Plan) (*Result, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	reconnects, cpu := c.reconnects.Load(), cpuTime()
	p := newPhase(plan.Requests, c.now())
	if plan.Rate > 0 {
		p.tokens = make(chan *conn, len(c.conns)*c.config.Streams)
		for range c.config.Streams {
			for _, k := range c.conns {
				p.tokens <- k
			}
		}
	}
	for _, k := range c.conns {
		k.adopt(p)
	}

	helpers, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { c.expire(helpers) })
	if plan.Progress != nil {
		running.Go(func() { c.tell(helpers, p, plan.Progress) })
	}
	err := c.begin(ctx, p, plan)
	p.stop()
	select {
	case <-p.done:
	case <-ctx.Done():
		c.interrupt()
		<-p.done
		err = errors.Join(err, context.Cause(ctx))
	}
	stop()
	running.Wait()

	r := &p.result
	r.Elapsed = p.lastEnd - p.start
	r.CPU = cpuTime() - cpu
	r.Reconnects = c.reconnects.Load() - reconnects
	return r, err
}

// begin begins calls until the plan or ctx ends.
func (c *Client) begin(ctx context.Context, p *phase, plan Plan) error {
	ctx, cancel := context.WithTimeout(ctx, plan.For)
	defer cancel()
	if plan.Rate > 0 {
		return c.pace(ctx, p, plan)
	}
	for _, k := range c.conns {
		k.fill(c.now())
	}
	select {
	case <-ctx.Done():
	case <-p.done:
	}
	return nil
}

// pace begins each call of the open loop when it is due or, if all streams are busy then,
// when one is free.
func (c *Client) pace(ctx context.Context, p *phase, plan Plan) error {
	t, err := newTimer()
	if err != nil {
		return err
	}
	wake := context.AfterFunc(ctx, func() { _ = t.close() }) // its sleeper then looks at ctx
	defer func() {
		if wake() {
			_ = t.close() // nobody sleeps
		}
	}()
	s := newSchedule(plan.Rate, plan.Arrivals, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for blocked := time.Duration(0); s.due() <= plan.For && !p.over(); {
		due := p.start + s.due()
		if err := t.sleep(due - c.now()); err != nil {
			break
		}
		k, waited := c.stream(ctx, p)
		if k == nil {
			break
		}
		now := c.now()
		if waited {
			blocked = now
		}
		if !k.begin(p, due, now) {
			continue // another stream, the same call
		}
		s.advance()
		if due < blocked {
			p.waited()
		} else {
			p.lagged(now - due)
		}
	}
	for end := min(plan.For, c.now()-p.start); s.due() <= end && !p.over(); s.advance() {
		p.neverBegun(p.start+s.due(), c.now())
	}
	return nil
}

// stream waits for a free stream and tells whether it had to. It returns nil when ctx ends.
func (c *Client) stream(ctx context.Context, p *phase) (k *conn, waited bool) {
	select {
	case k = <-p.tokens:
		return k, false
	default:
	}
	select {
	case k = <-p.tokens:
	case <-ctx.Done():
	}
	return k, true
}

// expire ends calls that take too long.
func (c *Client) expire(ctx context.Context) {
	ticker := time.NewTicker(min(max(c.config.Timeout/20, 10*time.Millisecond), 250*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := c.now()
		for _, k := range c.conns {
			k.expire(now-c.config.Timeout, now, outcomeTimedOut)
		}
	}
}

// interrupt ends all calls.
func (c *Client) interrupt() {
	now := c.now()
	for _, k := range c.conns {
		k.expire(now, now, outcomeInterrupted)
	}
}

// tell reports progress.
func (c *Client) tell(ctx context.Context, p *phase, report func(Progress)) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			report(p.tick(c.now()))
		}
	}
}
