package relay

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// twoUpstreams is a policy that sends calls with path /other to a second upstream.
func twoUpstreams() (*recorder, *Dispatch) {
	p, other := &recorder{}, &Dispatch{}
	p.opened = func(c *Call) Verdict {
		if c.Path() == "/other/Method" {
			return To(other)
		}
		return To(&p.dispatch)
	}
	return p, other
}

func (p *rawPeer) requestOther(id uint32, end bool) {
	p.headers(id, end, ":method", "POST", ":scheme", "http", ":path", "/other/Method", "content-type", "application/grpc", "te", "trailers")
}

// quick checks that calls to the upstream that answers take no time.
func quick(t *testing.T, c *rawPeer, first uint32, n int) {
	t.Helper()
	var worst time.Duration
	for i := range uint32(n) {
		id := first + 2*i
		begun := time.Now()
		c.requestOther(id, false)
		c.data(id, make([]byte, 5000), true)
		if got := c.next("the answer", isTrailers(id)).field("grpc-status"); got != "0" {
			t.Fatalf("status %s", got)
		}
		worst = max(worst, time.Since(begun))
	}
	if worst > time.Second {
		t.Errorf("the slowest of %d calls took %v", n, worst)
	}
}

// An upstream that takes calls and then neither grants windows nor answers holds
// up its own calls only, though all share the client's connection.
func TestHungUpstreamDelaysNobodyElse(t *testing.T) {
	hung := listenRaw(t, func(p *rawPeer) { p.credit = false })
	good := listenRaw(t, answering)
	p, other := twoUpstreams()
	p.prepare = func(r *Relay) { other.Upstream = r.NewUpstream(UpstreamConfig{Addr: good.addr}) }
	g := newRig(t, Config{}, hung.addr, p)
	c := dialRaw(t, g.addr)
	const stuck = 100
	for i := range uint32(stuck) {
		id := 2*i + 1
		c.request(id, false)
		for sent := 0; sent < 200_000; sent += 10_000 { // far beyond the hung one's window
			if !c.allow(id, 10_000) {
				t.Fatal("the connection ended")
			}
			c.data(id, make([]byte, 10_000), false)
		}
	}
	waitFor(t, "the hung calls to be sent", func() bool { return g.slots() == stuck })
	quick(t, c, 2*stuck+1, 50)
	for i := range uint32(stuck) {
		c.reset(2*i+1, http2.ErrCodeCancel)
	}
}

