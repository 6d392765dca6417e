package redisstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
