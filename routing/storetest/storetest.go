// Package storetest checks that a [routing.Store] keeps its promises. It is for
// tests, of stores and of what stands on them.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Route returns a valid document whose versions share the calls evenly.
func Route(model string, versions ...string) *routingv1.Route {
	r := &routingv1.Route{Model: model, Weights: map[string]uint32{}}
	for i, v := range versions {
		r.Versions = append(r.Versions, &routingv1.Version{Name: v, Endpoints: []string{fmt.Sprintf("127.0.0.1:%d", 1+i)}})
		r.Weights[v] = 1
	}
	return r
}

// Run checks one implementation. open returns a new store that is empty, and
// closes it with the test.
func Run(t *testing.T, open func(t *testing.T) routing.Store) {
	for name, check := range map[string]func(*testing.T, routing.Store){
		"EmptyStoreIsAtRevisionZero":      emptyStore,
		"ChangesFormOneChain":             chain,
		"OldRevisionIsAConflict":          conflict,
		"SeveralRoutesAreOneChange":       several,
		"DeletingLeavesATombstone":        tombstone,
		"NothingToChangeIsNoChange":       unchanged,
		"BadDocumentsAreRefused":          refused,
		"ServicesBelongToOneRoute":        services,
		"RequestKeyMakesRepeatingNothing": requestKey,
		"RequestKeyRemembersNothingMade":  requestWithoutChange,
		"RequestKeyIsForOneRequest":       requestDigest,
		"HistorySelects":                  history,
		"HistoryIsBoundedInBytes":         historyBounds,
		"WatchDeliversInOrder":            watch,
		"WatchStartsAnywhere":             watchFrom,
		"WatchTellsOfGaps":                gap,
		"WatchEndsWithItsContext":         watchEnds,
		"NewEpochIsAboveAllSeen":          newEpoch,
		"NothingGivenIsKept":              copies,
		"OneOfManyWritersWins":            race,
		"LoadIsWholeWhileOthersWrite":     wholeLoads,
		"WhateverPeopleWriteComesBack":    words,
		"AnySequenceMatchesTheModel":      model,
		"NamesItselfAndItsHealth":         health,
		"ShelvesKeepValues":               shelves,
		"ShelvesSwapOnce":                 shelfRace,
	} {
		t.Run(name, func(t *testing.T) { check(t, open(t)) })
	}
}

// Update makes a change that has to succeed.
func Update(t testing.TB, s routing.Store, u *routing.Update) *routingv1.Change {
	t.Helper()
	if u.Actor == "" {
		u.Actor = "test"
	}
	c, err := s.Update(t.Context(), u)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	return c
}

// Set makes a change of one route to the store as it is.
func Set(t testing.TB, s routing.Store, r *routingv1.Route) *routingv1.Change {
	t.Helper()
	return Update(t, s, &routing.Update{Expected: Load(t, s).Revision, Set: []*routingv1.Route{r}})
}

// Load returns the state, which has to be readable.
func Load(t testing.TB, s routing.Store) *routing.State {
	t.Helper()
	state, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return state
}

// History returns what a query selects, which has to succeed.
func History(t testing.TB, s routing.Store, q routing.HistoryQuery) []*routingv1.Change {
	t.Helper()
	changes, err := s.History(t.Context(), q)
	if err != nil {
		t.Fatalf("History(%+v): %v", q, err)
	}
	return changes
}

// Eventually fails the test unless something becomes true within ten seconds.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func revisions(changes []*routingv1.Change) []uint64 {
	var all []uint64
	for _, c := range changes {
		all = append(all, c.GetRevision())
	}
	return all
}

func checkRoute(t *testing.T, s *routing.State, model string, want *routingv1.Route) {
	t.Helper()
	if got := s.Routes[model].GetRoute(); !proto.Equal(got, want) {
		t.Errorf("route of %s is %v, want %v", model, got, want)
	}
}

func emptyStore(t *testing.T, s routing.Store) {
	state := Load(t, s)
	if state.Position != (routing.Position{}) || len(state.Routes) != 0 {
		t.Errorf("Load = %+v, want nothing at revision 0", state)
	}
	if changes := History(t, s, routing.HistoryQuery{}); len(changes) != 0 {
		t.Errorf("History = %v, want none", changes)
	}
}

