package routing

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Store keeps the routing state and the changes that led to it. Implementations
// are safe for concurrent use, and one suite (storetest) checks them all.
//
// Whatever a store returns is shared: read it, never write it. Whatever it is
// given it copies.
//
// Methods fail with one of the types in this package where they apply:
// [*ConflictError], [*UnavailableError], [*RefusedError], [*FieldError]s joined
// by [errors.Join], [ErrUnchanged], [ErrGap].
//
// Commands and the admin service write through a [Watcher], which knows what a
// store may have lost; only a Watcher calls a store directly.
type Store interface {
	// Load returns the whole state. A store that was never written to returns an
	// empty state of revision 0.
	Load(ctx context.Context) (*State, error)

	// Update makes one change, all of it or nothing, if the store's revision is
	// the one the update expects. It fails within 2 s, however the store fails. It
	// fails with ErrGap, and does nothing, while the store has lost entries that the
	// last Load did not tell of: what the update was made for may be among them.
	Update(ctx context.Context, u *Update) (*routingv1.Change, error)

	// Watch calls deliver with every change after the given position, in order
	// and one at a time, until ctx ends or deliver fails, and returns that error.
	// It returns ErrGap when the changes since then are not to be had or do not
	// continue from there, so that the caller has to Load; and an
	// [*UnavailableError] when the store cannot be reached.
	Watch(ctx context.Context, after Position, deliver func(*routingv1.Change) error) error

	// History returns the changes that the query selects, of those the store still
	// has.
	History(ctx context.Context, q HistoryQuery) ([]*routingv1.Change, error)

	// Shelf returns the shelf of that name, which has to suit [CheckShelfName]. It needs
	// no closing.
	Shelf(name string) Shelf

	// Health returns what the store knows of itself without asking; it never
	// blocks.
	Health() Health

	// String names the store, without secrets.
	String() string

	// Close gives back what the store holds. No other method is called afterwards.
	Close() error
}

// Position identifies one state of the routing. Numbers alone do not: a store
// that has lost changes uses their numbers again, with other ids.
type Position struct {
	Revision uint64 // 0 before the first change
	ID       string // of the change that led here; empty before the first
	Epoch    uint64 // of the change that led here; 0 before the first
}

// PositionAfter returns the position a change leads to.
func PositionAfter(c *routingv1.Change) Position {
	return Position{c.GetRevision(), c.GetId(), c.GetEpoch()}
}

// State is a whole routing state as a store holds it.
type State struct {
	Position
	// Time is when the change was made that led here.
	Time time.Time
	// Routes holds an entry for every model that has a route or had one: an entry
	// without a document is a tombstone.
	Routes map[string]*routingv1.StoredRoute
	// Removed is how many entries the state should have and does not, because
	// something other than Sluice has removed them.
	Removed int
	// Unreadable says, by model, which entries do not hold what Sluice writes.
	Unreadable map[string]error
}

// Document returns the routes of a state in the order of their models' names.
func (s *State) Document() *routingv1.Document {
	doc := new(routingv1.Document)
	for _, model := range slices.Sorted(maps.Keys(s.Routes)) {
		if r := s.Routes[model].GetRoute(); r != nil {
			doc.Routes = append(doc.Routes, r)
		}
	}
	return doc
}

// Apply makes s the state after a change, which has to follow it. Stores use it
// on states of their own.
func (s *State) Apply(c *routingv1.Change) {
	s.Position, s.Time = PositionAfter(c), c.GetTime().AsTime()
	for _, r := range c.GetRoutes() {
		s.Routes[r.GetModel()] = EntryAfter(c, r)
	}
}

// EntryAfter returns what a change leaves under a model's name.
func EntryAfter(c *routingv1.Change, r *routingv1.RouteChange) *routingv1.StoredRoute {
	return &routingv1.StoredRoute{Model: r.GetModel(), Route: r.GetAfter(), Revision: c.GetRevision()}
}

