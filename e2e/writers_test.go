package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

// TestWritersOnTwoGatewaysAreLinearizable has operators change weights, and roll back, through
// two gateways while Redis and both gateways are killed and Redis hangs. Whose answer is
// lost asks again, with the same request key, through the other gateway. Each
// change that was acknowledged was made exactly once, at one moment, to the
// revision it was meant for; no gateway, once it has asked the store, ever serves an older
// revision than it, or the process before it, has served before.
func TestWritersOnTwoGatewaysAreLinearizable(t *testing.T) {
	t.Parallel()
	redis := storetest.StartRedis(t, durable...)
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	first := startShared(t, redis.URL(), split(v1, v2, 1, 1000))
	gateways := []*shared{first, startShared(t, redis.URL(), "")}
	gateways[1].awaitV1(1)
	store, err := redisstore.Open(redisstore.Config{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	history := storetest.NewOperations(readOnce(t.Context(), store).At)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for client := range 4 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 1))
			for n := 0; ctx.Err() == nil; n++ {
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				_, revision, err := gateways[client%2].serves()
				if err != nil {
					continue // it was killed, and comes back
				}
				value := uint32(10_000*(client+1) + n)
				in := storetest.Request{Expected: revision, Value: fmt.Sprint(value)}
				in.Undo = revision > 1 && n%4 == 3 // undoing the first would leave no route
				history.Run(client, in, func() storetest.Outcome { return writeOnce(gateways, client, in, value) })
			}
		})
	}
	group.Go(func() {
		for ctx.Err() == nil {
			history.Run(4, storetest.Request{Read: true}, func() storetest.Outcome { return readOnce(ctx, store) })
			time.Sleep(15 * time.Millisecond)
		}
	})
	for _, g := range gateways {
		group.Go(func() { neverGoesBack(ctx, t, g) })
	}
	killGateway := func(i int) {
		gateways[i].kill()
		gateways[i].start()
	}

	pause := func() { time.Sleep(400 * time.Millisecond) }
	pause()
	killGateway(0)
	pause()
	redis.Do("CLIENT", "KILL", "TYPE", "normal")
	pause()
	redis.Kill()
	redis.Start()
	pause()
	redis.Hang()
	killGateway(1)                      // starts from its cache
	time.Sleep(1700 * time.Millisecond) // longer than a change may take
	redis.Resume()
	pause()
	redis.Kill()
	killGateway(0)
	redis.Start()
	pause()
	pause()
	stop()
	group.Wait()

	if made, conflicts, unknown := history.Check(t); made < 20 || conflicts == 0 || unknown > made {
		t.Errorf("%d changes, %d conflicts, %d unknown: the history shows too little", made, conflicts, unknown)
	}
	var last storetest.Outcome
	storetest.Eventually(t, "the store can be read", func() bool { // its connections may be those to a Redis that was killed
		last = readOnce(t.Context(), store)
		return !last.Unknown
	})
	weight, err := strconv.ParseUint(last.At.Value, 10, 32)
	if err != nil {
		t.Fatalf("the store says %+v: %v", last, err)
	}
	for _, g := range gateways {
		g.awaitV1(uint32(weight))
	}
}

// writeOnce makes one change. As long as it is not known whether it was made, it
// asks again, by turns.
func writeOnce(gateways []*shared, client int, in storetest.Request, value uint32) storetest.Outcome {
	ask := func(g *shared) (*adminv1.Outcome, error) {
		condition := func(i *adminv1.Intent) { i.ExpectedRevision, i.RequestKey = &in.Expected, "request-"+in.Value }
		if in.Undo {
			return g.undo(condition)
		}
		return g.setV1(value, condition)
	}
	for attempt := range 40 {
		made, err := ask(gateways[(client+attempt)%2])
		if err == nil {
			return storetest.Outcome{At: storetest.Register{Revision: made.GetChange().GetRevision(), Value: v1Of(made.GetChange().GetRoutes()[0].GetAfter())}}
		}
		_, info := adminRefusal(err)
		var dialing *net.OpError
		switch {
		case info.GetReason() == admin.ReasonConflict:
			expected, _ := strconv.ParseUint(info.GetMetadata()["expected"], 10, 64)
			current, _ := strconv.ParseUint(info.GetMetadata()["current"], 10, 64)
			if current > expected {
				return storetest.Outcome{Conflict: true}
			}
			// This gateway has not seen what the other one has.
			if attempt == 0 {
				return storetest.Outcome{NotMade: true}
			}
		case attempt > 0: // an earlier attempt may have been made all the same
		case info.GetReason() == admin.ReasonStoreUnavailable, info.GetReason() == admin.ReasonNoState,
			errors.As(err, &dialing) && dialing.Op == "dial":
			return storetest.Outcome{NotMade: true}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return storetest.Outcome{Unknown: true}
}

func v1Of(r *routingv1.Route) string { return fmt.Sprint(r.GetWeights()["v1"]) }

// readOnce reads from the store itself, not through a gateway.
func readOnce(ctx context.Context, store routing.Store) storetest.Outcome {
	state, err := store.Load(ctx)
	if err != nil {
		return storetest.Outcome{Unknown: true}
	}
	at := storetest.Register{Revision: state.Revision}
	if r := state.Routes[model].GetRoute(); r != nil {
		at.Value = v1Of(r)
	}
	return storetest.Outcome{At: at}
}

// neverGoesBack asks a gateway for its revision again and again, over all its lives. One that
// starts from its disk may serve an older revision until it has asked the store; from then on
// it must never be below what it, or the process before it, has served as the store's.
func neverGoesBack(ctx context.Context, t *testing.T, g *shared) {
	var confirmed, served uint64
	source := ""
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		resp, err := g.client.Status(ctx, &adminv1.StatusRequest{})
		if err != nil {
			source = "" // it was killed, and comes back
			continue
		}
		now := resp.GetStore()
		if now.GetSource() == "store" && now.GetRevision() < confirmed {
			t.Errorf("a gateway went back from revision %d to %d", confirmed, now.GetRevision())
		}
		if source == "cache" && now.GetSource() == "cache" && now.GetRevision() != served {
			t.Errorf("a gateway without its store went from revision %d to %d", served, now.GetRevision())
		}
		source, served = now.GetSource(), now.GetRevision()
		if source == "store" {
			confirmed = max(confirmed, served)
		}
	}
}