func chain(t *testing.T, s routing.Store) {
	before := routing.Position{}
	ids := map[string]bool{}
	begun := time.Now().Add(-time.Second)
	for i := range 5 {
		c := Update(t, s, &routing.Update{
			Expected: before.Revision, ExpectedID: before.ID, Set: []*routingv1.Route{Route("m", fmt.Sprint("v", i))},
			Actor: "alice", Reason: fmt.Sprint("step ", i), Forced: i == 3,
		})
		if c.GetRevision() != before.Revision+1 || c.GetPredecessorRevision() != before.Revision || c.GetPredecessorId() != before.ID || c.GetEpoch() != 1 {
			t.Errorf("change %v does not follow %+v", c, before)
		}
		if len(c.GetId()) != 32 || ids[c.GetId()] {
			t.Errorf("id %q, want 32 hexadecimal digits, never twice", c.GetId())
		}
		ids[c.GetId()] = true
		if c.GetActor() != "alice" || c.GetReason() != fmt.Sprint("step ", i) || c.GetForced() != (i == 3) {
			t.Errorf("change %v, want what was said about it", c)
		}
		if at := c.GetTime().AsTime(); at.Before(begun) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("time %v, want now", at)
		}
		before = routing.PositionAfter(c)
		state := Load(t, s)
		if state.Position != before || !state.Time.Equal(c.GetTime().AsTime()) {
			t.Errorf("Load is at %+v of %v, want %+v of %v", state.Position, state.Time, before, c.GetTime().AsTime())
		}
		if entry := state.Routes["m"]; entry.GetRevision() != c.GetRevision() {
			t.Errorf("entry of revision %d, want %d", entry.GetRevision(), c.GetRevision())
		}
		checkRoute(t, state, "m", Route("m", fmt.Sprint("v", i)))
	}
}

func conflict(t *testing.T, s routing.Store) {
	first := Set(t, s, Route("m", "v1"))
	Set(t, s, Route("m", "v2"))
	for _, u := range []*routing.Update{
		{Expected: 0}, {Expected: 1}, {Expected: 3}, {Expected: 2, ExpectedID: first.GetId()},
	} {
		u.Actor, u.Set = "bob", []*routingv1.Route{Route("m", "v3")}
		_, err := s.Update(t.Context(), u)
		var conflict *routing.ConflictError
		if !errors.As(err, &conflict) || conflict.Current != 2 || conflict.Expected != u.Expected {
			t.Errorf("Update for revision %d %s = %v, want a conflict with 2", u.Expected, u.ExpectedID, err)
		}
	}
	state := Load(t, s)
	if state.Revision != 2 {
		t.Errorf("revision %d after conflicts, want 2", state.Revision)
	}
	checkRoute(t, state, "m", Route("m", "v2"))
}

func several(t *testing.T, s routing.Store) {
	Update(t, s, &routing.Update{Set: []*routingv1.Route{Route("c", "v1"), Route("a", "v1"), Route("b", "v1")}})
	c := Update(t, s, &routing.Update{
		Expected: 1, Set: []*routingv1.Route{Route("d", "v1"), Route("b", "v2"), Route("c", "v1")}, Delete: []string{"a"},
	})
	want := []*routingv1.RouteChange{
		{Model: "a", Before: Route("a", "v1")},
		{Model: "b", Before: Route("b", "v1"), After: Route("b", "v2")},
		{Model: "d", After: Route("d", "v1")},
	}
	if !slices.EqualFunc(c.GetRoutes(), want, func(a, b *routingv1.RouteChange) bool { return proto.Equal(a, b) }) {
		t.Errorf("change of %v, want %v", c.GetRoutes(), want)
	}
	state := Load(t, s)
	for model, want := range map[string]*routingv1.Route{"a": nil, "b": Route("b", "v2"), "c": Route("c", "v1"), "d": Route("d", "v1")} {
		checkRoute(t, state, model, want)
	}
	doc := state.Document()
	if len(doc.GetRoutes()) != 3 || doc.GetRoutes()[0].GetModel() != "b" {
		t.Errorf("Document = %v, want b, c and d", doc)
	}
}

