package routing

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Bounds of what people write into a change, in bytes.
const (
	MaxActor      = 128
	MaxReason     = 1024
	MaxRequestKey = 128
)

// Validate checks all of an update that does not depend on the state it is made
// to. Stores call it first, outside of any lock or transaction, for it takes time
// with many routes. Errors are [*FieldError]s joined by [errors.Join] that name
// the routes as routes[i], in the order of Set.
func (u *Update) Validate() error {
	problems, err := check(&routingv1.Document{Routes: u.Set})
	if err != nil {
		return err
	}
	return join(slices.Concat(problems, u.checkWords(), u.checkDeletes()), nil)
}

// Prepare returns the change that a valid update makes to a state at a time.
// Stores call it inside their transaction, and have looked for the request key before.
// The state needs to hold the entries of the update's models, and all entries if
// [Update.ConcernsOthers]. Neither state nor update are kept or altered.
//
// Errors are a [*ConflictError], [ErrUnchanged], or [*FieldError]s as of
// [Update.Validate].
func (u *Update) Prepare(at *State, now time.Time) (*routingv1.Change, error) {
	if u.Expected != at.Revision || u.ExpectedID != "" && u.ExpectedID != at.ID {
		return nil, &ConflictError{Expected: u.Expected, Current: at.Revision}
	}
	if u.ConcernsOthers(at) {
		if err := join(u.checkServices(at), nil); err != nil {
			return nil, err
		}
	}
	routes := u.routeChanges(at)
	if len(routes) == 0 && u.NewEpoch == nil {
		return nil, ErrUnchanged
	}
	c := &routingv1.Change{
		Revision:            at.Revision + 1,
		Id:                  newChangeID(),
		Epoch:               max(at.Epoch, 1),
		PredecessorRevision: at.Revision,
		PredecessorId:       at.ID,
		Time:                timestamppb.New(now),
		Actor:               u.Actor,
		Reason:              u.Reason,
		Forced:              u.Forced,
		Rollback:            u.Rollback,
		RequestKey:          u.RequestKey,
		Routes:              routes,
	}
	if e := u.NewEpoch; e != nil {
		c.Revision = max(at.Revision, e.Above.Revision) + 1
		c.Epoch = max(at.Epoch, e.Above.Epoch) + 1
		c.Lost = e.Lost
	}
	return c, nil
}

// ConcernsOthers reports whether the update can only be judged against all
// routes of a state: it lists services that its routes did not list before, and
// a service belongs to one route.
func (u *Update) ConcernsOthers(at *State) bool {
	for _, r := range u.Set {
		before := at.Routes[r.GetModel()].GetRoute().GetServices()
		for _, s := range r.GetServices() {
			if !slices.Contains(before, s) {
				return true
			}
		}
	}
	return false
}

// checkWords looks at what people wrote about the change.
func (u *Update) checkWords() []problem {
	var r rules
	for _, w := range []struct {
		name, value string
		least, most int
	}{
		{"actor", u.Actor, 1, MaxActor},
		{"reason", u.Reason, 0, MaxReason},
		{"request_key", u.RequestKey, 0, MaxRequestKey},
	} {
		if len(w.value) < w.least || len(w.value) > w.most || strings.ContainsFunc(w.value, unicode.IsControl) {
			got := quote(w.value)
			if w.value == "" {
				got = "nothing"
			}
			r.report(path{}.field(w.name), got, "%d to %d bytes of text without control characters", w.least, w.most)
		}
	}
	return r.problems
}

func (u *Update) checkDeletes() []problem {
	var r rules
	seen := owners{}
	for i, rt := range u.Set {
		seen[rt.GetModel()] = path{}.field("routes").index(i)
	}
	for i, model := range u.Delete {
		at := path{}.field("delete").index(i)
		if model == "" {
			r.report(at, "nothing", "a model")
			continue
		}
		r.distinct(seen, at, model, "a model that is named once")
	}
	return r.problems
}

// checkServices looks for services that a route of the state has already.
func (u *Update) checkServices(at *State) []problem {
	touched := make(map[string]bool, len(u.Set)+len(u.Delete))
	for _, r := range u.Set {
		touched[r.GetModel()] = true
	}
	for _, model := range u.Delete {
		touched[model] = true
	}
	owner := make(map[string]string)
	for model, entry := range at.Routes {
		if touched[model] {
			continue
		}
		for _, s := range entry.GetRoute().GetServices() {
			owner[s] = model
		}
	}
	var r rules
	for i, rt := range u.Set {
		for j, s := range rt.GetServices() {
			if model, ok := owner[s]; ok {
				r.report(path{}.field("routes").index(i).field("services").index(j), quote(s),
					"a service that is listed once: it belongs to the route of model %s already", quote(model))
			}
		}
	}
	return r.problems
}

// routeChanges returns what differs, in the order of the models' names.
func (u *Update) routeChanges(at *State) []*routingv1.RouteChange {
	changes := make(map[string]*routingv1.RouteChange, len(u.Set)+len(u.Delete))
	for _, r := range u.Set {
		entry := at.Routes[r.GetModel()]
		if proto.Equal(entry.GetRoute(), r) {
			continue
		}
		c := &routingv1.RouteChange{Model: r.GetModel(), Before: entry.GetRoute(), After: proto.CloneOf(r)}
		if u.Restore && entry == nil {
			c.Before = c.GetAfter()
		}
		changes[r.GetModel()] = c
	}
	for _, model := range u.Delete {
		entry := at.Routes[model]
		if entry == nil || entry.GetRoute() != nil {
			changes[model] = &routingv1.RouteChange{Model: model, Before: entry.GetRoute()}
		}
	}
	sorted := make([]*routingv1.RouteChange, 0, len(changes))
	for _, model := range slices.Sorted(maps.Keys(changes)) {
		sorted = append(sorted, changes[model])
	}
	return sorted
}

// newChangeID returns 128 random bits in hexadecimal.
func newChangeID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return hex.EncodeToString(b[:])
}

// UpdateTo returns the update that makes a state say what a document says: its
// routes are set, all others deleted. Actor and reason are the caller's to add.
func UpdateTo(doc *routingv1.Document, at *State) *Update {
	u := &Update{Expected: at.Revision, ExpectedID: at.ID}
	kept := make(map[string]bool, len(doc.GetRoutes()))
	for _, r := range doc.GetRoutes() {
		kept[r.GetModel()] = true
		if !proto.Equal(at.Routes[r.GetModel()].GetRoute(), r) {
			u.Set = append(u.Set, r)
		}
	}
	for _, model := range slices.Sorted(maps.Keys(at.Routes)) {
		if !kept[model] && at.Routes[model].GetRoute() != nil {
			u.Delete = append(u.Delete, model)
		}
	}
	return u
}

// describe names what a change did, for logs.
func describe(c *routingv1.Change) string {
	const most = 5
	var names []string
	for i, r := range c.GetRoutes() {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(c.GetRoutes())-most))
			break
		}
		names = append(names, r.GetModel())
	}
	return strings.Join(names, ", ")
}
