package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/storetest"
)

// update makes the operation of one writer.
func update(t *testing.T, r *replica, in storetest.Request) storetest.Outcome {
	c, err := r.Update(t.Context(), &routing.Update{
		Expected: in.Expected, Set: []*routingv1.Route{storetest.Route("m", in.Value)}, Actor: "writer",
	})
	var conflict *routing.ConflictError
	switch {
	case err == nil:
		return storetest.Outcome{At: storetest.Register{Revision: c.GetRevision(), Value: in.Value}}
	case errors.As(err, &conflict):
		return storetest.Outcome{Conflict: true}
	default:
		return storetest.Outcome{Unknown: true} // also what was surely not made
	}
}

// read makes the operation of a reader.
func read(t *testing.T, s routing.Store) storetest.Outcome {
	state, err := s.Load(t.Context())
	if err != nil {
		return storetest.Outcome{Unknown: true}
	}
	at := storetest.Register{Revision: state.Revision}
	if r := state.Routes["m"].GetRoute(); r != nil {
		at.Value = r.GetVersions()[0].GetName()
	}
	return storetest.Outcome{At: at}
}

// TestConcurrentWritersAreLinearizable has writers on two gateways while
// connections are cut, Redis is killed and hangs, and a gateway stops following. With
// whole processes, TestWritersOnTwoGatewaysAreLinearizable in e2e does the same.
func TestConcurrentWritersAreLinearizable(t *testing.T) {
	server := storetest.StartRedis(t, durable...)
	gateways := []*replica{startReplica(t, server.URL(), ""), startReplica(t, server.URL(), "")}
	history := storetest.NewOperations(storetest.Register{})
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var group sync.WaitGroup
	for client := range 4 {
		r := gateways[client%2]
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 1))
			for n := 0; !stopped(); n++ {
				in := storetest.Request{Expected: r.router.Current().Revision(), Value: fmt.Sprintf("v%d-%d", client, n)}
				history.Run(client, in, func() storetest.Outcome { return update(t, r, in) })
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			}
		})
	}
	observer := open(t, server.URL())
	group.Go(func() {
		for !stopped() {
			history.Run(4, storetest.Request{Read: true}, func() storetest.Outcome { return read(t, observer) })
			time.Sleep(15 * time.Millisecond)
		}
	})

	time.Sleep(300 * time.Millisecond)
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	time.Sleep(300 * time.Millisecond)
	server.Kill()
	server.Start()
	time.Sleep(300 * time.Millisecond)
	gateways[1].stop() // its followers end while its writers go on
	server.Hang()
	time.Sleep(1700 * time.Millisecond) // longer than a change may take
	server.Resume()
	time.Sleep(300 * time.Millisecond)
	close(stop)
	group.Wait()

	last := read(t, observer)
	gateways[0].await("m", fmt.Sprint(last.At.Value, " at ", last.At.Revision))
	if made, conflicts, unknown := history.Check(t); made < 10 || conflicts == 0 || unknown == 0 {
		t.Errorf("%d changes, %d conflicts, %d unknown: the history shows too little", made, conflicts, unknown)
	}
}

// TestRequestKeyMakesRetriesHarmless loses the answer to every change after Redis has made
// it, and Redis itself hangs until the time to find out is up: so nobody knows. Repeated,
// each finds what was made, and nothing is made twice.
func TestRequestKeyMakesRetriesHarmless(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t, durable...)
	proxy := startSwallower(t, server.Addr)
	s := open(t, "redis://"+proxy.addr)
	const requests = 5
	for i := range requests {
		u := &routing.Update{
			Expected: uint64(i), Set: []*routingv1.Route{storetest.Route("m", fmt.Sprint("v", i))},
			Actor: "x", RequestKey: fmt.Sprint("request-", i), RequestDigest: []byte{1},
		}
		proxy.swallow("exec")
		_, err := s.Update(t.Context(), u)
		for isUndone(err) { // a busy machine has left no time to send it
			_, err = s.Update(t.Context(), u)
		}
		var unavailable *routing.UnavailableError
		if !errors.As(err, &unavailable) || !unavailable.Unknown {
			t.Fatalf("Update = %v, want that nobody knows whether it was made", err)
		}
		proxy.heal()
		c := storetest.Update(t, s, u) // it would be a conflict, were it not for the key
		if c.GetRevision() != uint64(i+1) || c.GetRequestKey() != u.RequestKey {
			t.Errorf("repeated: %v, want what was made as revision %d", c, i+1)
		}
	}
	changes := storetest.History(t, s, routing.HistoryQuery{})
	if len(changes) != requests {
		t.Errorf("%d changes, want each of %d requests once", len(changes), requests)
	}
}