func tombstone(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	c := Update(t, s, &routing.Update{Expected: 1, Delete: []string{"m", "never"}})
	if len(c.GetRoutes()) != 2 || c.GetRoutes()[0].GetAfter() != nil || c.GetRoutes()[0].GetBefore() == nil {
		t.Errorf("change of %v, want m gone and a tombstone for a model without a route", c.GetRoutes())
	}
	state := Load(t, s)
	for _, model := range []string{"m", "never"} {
		if entry, ok := state.Routes[model]; !ok || entry.GetRoute() != nil || entry.GetRevision() != 2 {
			t.Errorf("entry of %s is %v, want a tombstone of revision 2", model, entry)
		}
	}
	back := Set(t, s, Route("m", "v2"))
	if r := back.GetRoutes()[0]; r.GetBefore() != nil || r.GetAfter() == nil {
		t.Errorf("change of %v, want m made anew", r)
	}
}

func unchanged(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	Update(t, s, &routing.Update{Expected: 1, Delete: []string{"gone"}})
	for _, u := range []*routing.Update{
		{Set: []*routingv1.Route{Route("m", "v1")}},
		{Delete: []string{"gone"}},
		{},
	} {
		u.Expected, u.Actor = 2, "test"
		if _, err := s.Update(t.Context(), u); !errors.Is(err, routing.ErrUnchanged) {
			t.Errorf("Update(%+v) = %v, want ErrUnchanged", u, err)
		}
	}
	if state := Load(t, s); state.Revision != 2 {
		t.Errorf("revision %d, want 2", state.Revision)
	}
}

func refused(t *testing.T, s routing.Store) {
	good := Set(t, s, Route("m", "v1"))
	bad := Route("m", "v2")
	bad.Weights["v9"] = 1
	for want, u := range map[string]*routing.Update{
		`routes[1].weights.v9: got "v9", want one of the route's versions (v2)`: {Actor: "x", Set: []*routingv1.Route{Route("n", "v1"), bad}},
		`actor: got nothing, want 1 to 128 bytes`:                               {Set: []*routingv1.Route{Route("n", "v1")}},
		`actor: got "a\nb", want`:                                               {Actor: "a\nb", Set: []*routingv1.Route{Route("n", "v1")}},
		`reason: got`:                                                           {Actor: "x", Reason: strings.Repeat("r", routing.MaxReason+1), Set: []*routingv1.Route{Route("n", "v1")}},
		`request_key: got`:                                                      {Actor: "x", RequestKey: strings.Repeat("k", routing.MaxRequestKey+1), Set: []*routingv1.Route{Route("n", "v1")}},
		`delete[0]: got "n", want a model that is named once`:                   {Actor: "x", Set: []*routingv1.Route{Route("n", "v1")}, Delete: []string{"n"}},
		`delete[0]: got nothing, want a model`:                                  {Actor: "x", Delete: []string{""}},
	} {
		u.Expected = 1
		_, err := s.Update(t.Context(), u)
		var field *routing.FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), want) {
			t.Errorf("Update = %v, want %s", err, want)
		}
	}
	state := Load(t, s)
	if state.Position != routing.PositionAfter(good) || len(state.Routes) != 1 {
		t.Errorf("%+v after refusals, want it untouched", state)
	}
}

func services(t *testing.T, s routing.Store) {
	a, b := Route("a", "v1"), Route("b", "v1")
	a.Services = []string{"pkg.A", "pkg.B"}
	Set(t, s, a)
	b.Services = []string{"pkg.C", "pkg.B"}
	_, err := s.Update(t.Context(), &routing.Update{Expected: 1, Actor: "x", Set: []*routingv1.Route{b}})
	want := `routes[0].services[1]: got "pkg.B", want a service that is listed once: it belongs to the route of model "a" already`
	if err == nil || err.Error() != want {
		t.Errorf("Update = %v, want %s", err, want)
	}
	a = proto.CloneOf(a)
	a.Services = []string{"pkg.A"}
	Update(t, s, &routing.Update{Expected: 1, Set: []*routingv1.Route{b, a}}) // handed over in one change
	c := Route("c", "v1")
	c.Services = []string{"pkg.C"}
	Update(t, s, &routing.Update{Expected: 2, Set: []*routingv1.Route{c}, Delete: []string{"b"}})
}

func requestKey(t *testing.T, s routing.Store) {
	u := &routing.Update{Set: []*routingv1.Route{Route("m", "v1")}, Actor: "x", RequestKey: "key 1/ä"}
	made := Update(t, s, u)
	Set(t, s, Route("m", "v2"))
	for range 2 {
		if again := Update(t, s, u); !proto.Equal(again, made) {
			t.Errorf("repeated: %v, want %v", again, made)
		}
	}
	other := Update(t, s, &routing.Update{Expected: 2, Set: []*routingv1.Route{Route("m", "v3")}, RequestKey: "key 2"})
	if other.GetRevision() != 3 {
		t.Errorf("another key: revision %d, want 3", other.GetRevision())
	}
	checkRoute(t, Load(t, s), "m", Route("m", "v3"))
}

