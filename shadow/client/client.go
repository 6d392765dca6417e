package client

import (
	"context"
	"crypto/tls"
	"sync"
	"time"
)

// Endpoint is where calls go.
type Endpoint struct {
	Addr string // host:port
	// TLS, if set, encrypts; it is asked for every new connection.
	TLS func() (*tls.Config, error)
}

// Limits in time.
const (
	// unusedFor is how long a connection is kept for nobody.
	unusedFor = 5 * time.Minute
	// dialFor is how long a connection may take to be there.
	dialFor = 5 * time.Second
	// redialAfter is how long an address is left alone that could not be reached.
	redialAfter = 250 * time.Millisecond
	// writePatience is how long a connection may take nothing of what is written to it.
	// Then it is closed.
	writePatience = 3 * time.Second
)

// Client makes calls, over one connection to each address. It is safe for concurrent
// use.
type Client struct {
	agent string
	done  func([]*Call)

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	byAddr map[string]*conn
	closed bool
	swept  time.Time
}

// New returns a client that calls itself agent. It has to be closed. Calls that are over
// are handed to done, each once, which must not block, nor call the client.
func New(agent string, done func([]*Call)) *Client {
	c := &Client{agent: agent, done: done, byAddr: make(map[string]*conn), swept: time.Now()}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Start begins a call and does not wait for anything. It is sent by the next [Client.Flush], together with
// all that have been started meanwhile.
func (c *Client) Start(e Endpoint, k *Call, now time.Time) {
	for {
		cc, err := c.to(e, now)
		if err != nil {
			k.reset(nil)
			k.finish(Lost, now)
			c.done([]*Call{k})
			return
		}
		if cc.start(k) {
			return
		}
		c.forget(cc)
	}
}

// Flush sends the calls that have been started since the last time, and waits for nothing.
func (c *Client) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cc := range c.byAddr { // those that are no longer among them have ended their calls
		cc.flush()
	}
}

// Cancel ends a call that may be over already.
func (c *Client) Cancel(k *Call, now time.Time) {
	if k.conn != nil {
		k.conn.cancel(k, now)
	}
}

// Close ends all calls and returns once they have been handed over.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
}

// to returns the connection to an endpoint.
func (c *Client) to(e Endpoint, now time.Time) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, context.Canceled
	}
	c.sweep(now)
	cc := c.byAddr[e.Addr]
	if cc == nil {
		cc = newConn(c, e)
		c.byAddr[e.Addr] = cc
		c.running.Go(cc.run)
	}
	cc.used = now
	return cc, nil
}

// forget takes a connection out that takes no more calls.
func (c *Client) forget(cc *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddr[cc.endpoint.Addr] == cc {
		delete(c.byAddr, cc.endpoint.Addr)
	}
}

// sweep retires what has not been used for long; c.mu is held.
func (c *Client) sweep(now time.Time) {
	if now.Sub(c.swept) < unusedFor {
		return
	}
	c.swept = now
	for addr, cc := range c.byAddr {
		if now.Sub(cc.used) > unusedFor {
			delete(c.byAddr, addr)
			cc.retire()
		}
	}
}
