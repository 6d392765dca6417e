package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// naive is what a store is to its users: a revision, routes and the keys of
// requests that were made.
type naive struct {
	revision uint64
	routes   map[string]*routingv1.Route // nil for a tombstone
	made     map[string]uint64           // revision by request key; 0 if there was nothing to change
}

// update does what an update has to do, and returns the revision it leads to. Of
// the errors, it says which kind it is.
func (m *naive) update(u *routing.Update) (revision uint64, kind error) {
	if r, ok := m.made[u.RequestKey]; ok && u.RequestKey != "" {
		if r == 0 {
			return 0, routing.ErrUnchanged
		}
		return r, nil
	}
	if u.Expected != m.revision {
		return 0, &routing.ConflictError{Expected: u.Expected, Current: m.revision}
	}
	next := maps.Clone(m.routes)
	changed := false
	for _, r := range u.Set {
		changed = changed || !proto.Equal(next[r.GetModel()], r)
		next[r.GetModel()] = r
	}
	for _, name := range u.Delete {
		r, known := next[name]
		changed = changed || !known || r != nil
		next[name] = nil
	}
	if !changed {
		if u.RequestKey != "" {
			m.made[u.RequestKey] = 0
		}
		return 0, routing.ErrUnchanged
	}
	m.routes = next
	m.revision++
	if u.RequestKey != "" {
		m.made[u.RequestKey] = m.revision
	}
	return m.revision, nil
}

// model compares a store with the naive one over random updates, of which many
// expect another revision, repeat a request or change nothing.
func model(t *testing.T, s routing.Store) {
	m := &naive{routes: map[string]*routingv1.Route{}, made: map[string]uint64{}}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 6).Draw(rt, "updates") {
			u := drawUpdate(rt, m.revision)
			want, kind := m.update(u)
			c, err := s.Update(t.Context(), u)
			var conflict, wantConflict *routing.ConflictError
			switch {
			case errors.As(kind, &wantConflict):
				if !errors.As(err, &conflict) || *conflict != *wantConflict {
					rt.Fatalf("Update(%+v) = %v, %v, want %v", u, c, err, kind)
				}
			case kind != nil:
				if !errors.Is(err, kind) {
					rt.Fatalf("Update(%+v) = %v, %v, want %v", u, c, err, kind)
				}
			case err != nil || c.GetRevision() != want:
				rt.Fatalf("Update(%+v) = %v, %v, want revision %d", u, c, err, want)
			}
		}
		state, err := s.Load(t.Context())
		if err != nil || state.Revision != m.revision || len(state.Routes) != len(m.routes) {
			rt.Fatalf("Load = %+v, %v, want revision %d with %d entries", state, err, m.revision, len(m.routes))
		}
		for name, want := range m.routes {
			if entry, ok := state.Routes[name]; !ok || !proto.Equal(entry.GetRoute(), want) {
				rt.Fatalf("entry of %s is %v, want %v", name, entry, want)
			}
		}
	})
}

// drawUpdate draws one that is valid; the revision is the store's.
func drawUpdate(rt *rapid.T, revision uint64) *routing.Update {
	u := &routing.Update{Expected: revision, Actor: "x"}
	if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
		u.Expected = rapid.Uint64Range(0, revision+2).Draw(rt, "expected")
	}
	if rapid.Bool().Draw(rt, "keyed") {
		u.RequestKey = fmt.Sprint("key-", rapid.IntRange(0, 50).Draw(rt, "key"))
	}
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 3, rapid.ID).Draw(rt, "models")
	for _, name := range slices.Sorted(slices.Values(names)) {
		if rapid.IntRange(0, 2).Draw(rt, "deleted") == 0 {
			u.Delete = append(u.Delete, name)
			continue
		}
		u.Set = append(u.Set, Route(name, fmt.Sprint("v", rapid.IntRange(0, 2).Draw(rt, "version"))))
	}
	return u
}