// requestWithoutChange repeats a request that had nothing to change, when it would have.
func requestWithoutChange(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	u := &routing.Update{Expected: 1, Set: []*routingv1.Route{Route("m", "v1")}, Actor: "x", RequestKey: "key"}
	if _, err := s.Update(t.Context(), u); !errors.Is(err, routing.ErrUnchanged) {
		t.Fatalf("Update = %v, want ErrUnchanged", err)
	}
	Set(t, s, Route("m", "v2"))
	u.Expected = 2
	if c, err := s.Update(t.Context(), u); !errors.Is(err, routing.ErrUnchanged) {
		t.Errorf("repeated: %v, %v, want ErrUnchanged: that was the answer", c, err)
	}
	checkRoute(t, Load(t, s), "m", Route("m", "v2"))
}

func requestDigest(t *testing.T, s routing.Store) {
	u := &routing.Update{Set: []*routingv1.Route{Route("m", "v1")}, Actor: "x", RequestKey: "key", RequestDigest: []byte("one")}
	made := Update(t, s, u)
	other := &routing.Update{Expected: 1, Set: []*routingv1.Route{Route("m", "v2")}, Actor: "x", RequestKey: "key", RequestDigest: []byte("two")}
	_, err := s.Update(t.Context(), other)
	var field *routing.FieldError
	if !errors.As(err, &field) || field.Field != "request_key" || !strings.Contains(field.Got, `"key"`) {
		t.Errorf("something else with the same key: %v, want request_key refused", err)
	}
	checkRoute(t, Load(t, s), "m", Route("m", "v1"))
	if again := Update(t, s, u); !proto.Equal(again, made) {
		t.Errorf("repeated: %v, want %v", again, made)
	}
}

// historyBounds asks for less of changes than there is.
func historyBounds(t *testing.T, s routing.Store) {
	const changes, routes = 30, 20
	for i := range changes {
		u := &routing.Update{Expected: uint64(i)}
		for n := range routes {
			u.Set = append(u.Set, Route(fmt.Sprintf("model-%02d", n), fmt.Sprint("v", i)))
		}
		Update(t, s, u)
	}
	size := proto.Size(History(t, s, routing.HistoryQuery{Limit: 1})[0])
	if got := len(History(t, s, routing.HistoryQuery{Bytes: 5*size - size/2})); got != 5 {
		t.Errorf("%d changes of %d bytes for a bound of 4.5 of them, want 5", got, size)
	}
	if got := len(History(t, s, routing.HistoryQuery{Bytes: 1})); got != 1 {
		t.Errorf("%d changes for a bound of 1 byte, want one", got)
	}
	found := History(t, s, routing.HistoryQuery{Model: "model-07", Documents: 2})
	if len(found) != changes {
		t.Fatalf("%d changes, want %d", len(found), changes)
	}
	var with []string
	for _, r := range found[3].GetRoutes() {
		if r.GetAfter() != nil {
			with = append(with, r.GetModel())
		}
	}
	if len(found[3].GetRoutes()) != routes || !slices.Equal(with, []string{"model-07", "model-00"}) {
		t.Errorf("documents of %q and %d routes, want those of model-07 and model-00 and all %d names", with, len(found[3].GetRoutes()), routes)
	}
	if whole := History(t, s, routing.HistoryQuery{Limit: 1})[0]; whole.GetRoutes()[routes-1].GetAfter() == nil {
		t.Error("a short answer has taken the documents out of the history")
	}
}