// TestAnotherRedisDoesNotSayWhatTheFirstHasDone: a change was made, Redis breaks the connection
// off, and whoever is asked what became of it is another Redis by then.
func TestAnotherRedisDoesNotSayWhatTheFirstHasDone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		changes int // of the other Redis
		unknown bool
	}{
		"it has nothing yet":              {0, true},
		"it has another past":             {1, true},
		"it has gone on with another one": {3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, other := storetest.StartRedis(t), storetest.StartRedis(t)
			proxy := startSwallower(t, first.Addr)
			s := open(t, "redis://"+proxy.addr)
			made := storetest.Set(t, s, storetest.Route("m", "v1"))
			for i := range test.changes {
				storetest.Set(t, open(t, other.URL()), storetest.Route("m", fmt.Sprint("other", i)))
			}
			proxy.failOver(other.Addr)
			u := &routing.Update{Expected: 1, ExpectedID: made.GetId(), Set: []*routingv1.Route{storetest.Route("m", "v2")}, Actor: "x"}
			_, err := s.Update(t.Context(), u)
			for isUndone(err) { // a busy machine has left no time to send it
				_, err = s.Update(t.Context(), u)
			}
			var conflict *routing.ConflictError
			if !isInDoubt(err) && (test.unknown || !errors.As(err, &conflict)) {
				t.Errorf("Update = %v, want it to be unknown: %v, or else a conflict", err, test.unknown)
			}
			if at := storetest.Load(t, open(t, first.URL())); at.Revision != 2 {
				t.Errorf("the first Redis is at revision %d: nothing was made there", at.Revision)
			}
		})
	}
}

// TestWhatMayStandOnAShelfIsNotCalledUndone: the value was set, and the answer was lost.
func TestWhatMayStandOnAShelfIsNotCalledUndone(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	for command, set := range map[string]func(routing.Shelf) error{
		"hset": func(sh routing.Shelf) error { return sh.Put(t.Context(), "k", []byte("new")) },
		"hdel": func(sh routing.Shelf) error { return sh.Put(t.Context(), "k", nil) },
		"exec": func(sh routing.Shelf) error {
			_, err := sh.Swap(t.Context(), "k", []byte("old"), []byte("new"))
			return err
		},
	} {
		proxy := startSwallower(t, server.Addr)
		shelf, direct := open(t, "redis://"+proxy.addr).Shelf("s"), open(t, server.URL()).Shelf("s")
		if err := direct.Put(t.Context(), "k", []byte("old")); err != nil {
			t.Fatal(err)
		}
		proxy.swallow(command)
		err := set(shelf)
		for isUndone(err) && !proxy.isSilent() { // a busy machine has left no time to send it
			err = set(shelf)
		}
		if !isInDoubt(err) {
			t.Errorf("%s: %v, want that nobody knows whether it was done", command, err)
		}
		storetest.Eventually(t, "it was done", func() bool {
			value, err := direct.Get(t.Context(), "k")
			return err == nil && string(value) != "old"
		})
	}
	server.Kill()
	if err := open(t, server.URL()).Shelf("s").Put(t.Context(), "k", nil); !isUndone(err) {
		t.Errorf("without Redis: %v, want that nothing was done", err)
	}
}

// isUndone reports whether an error says that the store was away and nothing was done,
// isInDoubt whether it may have been.
func isUndone(err error) bool {
	var unavailable *routing.UnavailableError
	return errors.As(err, &unavailable) && !unavailable.Unknown
}

func isInDoubt(err error) bool {
	var unavailable *routing.UnavailableError
	return errors.As(err, &unavailable) && unavailable.Unknown
}

// swallower passes bytes on to Redis. Told so, it lets the next command of a name reach Redis,
// keeps the answer to it, and answers nothing more; or it goes on with another Redis.
type swallower struct {
	addr string

	mu        sync.Mutex
	redis     string
	next      string // to go on with
	armed     string // the command
	swallowed bool
	conns     []net.Conn
}

func startSwallower(t *testing.T, redis string) *swallower {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &swallower{addr: ln.Addr().String(), redis: redis}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.target())
			if err != nil {
				_ = client.Close()
				continue
			}
			p.keep(client, server)
			group.Go(func() { p.pass(server, client, p.sees) })
			group.Go(func() {
				p.pass(client, server, func([]byte) bool {
					if p.hasFailedOver(server) {
						_ = client.Close()
					}
					return !p.isSilent()
				})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.cut()
		group.Wait()
	})
	return p
}

func (p *swallower) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
}

// pass copies, except for what passes does not let through.
func (p *swallower) pass(to, from net.Conn, passes func([]byte) bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	data := make([]byte, 64<<10)
	for {
		n, err := from.Read(data)
		if err != nil {
			return
		}
		if !passes(data[:n]) {
			continue
		}
		if _, err := to.Write(data[:n]); err != nil {
			return
		}
	}
}

// sees looks at what goes to Redis. After a transaction nothing goes there any more.
func (p *swallower) sees(data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swallowed {
		return false
	}
	if p.armed == "" || !bytes.Contains(bytes.ToLower(data), []byte("\n"+p.armed+"\r")) {
		return true
	}
	p.armed = ""
	if p.next != "" {
		p.redis = p.next
	} else {
		p.swallowed = true
	}
	return true
}

func (p *swallower) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.redis
}

// hasFailedOver reports whether a connection leads to a Redis of before.
func (p *swallower) hasFailedOver(server net.Conn) bool {
	return server.RemoteAddr().String() != p.target()
}

func (p *swallower) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.swallowed
}

func (p *swallower) swallow(command string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = command
}

// failOver breaks the connections to Redis off when it has made the next change, and leads new
// ones elsewhere.
func (p *swallower) failOver(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.next = "exec", to
}

// heal passes everything on again, over new connections.
func (p *swallower) heal() {
	p.cut()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallowed = false
}

// cut ends all connections.
func (p *swallower) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
