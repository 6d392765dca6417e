package redisstore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/storetest"
)

// encoded is what the routes hash holds for a route.
func encoded(t *testing.T, r *routingv1.Route) string {
	t.Helper()
	b, err := proto.Marshal(&routingv1.StoredRoute{Model: r.GetModel(), Route: r, Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestForeignHandsInTheStore writes to the keys as nobody should. The last good
// documents stay, in a replica that was there before; a new one serves what it
// can; both say what is wrong.
func TestForeignHandsInTheStore(t *testing.T) {
	t.Parallel()
	bad := storetest.Route("m", "v2")
	bad.Weights["v9"] = 1
	other := storetest.Route("other", "v1")
	for name, value := range map[string]struct{ entry, problem string }{
		"garbage":       {"\xff\xff\xff", "3 bytes that are not a route"},
		"bad document":  {encoded(t, bad), `weights.v9: got "v9", want one of the route's versions (v2)`},
		"another model": {encoded(t, other), `a route of model "other" under this name`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := storetest.StartRedis(t)
			a := startReplica(t, server.URL(), "")
			a.mustSet(storetest.Route("m", "v1"))
			a.mustSet(storetest.Route("n", "v1"))
			server.Do("HSET", "{sluice}:routes", "m", value.entry)
			server.Do("DEL", "{sluice}:changes") // so that the next change makes it load everything
			b := startReplica(t, server.URL(), "")
			b.awaitProblem(value.problem)
			b.await("n", "v1 at 2")
			if got := b.serving("m"); got != "nothing at 2" {
				t.Errorf("a new replica serves %s, want nothing", got)
			}
			if got := a.serving("m"); got != "v1 at 2" {
				t.Errorf("serving %s, want v1 at 2", got)
			}
			if refused := b.Status().Refused; len(refused) != 1 || refused[0].Model != "m" {
				t.Errorf("refused are %v, want m", refused)
			}
			b.mustSet(storetest.Route("m", "v3"))
			a.await("m", "v3 at 3")
			b.awaitWell()
		})
	}
}

// TestBadChangeIsRefusedWhole: what a newer version of the program may write is
// not served by half, whoever sees it how: as a change, as a whole state while other
// routes are served, or as the first thing ever.
func TestBadChangeIsRefusedWhole(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	cache := filepath.Join(t.TempDir(), "cache")
	old := startReplica(t, server.URL(), cache)
	first, err := old.Update(t.Context(), &routing.Update{Actor: "operator", Set: []*routingv1.Route{
		storetest.Route("m", "v1"), storetest.Route("gone", "v1"), storetest.Route("n", "v1"), storetest.Route("other", "v1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	old.stop()
	a := startReplica(t, server.URL(), "")
	bad := storetest.Route("n", "v2")
	bad.Versions[0].Endpoints = []string{"nowhere"}
	c := &routingv1.Change{
		Revision: 2, Id: strings.Repeat("a", 32), Epoch: 1, PredecessorRevision: 1, PredecessorId: first.GetId(), Actor: "newer",
		Routes: []*routingv1.RouteChange{
			{Model: "gone", Before: storetest.Route("gone", "v1")},
			{Model: "m", Before: storetest.Route("m", "v1"), After: storetest.Route("m", "v2")},
			{Model: "n", Before: storetest.Route("n", "v1"), After: bad},
			{Model: "new", After: storetest.Route("new", "v2")},
		},
	}
	b, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	set := []string{"HSET", "{sluice}:routes"}
	for _, r := range c.GetRoutes() {
		entry, err := proto.Marshal(routing.EntryAfter(c, r))
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, r.GetModel(), string(entry))
	}
	server.Do(set...)
	server.Do("HSET", "{sluice}:head", "revision", "2", "id", c.GetId(), "entries", "5")
	server.Do("XADD", "{sluice}:changes", "2-0", "change", string(b))

	fresh := startReplica(t, server.URL(), "")
	slept := startReplica(t, server.URL(), cache)
	for name, r := range map[string]*replica{"a follower": a, "one that is new": fresh, "one that has slept": slept} {
		r.awaitProblem(`endpoints[0]: got "nowhere", want host:port`)
		for model, want := range map[string]string{"m": "v1", "n": "v1", "gone": "v1", "new": "nothing", "other": "v1"} {
			if got := r.serving(model); got != want+" at 2" {
				t.Errorf("%s serves %s: %s, want the last good one, %s, at 2", name, model, got, want)
			}
		}
		if refused := r.Status().Refused; len(refused) != 4 {
			t.Errorf("%s refuses %v, want the change's four routes", name, refused)
		}
	}
	back := a.mustSet(storetest.Route("m", "v3"))
	for _, r := range []*replica{a, fresh, slept} {
		r.await("m", fmt.Sprint("v3 at ", back.GetRevision()))
		if refused := r.Status().Refused; len(refused) != 3 {
			t.Errorf("refused are %v, want all of the change but m", refused)
		}
	}
}

// TestWrongTypesChangeNothing: half a transaction must not succeed.
func TestWrongTypesChangeNothing(t *testing.T) {
	server := storetest.StartRedis(t)
	for _, key := range []string{"head", "routes", "changes"} {
		server.Do("FLUSHALL")
		s := open(t, server.URL())
		if key != "head" {
			storetest.Set(t, s, storetest.Route("m", "v1"))
		}
		before := server.Do("HGET", "{sluice}:head", "revision")
		server.Do("SET", "{sluice}:"+key, "something")
		_, err := s.Update(t.Context(), &routing.Update{Expected: 1, Set: []*routingv1.Route{storetest.Route("m", "v2")}, Actor: "x"})
		var refused *routing.RefusedError
		if !errors.As(err, &refused) || refused.Reason != "WRONGTYPE" {
			t.Errorf("%s: Update = %v, want WRONGTYPE", key, err)
		}
		if key == "head" {
			continue
		}
		if after := server.Do("HGET", "{sluice}:head", "revision"); after != before {
			t.Errorf("%s: the head went from %s to %s", key, before, after)
		}
	}
}

// TestForeignStreamEntries: an id of Redis's own making is above all revisions.
func TestForeignStreamEntries(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplica(t, server.URL(), "")
	a.mustSet(storetest.Route("m", "v1"))
	server.Do("XADD", "{sluice}:changes", "*", "what", "ever")
	_, err := a.set(storetest.Route("m", "v2"))
	var refused *routing.RefusedError
	if !errors.As(err, &refused) || refused.Reason != "DAMAGED" || !strings.Contains(err.Error(), "{sluice}:changes") {
		t.Errorf("Update = %v, want the key named", err)
	}
	if got := a.serving("m"); got != "v1 at 1" {
		t.Errorf("serving %s, want v1 at 1", got)
	}
	server.Do("DEL", "{sluice}:changes")
	a.mustSet(storetest.Route("m", "v2"))
	a.awaitWell()
}

// TestSmallOutputBuffers has a Redis that closes connections whose answer is
// large: whole states come in pages, large changes compressed, and many changes
// one by one. Its limit is low so that all of these happen within seconds.
func TestSmallOutputBuffers(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t, "--client-output-buffer-limit", "normal 256kb 0 0")
	a, b := startReplica(t, server.URL(), ""), startReplica(t, server.URL(), "")
	var routes []*routingv1.Route
	for i := range 1000 { // more than the limit in all, and soon sent
		r := storetest.Route(fmt.Sprint("model-", i), "v1")
		r.Versions[0].Provenance = &routingv1.Provenance{Artifact: strings.Repeat("x", 250)}
		routes = append(routes, r)
	}
	c, err := a.Update(t.Context(), &routing.Update{Set: routes, Actor: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*replica{a, b, startReplica(t, server.URL(), "")} {
		r.await("model-999", fmt.Sprint("v1 at ", c.GetRevision()))
	}
	b.stop()
	for i := range 30 { // each about 14 KB, and documents that differ in size
		next := make([]*routingv1.Route, 20)
		for j := range next {
			next[j] = proto.CloneOf(routes[20*i+j])
			next[j].IgnoreModelVersion = true
		}
		if c, err = a.Update(t.Context(), &routing.Update{Expected: c.GetRevision(), Set: next, Actor: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	at := storetest.Load(t, b.store)
	if changes := storetest.History(t, b.store, routing.HistoryQuery{From: 2}); len(changes) != 30 || at.Revision != 31 {
		t.Errorf("%d changes up to revision %d, want 30 up to 31", len(changes), at.Revision)
	}
	b = startReplica(t, server.URL(), "")
	c = a.mustSet(storetest.Route("model-0", "v2"))
	b.await("model-0", fmt.Sprint("v2 at ", c.GetRevision()))
	if n := b.Status().Models; n != 1000 {
		t.Errorf("%d models, want 1000", n)
	}
}

// TestOutputBufferOf32MB loads a state of which a page alone is more than the 32 MB after
// which Redis closes the connection: it is asked for in smaller pieces.
func TestOutputBufferOf32MB(t *testing.T) {
	t.Parallel()
	const models = 100
	server := storetest.StartRedis(t, "--client-output-buffer-limit", "normal 32mb 0 0")
	store := open(t, server.URL())
	var revision uint64
	for i := range models {
		c := storetest.Update(t, store, &routing.Update{
			Expected: revision, Actor: "x", Set: []*routingv1.Route{largeOf(fmt.Sprint("model-", i), 1000, 4)},
		})
		revision = c.GetRevision()
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	if page, _, err := client.HScan(t.Context(), "{sluice}:routes", 0, "", 100).Result(); err == nil {
		t.Fatalf("a page of %d entries came whole, which shows nothing", len(page)/2)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if state := storetest.Load(t, open(t, server.URL())); len(state.Routes) != models || state.Revision != revision {
		t.Errorf("%d models at revision %d, want %d at %d", len(state.Routes), state.Revision, models, revision)
	}
}

// large returns a route of about 30 KB.
func large(model string) *routingv1.Route { return largeOf(model, 250, 1) }

// largeOf returns a route whose two versions have n endpoints each, with names of some
// labels of 40 bytes.
func largeOf(model string, n, labels int) *routingv1.Route {
	r := storetest.Route(model, "v1", "v2")
	for _, v := range r.GetVersions() {
		v.Endpoints = nil
		for i := range n {
			v.Endpoints = append(v.Endpoints, fmt.Sprintf("%s%04d.example.org:8001", strings.Repeat(strings.Repeat("x", 40)+".", labels), i))
		}
	}
	return r
}

// TestAnswersThatAreAlwaysCut: Redis cannot send what is stored, not even piece by
// piece. What is served stays, and the status says what to look at.
func TestAnswersThatAreAlwaysCut(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplica(t, server.URL(), "")
	c := a.mustSet(large("m"))
	server.Do("CONFIG", "SET", "client-output-buffer-limit", "normal 1 0 0")
	server.Do("DEL", "{sluice}:changes") // what is new has to be loaded
	server.Do("HSET", "{sluice}:head", "id", "another")
	a.awaitProblem("client-output-buffer-limit may be too small")
	if got, want := a.serving("m"), fmt.Sprint("v1,v2 at ", c.GetRevision()); got != want {
		t.Errorf("serving %s, want %s", got, want)
	}
	if n := a.Status().Counts.Errors[routing.StoreError{Op: routing.OpFollow, Reason: routing.ReasonUnavailable}]; n == 0 {
		t.Error("no failure is counted")
	}
}