func history(t *testing.T, s routing.Store) {
	for i := range 6 {
		Set(t, s, Route([]string{"a", "b"}[i%2], fmt.Sprint("v", i)))
	}
	for _, test := range []struct {
		q    routing.HistoryQuery
		want []uint64
	}{
		{routing.HistoryQuery{}, []uint64{6, 5, 4, 3, 2, 1}},
		{routing.HistoryQuery{OldestFirst: true}, []uint64{1, 2, 3, 4, 5, 6}},
		{routing.HistoryQuery{Model: "a"}, []uint64{5, 3, 1}},
		{routing.HistoryQuery{Model: "b", Limit: 2}, []uint64{6, 4}},
		{routing.HistoryQuery{Model: "c"}, nil},
		{routing.HistoryQuery{From: 3, To: 5}, []uint64{5, 4, 3}},
		{routing.HistoryQuery{From: 5, OldestFirst: true, Limit: 1}, []uint64{5}},
		{routing.HistoryQuery{From: 7}, nil},
		{routing.HistoryQuery{To: 2}, []uint64{2, 1}},
	} {
		if got := revisions(History(t, s, test.q)); !slices.Equal(got, test.want) {
			t.Errorf("History(%+v) = %v, want %v", test.q, got, test.want)
		}
	}
	newest := History(t, s, routing.HistoryQuery{Limit: 1})[0]
	if r := newest.GetRoutes()[0]; !proto.Equal(r.GetBefore(), Route("b", "v3")) || !proto.Equal(r.GetAfter(), Route("b", "v5")) {
		t.Errorf("newest change is %v, want both documents", newest)
	}
}

// collector gathers what a Watch delivers.
type collector struct {
	mu      sync.Mutex
	changes []*routingv1.Change
}

func (c *collector) add(change *routingv1.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes = append(c.changes, change)
	return nil
}

func (c *collector) revisions() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return revisions(c.changes)
}

// follow watches until the test ends, and checks how that ends.
func follow(t *testing.T, s routing.Store, after routing.Position) *collector {
	t.Helper()
	c := new(collector)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, after, c.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v, want the context's error", err)
		}
	})
	return c
}

func watch(t *testing.T, s routing.Store) {
	var all []*collector
	for range 3 {
		all = append(all, follow(t, s, routing.Position{}))
	}
	var want []uint64
	for i := range 20 {
		Set(t, s, Route("m", fmt.Sprint("v", i)))
		want = append(want, uint64(i+1))
	}
	for _, c := range all {
		Eventually(t, "all changes delivered, in order", func() bool { return slices.Equal(c.revisions(), want) })
	}
	for i, made := range History(t, s, routing.HistoryQuery{OldestFirst: true}) {
		if !proto.Equal(all[0].changes[i], made) {
			t.Errorf("delivered %v, want %v", all[0].changes[i], made)
		}
	}
}

func watchFrom(t *testing.T, s routing.Store) {
	var at routing.Position
	for i := range 5 {
		c := Set(t, s, Route("m", fmt.Sprint("v", i)))
		if i == 2 {
			at = routing.PositionAfter(c)
		}
	}
	c := follow(t, s, at)
	Eventually(t, "changes made before", func() bool { return slices.Equal(c.revisions(), []uint64{4, 5}) })
	Set(t, s, Route("m", "v9"))
	Eventually(t, "changes made since", func() bool { return slices.Equal(c.revisions(), []uint64{4, 5, 6}) })
}

