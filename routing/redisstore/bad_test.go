package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/storetest"
)

// TestBadDocumentsAreRefused tries all of them with a real Redis: through the store, which
// takes none, and past it, as a writer that is not Sluice would, where a replica serves the last good
// one and says what is wrong with which field.
func TestBadDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	r := startReplica(t, server.URL(), "")
	r.mustSet(storetest.Route("m", "v1", "v2"))
	good := r.mustSet(storetest.Route("n", "v1"))
	all := storetest.BadRoutes()
	for _, bad := range all {
		_, err := r.Update(t.Context(), &routing.Update{Expected: 2, Actor: "x", Set: []*routingv1.Route{bad.Route}})
		var field *routing.FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), "routes[0]."+bad.Field+": got ") || !strings.Contains(err.Error(), ", want ") {
			t.Errorf("%v: Update = %v, want %s refused", bad.Route, err, bad.Field)
		}
	}
	if at := storetest.Load(t, open(t, server.URL())); at.Position != routing.PositionAfter(good) {
		t.Fatalf("the store is at %+v, want it untouched", at.Position)
	}

	last := good
	for _, bad := range all {
		if bad.Route.GetModel() != "m" || !proto.Equal(bad.Route, valid(bad.Route)) {
			continue // cannot be stored under its name, or encoded
		}
		last = forge(t, server, last, bad.Route)
		storetest.Eventually(t, fmt.Sprintf("%v is refused", bad.Route), func() bool {
			refused := r.Status().Refused
			return len(refused) == 1 && refused[0].Model == "m" && refused[0].Revision == last.GetRevision() &&
				strings.Contains(refused[0].Err.Error(), bad.Field+": got ")
		})
		if got, want := r.serving("m"), fmt.Sprintf("v1,v2 at %d", last.GetRevision()); got != want {
			t.Fatalf("%v: serving %s, want %s, the last good one", bad.Route, got, want)
		}
	}
	if last.GetRevision() < 200 {
		t.Errorf("only %d were written past the store", last.GetRevision()-2)
	}
}

// valid returns what of a route survives being encoded; the route itself unless it holds text
// that is no UTF-8.
func valid(r *routingv1.Route) *routingv1.Route {
	b, err := proto.Marshal(r)
	if err != nil {
		return nil
	}
	back := new(routingv1.Route)
	if proto.Unmarshal(b, back) != nil {
		return nil
	}
	return back
}

// forge writes a change into Redis, all of it, as Sluice would, but for the checks.
func forge(t *testing.T, server *storetest.Redis, before *routingv1.Change, r *routingv1.Route) *routingv1.Change {
	t.Helper()
	c := &routingv1.Change{
		Revision: before.GetRevision() + 1, Id: fmt.Sprintf("%032d", before.GetRevision()+1), Epoch: before.GetEpoch(),
		PredecessorRevision: before.GetRevision(), PredecessorId: before.GetId(), Time: before.GetTime(), Actor: "stranger",
		Routes: []*routingv1.RouteChange{{Model: r.GetModel(), After: r}},
	}
	change, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := proto.Marshal(routing.EntryAfter(c, c.GetRoutes()[0]))
	if err != nil {
		t.Fatal(err)
	}
	server.Do("HSET", "{sluice}:routes", r.GetModel(), string(entry))
	server.Do("HSET", "{sluice}:head", "revision", fmt.Sprint(c.GetRevision()), "id", c.GetId())
	server.Do("XADD", "{sluice}:changes", fmt.Sprintf("%d-0", c.GetRevision()), "change", string(change))
	return c
}