// Clients that stop reading hold up their own answers only, though all share the
// connection to the upstream.
func TestClientsThatStopReadingDelayNobodyElse(t *testing.T) {
	const n = 100
	answer := make([]byte, 200_000)
	up := listenRaw(t, func(p *rawPeer) {
		p.onRecv = func(f frame) {
			if f.typ != http2.FrameHeaders {
				return
			}
			go func() {
				p.answerHead(f.id)
				for sent := 0; sent < len(answer); sent += 10_000 {
					if !p.allow(f.id, 10_000) {
						return
					}
					p.data(f.id, answer[sent:sent+10_000], false)
				}
				p.trailers(f.id, "0")
			}()
		}
	})
	g := newRig(t, Config{MaxUpstreamConns: 1, StreamsPerConn: 1000}, up.addr, nil)
	var slow []*rawPeer
	for range n {
		c := dialRawWith(t, g.addr, func(p *rawPeer) { p.credit = false }, // no window beyond the first 64 KiB
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
		c.pause(true)
		c.request(1, true)
		slow = append(slow, c)
	}
	// The fast one's answers come behind theirs, on the same connection: these are here first.
	waitFor(t, "their answers to wait for them", func() bool { return g.Stats().BufferedBytes >= int64(n*(len(answer)-initialWindow)) })
	fast := dialRaw(t, g.addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	for id := uint32(1); id < 11; id += 2 {
		begun := time.Now()
		fast.request(id, true)
		fast.body(id, len(answer))
		fast.next("trailers", isTrailers(id))
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("a call beside %d that do not read took %v", n, d)
		}
	}
	for _, c := range slow { // whatever was held is still there
		c.windowUpdate(0, maxWindow-initialWindow)
		c.pause(false)
	}
	for _, c := range slow {
		c.body(1, len(answer))
		c.next("trailers", isTrailers(1))
	}
}

// Over the limit, calls longest without progress make room; memory stays bounded.
func TestEvictionBoundsMemory(t *testing.T) {
	const limit = 4 << 20
	answer := make([]byte, 200_000)
	answered := make(chan struct{}, 60)
	up := listenRaw(t, func(p *rawPeer) {
		p.onRecv = func(f frame) {
			if f.typ == http2.FrameHeaders {
				p.answerHead(f.id)
				go func() {
					defer func() { answered <- struct{}{} }()
					for sent := 0; sent < len(answer) && p.allow(f.id, 10_000); sent += 10_000 {
						p.data(f.id, answer[sent:sent+10_000], false)
					}
				}()
			}
		}
	})
	g := newRig(t, Config{BufferedTotal: limit}, up.addr, nil)
	var clients []*rawPeer
	most := int64(0)
	for range 60 { // 60 x 200 kB, three times the limit
		c := dialRawWith(t, g.addr, func(p *rawPeer) { p.credit = false })
		c.request(1, true)
		clients = append(clients, c)
		select { // so that the next one is the younger
		case <-answered:
		case <-time.After(patience):
			t.Fatal("an answer is neither taken nor given up")
		}
		most = max(most, g.Stats().BufferedBytes)
	}
	waitFor(t, "the limit to hold, with somebody evicted", func() bool {
		b := g.Stats().BufferedBytes
		most = max(most, b)
		return b <= limit && len(g.policy.outcomes()) > 0
	})
	if most > 2*limit {
		t.Errorf("%d bytes were buffered, the limit is %d", most, limit)
	}
	evicted := 0
	for _, o := range g.policy.outcomes() {
		if o.Kind != Evicted || o.Code != codeResourceExhausted {
			t.Errorf("outcome %v with code %d, want an eviction", o.Kind, o.Code)
		}
		evicted++
	}
	if evicted == 0 {
		t.Fatal("nobody was evicted")
	}
	// The first to come were the first to go, and were told.
	for _, c := range clients[:3] {
		if got := c.next("trailers", isTrailers(1)).field("grpc-status"); got != "8" {
			t.Errorf("status %s, want 8", got)
		}
	}
	last := clients[len(clients)-1]
	last.sync()
	if gone := last.take(isTrailers(1)); len(gone) > 0 {
		t.Errorf("the youngest call was evicted: %v", gone)
	}
}

// The limit of one connection is enforced for its own calls.
func TestEvictionPerConnection(t *testing.T) {
	hung := listenRaw(t, func(p *rawPeer) { p.credit = false })
	g := newRig(t, Config{BufferedPerConn: 1 << 20, MaxUpstreamConns: 1}, hung.addr, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id < 41; id += 2 {
		c.request(id, false)
		for range 10 {
			if !c.allow(id, 10_000) {
				t.Fatal("the connection ended")
			}
			c.data(id, make([]byte, 10_000), false)
		}
	}
	c.sync()
	waitFor(t, "the limit to hold, with somebody evicted", func() bool { // nothing is buffered before the server is reached
		return g.Stats().BufferedBytes <= 1<<20 && len(g.policy.outcomes()) > 0
	})
	if n := len(g.policy.outcomes()); n == 20 {
		t.Error("all calls were evicted")
	}
	for _, o := range g.policy.outcomes() {
		if o.Kind != Evicted {
			t.Errorf("outcome %v", o.Kind)
		}
	}
}

// What an upstream has not looked at when it goes away is tried elsewhere, and no
// call is lost.
func TestGoAwayUnderLoadLosesNothing(t *testing.T) {
	var mu sync.Mutex
	served := 0
	up := listenRaw(t, func(p *rawPeer) {
		n := uint32(0)
		p.onRecv = func(f frame) {
			if f.typ != http2.FrameHeaders {
				return
			}
			if n++; n == 36 { // this one and all that are under way are not looked at
				p.goAway(f.id-2, http2.ErrCodeNo)
			}
			if n < 36 {
				mu.Lock()
				served++
				mu.Unlock()
				p.trailersOnly(f.id, "0")
			}
		}
	})
	p := &recorder{}
	p.failed = func(c *Call, o Outcome) Verdict {
		if o.Kind == Unprocessed && c.Replayable() {
			return To(&p.dispatch)
		}
		return Pass()
	}
	g := newRig(t, Config{}, up.addr, p)
	var wg sync.WaitGroup
	const clients, calls = 5, 200
	for range clients {
		c := dialRaw(t, g.addr)
		wg.Go(func() {
			for i := range uint32(calls) {
				id := 2*i + 1
				c.request(id, false)
				c.data(id, bytes.Repeat([]byte{1}, 100), true)
				f, err := c.await(isTrailers(id))
				if err != nil || f.field("grpc-status") != "0" {
					t.Errorf("call %d: status %q (%s), %v", i, f.field("grpc-status"), f.field("grpc-message"), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if served != clients*calls {
		t.Errorf("%d calls were served, want %d: each once", served, clients*calls)
	}
	if len(p.failures()) == 0 {
		t.Error("no call met a GOAWAY: the test tests nothing")
	}
	for _, o := range p.failures() {
		if o.Kind != Unprocessed {
			t.Errorf("an attempt ended as %v", o.Kind)
		}
	}
}

// A limit on concurrent streams that changes is obeyed, downwards too.
func TestMaxConcurrentStreamsChanges(t *testing.T) {
	maxStreams := func(n uint32) http2.Setting {
		return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
	}
	up := listenRaw(t, nil, maxStreams(2))
	g := newRig(t, Config{MaxUpstreamConns: 1}, up.addr, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id < 13; id += 2 {
		c.request(id, true)
	}
	s := up.accept()
	count := func() int {
		s.sync()
		return len(s.take(anyHeaders))
	}
	open := func(want int, why string) {
		t.Helper()
		c.sync()
		if got := count(); got != want {
			t.Fatalf("%d calls arrived, want %d: %s", got, want, why)
		}
	}
	waitFor(t, "the first calls", func() bool { return g.slots() == 2 })
	open(2, "the limit is 2")
	s.settings(maxStreams(4))
	s.sync()
	open(2, "the limit is 4 and two are open")
	s.settings(maxStreams(1))
	s.sync()
	for id := uint32(1); id < 7; id += 2 {
		s.trailersOnly(id, "0")
	}
	s.sync()
	open(0, "the limit is 1 and one is open")
	s.trailersOnly(7, "0")
	s.sync()
	open(1, "one may be open")
	s.settings(maxStreams(0))
	s.sync()
	s.trailersOnly(9, "0")
	s.sync()
	open(0, "none may be open")
	s.settings(maxStreams(100))
	s.sync()
	open(1, "all may be open")
	s.trailersOnly(11, "0")
	for id := uint32(1); id < 13; id += 2 {
		if _, err := c.find(isTrailers(id)); err != nil {
			t.Fatalf("stream %d: %v", id, err)
		}
	}
}

// Waiting is bounded in number, and ends with the deadline.
func TestWaitingForASlot(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	g := newRig(t, Config{MaxUpstreamConns: 1, MaxWaiting: 2}, up.addr, nil)
	c := dialRaw(t, g.addr)
	s := g.call(c, up, 1)
	c.request(3, true, "grpc-timeout", "2S")
	c.request(5, true)
	c.request(7, true)
	if got := c.next("the refusal of one too many", isTrailers(7)).field("grpc-status"); got != "14" {
		t.Errorf("status %s, want 14", got)
	}
	if got := c.next("the end of one that waited", isTrailers(3)).field("grpc-status"); got != "4" {
		t.Errorf("status %s, want 4", got)
	}
	s.trailersOnly(1, "0")
	c.next("the first answer", isTrailers(1))
	s.next("the one that still waits", isHeaders(3))
	s.trailersOnly(3, "0")
	c.next("its answer", isTrailers(5))
}

// A client that gives up while its call waits leaves no trace in the queue.
func TestCancelWhileWaiting(t *testing.T) {
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	g := newRig(t, Config{MaxUpstreamConns: 1}, up.addr, nil)
	c := dialRaw(t, g.addr)
	s := g.call(c, up, 1)
	for id := uint32(3); id < 23; id += 2 {
		c.request(id, true)
	}
	for id := uint32(3); id < 21; id += 2 {
		c.reset(id, http2.ErrCodeCancel)
	}
	c.sync()
	s.trailersOnly(1, "0")
	s.next("the last one", isHeaders(3))
	s.trailersOnly(3, "0")
	c.next("its answer", isTrailers(21))
	g.up.mu.Lock()
	defer g.up.mu.Unlock()
	if g.up.waiting != 0 || g.up.head != nil || g.up.tail != nil {
		t.Errorf("%d calls still wait", g.up.waiting)
	}
}

// Load opens further connections, up to the limit.
func TestPoolGrowsWithLoad(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{StreamsPerConn: 10, MaxUpstreamConns: 3}, up.addr, nil)
	c := dialRaw(t, g.addr)
	id := uint32(1)
	for ; g.up.Conns() < 3 && id < 400; id += 2 {
		c.request(id, true)
		c.sync()
		time.Sleep(time.Millisecond)
	}
	for range 50 {
		c.request(id, true)
		id += 2
	}
	c.sync()
	waitFor(t, "three connections", func() bool { return g.up.Conns() >= 3 })
	waitFor(t, "all to be sent", func() bool { return g.slots() == int(id/2) })
	waitFor(t, "the load to be shared", func() bool {
		least := g.slots()
		for _, d := range g.snapshot() {
			if d.isClient() {
				d.mu.Lock()
				least = min(least, len(d.streams))
				d.mu.Unlock()
			}
		}
		return least >= 10
	})
	if n := g.up.Conns(); n != 3 {
		t.Errorf("%d connections, the limit is 3", n)
	}
}

// What a peak has opened is left to idle once fewer connections will do, and used again by the next.
func TestPoolUsesNoMoreConnectionsThanCallsNeed(t *testing.T) {
	const perConn, peak = 10, 35
	var mu sync.Mutex
	got := make(map[*rawPeer][]uint32) // calls that wait for an answer
	up := listenRaw(t, func(p *rawPeer) {
		p.onRecv = func(f frame) {
			if f.typ == http2.FrameHeaders {
				mu.Lock()
				got[p] = append(got[p], f.id)
				mu.Unlock()
			}
		}
	})
	g := newRig(t, Config{StreamsPerConn: perConn, MaxUpstreamConns: 4}, up.addr, nil)
	c := dialRaw(t, g.addr)
	id := uint32(1)
	// calls sends n at once and returns how many came over each connection that got any; all are answered then.
	calls := func(n int) []int {
		for range n {
			c.request(id, true)
			id += 2
		}
		var shares []int
		waitFor(t, "the calls to arrive", func() bool {
			mu.Lock()
			defer mu.Unlock()
			shares = shares[:0]
			sum := 0
			for _, ids := range got {
				if len(ids) > 0 {
					shares, sum = append(shares, len(ids)), sum+len(ids)
				}
			}
			return sum == n
		})
		mu.Lock()
		answer := maps.Clone(got)
		clear(got)
		mu.Unlock()
		for p, ids := range answer {
			for _, id := range ids {
				p.trailersOnly(id, "0")
			}
		}
		g.settled()
		return shares
	}
	for g.up.Conns() < 4 { // connections are opened one at a time
		calls(peak)
	}
	for _, test := range []struct{ calls, conns int }{{1, 1}, {perConn, 1}, {perConn + 1, 2}, {2 * perConn, 2}, {peak, 4}, {1, 1}} {
		shares := calls(test.calls)
		if len(shares) != test.conns || slices.Max(shares) > perConn {
			t.Errorf("%d calls at once came as %v, want them over %d connections with at most %d on each", test.calls, shares, test.conns, perConn)
		}
	}
}