// Update asks a store for a change.
type Update struct {
	// Expected is the revision the update was made for. If the store's is another,
	// it fails with a [*ConflictError].
	Expected uint64
	// ExpectedID, unless empty, is the id that the change to that revision has to
	// have.
	ExpectedID string
	// Set holds whole routes that are added or replace the one of the same model.
	Set []*routingv1.Route
	// Delete names models whose routes are deleted. Of a model without a route, it
	// leaves a tombstone.
	Delete []string
	// Actor says who makes the change, Reason why.
	Actor, Reason string
	// RequestKey, unless empty, makes repeating harmless: if an update with this
	// key was answered before, the answer is repeated and nothing else happens, whatever
	// the update says; also if there was nothing to change. Redis remembers a key for
	// [RequestKeyTTL]; a store in memory or in a file does so too, but of no more than
	// the last [MaxRequestKeys]. Neither forgets keys with the documents of the history.
	RequestKey string
	// RequestDigest, unless empty, tells requests with the same key apart: one that
	// does not match is a [*FieldError].
	RequestDigest []byte
	// Forced records that the actor overruled a guard.
	Forced bool
	// Rollback records that the update undoes earlier changes.
	Rollback bool
	// NewEpoch begins a new epoch; nil stays in the current one. Only a [Watcher]
	// does that.
	NewEpoch *NewEpoch
	// Restore says that the routes were served all the time while the store had
	// lost them: of a model that the store does not know, the change names the
	// document as it was before too, so that undoing takes no route away. Only a
	// [Watcher] does that.
	Restore bool
}

// NewEpoch is how a loss becomes part of the history.
type NewEpoch struct {
	// Above is the highest position that anyone saw: revision and epoch of the
	// change will be above it.
	Above Position
	// Lost names the changes that were lost.
	Lost []*routingv1.LostChange
}

// HistoryQuery selects changes.
type HistoryQuery struct {
	// Model selects the changes of one route; empty means all.
	Model string
	// From and To are the lowest and highest revision; 0 means no bound.
	From, To uint64
	// Limit is the largest number of changes returned; 0 means 100.
	Limit int
	// OldestFirst turns the order around, which is the newest first.
	OldestFirst bool
	// Bytes bounds the changes returned by their encoded size: none follows once that is
	// reached. 0 means no bound.
	Bytes int
	// Documents is how many routes of each change come with their documents, see
	// [Shortened]; of a query with a model, that model's is one of them. 0 means all.
	Documents int
}

// DefaultHistoryLimit is the number of changes returned when a query sets none.
const DefaultHistoryLimit = 100

// Max returns the limit that applies.
func (q HistoryQuery) Max() int {
	if q.Limit <= 0 {
		return DefaultHistoryLimit
	}
	return q.Limit
}

// Matches reports whether a change is selected, the limit aside.
func (q HistoryQuery) Matches(c *routingv1.Change) bool {
	if c.GetRevision() < q.From || q.To != 0 && c.GetRevision() > q.To {
		return false
	}
	return q.Model == "" || slices.ContainsFunc(c.GetRoutes(), func(r *routingv1.RouteChange) bool {
		return r.GetModel() == q.Model
	})
}

// Found gathers what a query selects. Stores add to it the changes that they come by, in
// order, until it is full.
type Found struct {
	query   HistoryQuery
	bytes   int
	Changes []*routingv1.Change
}

// NewFound returns one without changes.
func NewFound(q HistoryQuery) *Found { return &Found{query: q} }

// Add takes a change if it is selected.
func (f *Found) Add(c *routingv1.Change) {
	if f.Full() || !f.query.Matches(c) {
		return
	}
	if n := f.query.Documents; n > 0 {
		c = Shortened(ofModelFirst(c, f.query.Model), n)
	}
	if f.query.Bytes > 0 {
		f.bytes += proto.Size(c)
	}
	f.Changes = append(f.Changes, c)
}

// Full reports whether no more is wanted.
func (f *Found) Full() bool {
	return len(f.Changes) >= f.query.Max() || f.query.Bytes > 0 && f.bytes >= f.query.Bytes
}

// ofModelFirst returns a change with the route of one model in front.
func ofModelFirst(c *routingv1.Change, model string) *routingv1.Change {
	i := slices.IndexFunc(c.GetRoutes(), func(r *routingv1.RouteChange) bool { return r.GetModel() == model })
	if i <= 0 {
		return c
	}
	turned := Shortened(c, len(c.GetRoutes())-1) // a copy, of which the routes are replaced
	turned.Routes = slices.Concat(c.GetRoutes()[i:i+1], c.GetRoutes()[:i], c.GetRoutes()[i+1:])
	return turned
}

// Health is what a store knows of itself.
type Health struct {
	// Err says what is wrong; nil if the store answered when it was last asked.
	Err error
	// WriteErr says why the store refused a change; nil once it has taken one.
	WriteErr error
	// Late says why changes are seen late, by asking now and then; nil while the store
	// tells of them at once.
	Late error
	// Since is when Err became so; zero before the store was first asked.
	Since time.Time
	// Answered is when the store last did what it was asked; zero if it never has.
	Answered time.Time
}