func gap(t *testing.T, s routing.Store) {
	c := Set(t, s, Route("m", "v1"))
	Set(t, s, Route("m", "v2"))
	for name, at := range map[string]routing.Position{
		"another history":   {Revision: 1, ID: strings.Repeat("0", 32), Epoch: 1},
		"above":             {Revision: 3, ID: c.GetId(), Epoch: 1},
		"the same number":   {Revision: 2, ID: c.GetId(), Epoch: 1},
		"far above":         {Revision: 1000, ID: c.GetId(), Epoch: 1},
		"number without id": {Revision: 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := s.Watch(ctx, at, func(c *routingv1.Change) error {
			t.Errorf("%s: delivered %v", name, c)
			return nil
		})
		if !errors.Is(err, routing.ErrGap) {
			t.Errorf("%s: Watch = %v, want ErrGap", name, err)
		}
		cancel()
	}
}

func watchEnds(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	enough := errors.New("enough")
	if err := s.Watch(t.Context(), routing.Position{}, func(*routingv1.Change) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Watch = %v, want the error of deliver", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := s.Watch(ctx, Load(t, s).Position, func(*routingv1.Change) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 3*time.Second {
		t.Errorf("Watch = %v after %v, want the context's error soon", err, time.Since(begun))
	}
}

func newEpoch(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	at := Load(t, s)
	lost := []*routingv1.LostChange{{Revision: 2, Id: "lost", Actor: "bob", Models: []string{"m"}}}
	c := Update(t, s, &routing.Update{
		Expected: 1, ExpectedID: at.ID, Actor: routing.ActorFailover,
		NewEpoch: &routing.NewEpoch{Above: routing.Position{Revision: 7, Epoch: 2}, Lost: lost},
	})
	if c.GetRevision() != 8 || c.GetEpoch() != 3 || c.GetPredecessorRevision() != 1 || !proto.Equal(c.GetLost()[0], lost[0]) {
		t.Errorf("new epoch is %v, want revision 8 of epoch 3 after 1", c)
	}
	if next := Set(t, s, Route("m", "v2")); next.GetRevision() != 9 || next.GetEpoch() != 3 {
		t.Errorf("next change is %v, want revision 9 of epoch 3", next)
	}
	follower := follow(t, s, at.Position)
	Eventually(t, "the epoch followed", func() bool { return slices.Equal(follower.revisions(), []uint64{8, 9}) })
	if got := revisions(History(t, s, routing.HistoryQuery{From: 2, To: 8})); !slices.Equal(got, []uint64{8}) {
		t.Errorf("history from 2 to 8 is %v, want 8", got)
	}
}

func copies(t *testing.T, s routing.Store) {
	r := Route("m", "v1")
	Set(t, s, r)
	r.Versions[0].Name = "altered"
	first := Load(t, s)
	checkRoute(t, first, "m", Route("m", "v1"))
	Set(t, s, Route("n", "v1"))
	if first.Revision != 1 || len(first.Routes) != 1 {
		t.Errorf("a loaded state became %+v", first)
	}
}

func race(t *testing.T, s routing.Store) {
	const writers, rounds = 4, 5
	for round := range uint64(rounds) {
		var group sync.WaitGroup
		results := make([]error, writers)
		for i := range writers {
			group.Go(func() {
				_, results[i] = s.Update(t.Context(), &routing.Update{
					Expected: round, Set: []*routingv1.Route{Route("m", fmt.Sprintf("v%d-%d", round, i))}, Actor: fmt.Sprint(i),
				})
			})
		}
		group.Wait()
		won := 0
		for i, err := range results {
			var conflict *routing.ConflictError
			switch {
			case err == nil:
				won++
				checkRoute(t, Load(t, s), "m", Route("m", fmt.Sprintf("v%d-%d", round, i)))
			case !errors.As(err, &conflict) || conflict.Current != round+1:
				t.Errorf("round %d: %v, want a conflict with %d", round, err, round+1)
			}
		}
		if won != 1 {
			t.Errorf("round %d: %d writers won, want one", round, won)
		}
	}
}

// wholeLoads has every change touch two routes alike, and looks for states in
// which they differ.
func wholeLoads(t *testing.T, s routing.Store) {
	const changes = 50
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint64(changes) {
			name := fmt.Sprint("v", i)
			_, err := s.Update(t.Context(), &routing.Update{
				Expected: i, Actor: "x", Set: []*routingv1.Route{Route("a", name), Route("b", name)},
			})
			if err != nil {
				t.Errorf("Update: %v", err)
				return
			}
		}
	}()
	last := uint64(0)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		state := Load(t, s)
		if state.Revision < last {
			t.Errorf("Load went back from revision %d to %d", last, state.Revision)
		}
		last = state.Revision
		if last == 0 {
			continue
		}
		want := fmt.Sprint("v", last-1)
		checkRoute(t, state, "a", Route("a", want))
		checkRoute(t, state, "b", Route("b", want))
	}
	if last != changes {
		t.Errorf("ended at revision %d, want %d", last, changes)
	}
}

func words(t *testing.T, s routing.Store) {
	u := &routing.Update{
		Set:   []*routingv1.Route{Route("team/model:1{x}*", "v1", "v-2_3.4")},
		Actor: "Ørjan <o@example.org>", Reason: `"quoted" 日本語 '%s' $1 {tag}`, RequestKey: "a:b*{c}",
	}
	made := Update(t, s, u)
	if got := History(t, s, routing.HistoryQuery{})[0]; !proto.Equal(got, made) || got.GetReason() != u.Reason || got.GetActor() != u.Actor {
		t.Errorf("history has %v, want %v", got, made)
	}
	checkRoute(t, Load(t, s), u.Set[0].GetModel(), u.Set[0])
}

func health(t *testing.T, s routing.Store) {
	Set(t, s, Route("m", "v1"))
	if h := s.Health(); h.Err != nil || h.WriteErr != nil || h.Since.IsZero() || time.Since(h.Answered) > time.Minute {
		t.Errorf("Health = %+v, want it well", h)
	}
	if s.String() == "" {
		t.Error("the store has no name")
	}
}
