package redisstore_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/storetest"
)

// request is one operation on the store: a read, or an update of the one route to
// a version that no other update uses.
type request struct {
	read     bool
	expected uint64
	version  string
}

// outcome is what an operation reported.
type outcome struct {
	unknown  bool
	conflict bool
	at       register
}

// register is what the store is to the model: a revision and what was set at it.
type register struct {
	revision uint64
	version  string
}

// casRegister is the store as its users may imagine it: every operation happens
// at one moment between its call and its return.
var casRegister = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(register), input.(request), output.(outcome)
		next := register{now.revision + 1, in.version}
		switch {
		case in.read:
			return out.at == now, now
		case out.unknown:
			// Whatever its call did, it did it if the revision was right; it may also
			// have done nothing until after the end.
			if now.revision == in.expected {
				return true, next
			}
			return true, now
		case out.conflict:
			return out.at.revision == now.revision && now.revision != in.expected, now
		default:
			return now.revision == in.expected && out.at == next, next
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// operations gathers a history from several goroutines.
type operations struct {
	mu    sync.Mutex
	begun time.Time
	all   []porcupine.Operation
}

// run runs one operation and notes when and how it went. One that is unknown has
// no end.
func (o *operations) run(client int, in request, do func() outcome) outcome {
	call := time.Since(o.begun)
	out := do()
	end := time.Since(o.begun)
	if out.unknown {
		if in.read {
			return out // tells nothing
		}
		end = math.MaxInt64
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, porcupine.Operation{
		ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(end),
	})
	return out
}

// update makes the operation of one writer.
func update(t *testing.T, r *replica, in request) outcome {
	c, err := r.Update(t.Context(), &routing.Update{
		Expected: in.expected, Set: []*routingv1.Route{storetest.Route("m", in.version)}, Actor: "writer",
	})
	var conflict *routing.ConflictError
	switch {
	case err == nil:
		return outcome{at: register{c.GetRevision(), in.version}}
	case errors.As(err, &conflict):
		return outcome{conflict: true, at: register{revision: conflict.Current}}
	default:
		return outcome{unknown: true} // also what was surely not made
	}
}

// read makes the operation of a reader.
func read(t *testing.T, s routing.Store) outcome {
	state, err := s.Load(t.Context())
	if err != nil {
		return outcome{unknown: true}
	}
	at := register{revision: state.Revision}
	if r := state.Routes["m"].GetRoute(); r != nil {
		at.version = r.GetVersions()[0].GetName()
	}
	return outcome{at: at}
}

// TestConcurrentWritersAreLinearizable has writers on two gateways while
// connections are cut, Redis is killed and hangs, and a gateway is killed.
func TestConcurrentWritersAreLinearizable(t *testing.T) {
	server := storetest.StartRedis(t, durable...)
	gateways := []*replica{startReplica(t, server.URL(), ""), startReplica(t, server.URL(), "")}
	history := &operations{begun: time.Now()}
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
				in := request{expected: r.router.Current().Revision(), version: fmt.Sprintf("v%d-%d", client, n)}
				history.run(client, in, func() outcome { return update(t, r, in) })
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			}
		})
	}
	observer := open(t, server.URL())
	group.Go(func() {
		for !stopped() {
			history.run(4, request{read: true}, func() outcome { return read(t, observer) })
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
	gateways[0].await("m", fmt.Sprint(last.at.version, " at ", last.at.revision))
	var made, conflicts, unknown int
	for _, op := range history.all {
		switch out := op.Output.(outcome); {
		case op.Input.(request).read:
		case out.unknown:
			unknown++
		case out.conflict:
			conflicts++
		default:
			made++
		}
	}
	t.Logf("%d operations: %d changes, %d conflicts, %d without an answer", len(history.all), made, conflicts, unknown)
	if made < 10 || conflicts == 0 || unknown == 0 {
		t.Errorf("%d changes, %d conflicts, %d unknown: the history shows too little", made, conflicts, unknown)
	}
	if result := porcupine.CheckOperationsTimeout(casRegister, history.all, 20*time.Second); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", result)
	}
}

// TestRequestKeyMakesRetriesHarmless repeats requests until they are answered,
// while Redis is killed: each is made exactly once.
func TestRequestKeyMakesRetriesHarmless(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t, durable...)
	s := open(t, server.URL())
	const requests = 30
	var group sync.WaitGroup
	group.Go(func() {
		for range 3 {
			time.Sleep(50 * time.Millisecond)
			server.Kill()
			server.Start()
		}
	})
	for i := range requests {
		key := fmt.Sprint("request-", i)
		storetest.Eventually(t, key+" is answered", func() bool {
			state, err := s.Load(t.Context())
			if err != nil {
				return false
			}
			_, err = s.Update(t.Context(), &routing.Update{
				Expected: state.Revision, Set: []*routingv1.Route{storetest.Route("m", key)}, Actor: "x", RequestKey: key,
			})
			return err == nil
		})
		time.Sleep(5 * time.Millisecond)
	}
	group.Wait()
	made := map[string]int{}
	for _, c := range storetest.History(t, s, routing.HistoryQuery{}) {
		made[c.GetRequestKey()]++
	}
	if len(made) != requests {
		t.Errorf("%d requests made, want %d", len(made), requests)
	}
	for key, n := range made {
		if n != 1 {
			t.Errorf("%s made %d times, want once", key, n)
		}
	}
}
