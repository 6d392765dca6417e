package routing

import (
	"iter"
	"maps"
	"slices"
	"strconv"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Table is an immutable routing state: all routes as of one revision. The zero value
// has none.
type Table struct {
	revision     uint64
	revisionText string
	byModel      shards
	byService    map[string]*Route
	models       []string // sorted
}

// Build makes a table of a document. The document is validated first and not
// kept; what is wrong with it is returned as by [Validate].
func Build(doc *routingv1.Document, revision uint64) (*Table, error) {
	if err := Validate(doc); err != nil {
		return nil, err
	}
	routes := make([]*Route, 0, len(doc.GetRoutes()))
	for _, r := range doc.GetRoutes() {
		routes = append(routes, newRoute(r))
	}
	return newTable(routes, revision), nil
}

// newTable indexes routes whose models and services are known to be distinct.
// Routes know nothing of their table, so that tables can share them.
func newTable(routes []*Route, revision uint64) *Table {
	t := &Table{
		revision:     revision,
		revisionText: strconv.FormatUint(revision, 10),
		byService:    make(map[string]*Route),
	}
	byModel := make(map[string]*Route, len(routes))
	for _, r := range routes {
		byModel[r.Model] = r
		for _, s := range r.Services {
			t.byService[s] = r
		}
	}
	t.byModel = t.byModel.with(byModel)
	t.models = slices.Sorted(maps.Keys(byModel))
	return t
}

// with returns a table in which some routes are others, or gone where nil. All
// others are shared with t, so that the cost hardly depends on their number.
func (t *Table) with(changed map[string]*Route, revision uint64) *Table {
	next := &Table{
		revision:     revision,
		revisionText: strconv.FormatUint(revision, 10),
		byModel:      t.byModel,
		byService:    t.byService,
		models:       t.models,
	}
	if len(changed) == 0 {
		return next
	}
	next.byModel, next.byService = t.byModel.with(changed), maps.Clone(t.byService)
	sameModels := true
	for model, r := range changed {
		old := t.byModel.get(model)
		sameModels = sameModels && (old == nil) == (r == nil)
		if old == nil {
			continue
		}
		for _, s := range old.Services {
			if next.byService[s] == old {
				delete(next.byService, s)
			}
		}
	}
	for _, r := range changed {
		if r == nil {
			continue
		}
		for _, s := range r.Services {
			next.byService[s] = r
		}
	}
	if !sameModels {
		next.models = t.modelsWith(changed)
	}
	return next
}

// modelsWith returns the names of the models after a change.
func (t *Table) modelsWith(changed map[string]*Route) []string {
	models := make([]string, 0, len(t.models)+len(changed))
	for _, model := range t.models {
		if _, ok := changed[model]; !ok {
			models = append(models, model)
		}
	}
	for model, r := range changed {
		if r != nil {
			models = append(models, model)
		}
	}
	slices.Sort(models)
	return models
}

// Revision returns the number of this routing state. It is 0 until a state has
// been loaded, and grows by one with every change.
func (t *Table) Revision() uint64 { return t.revision }

// RevisionText returns [Table.Revision] in decimal, ready for a header.
func (t *Table) RevisionText() string { return t.revisionText }

// Len returns the number of routes.
func (t *Table) Len() int { return len(t.models) }

// Route returns the route of a model, compared byte for byte.
func (t *Table) Route(model string) (*Route, bool) {
	r := t.byModel.get(model)
	return r, r != nil
}

// RouteBytes is [Table.Route] for a name that still lies in a receive buffer;
// it does not allocate.
func (t *Table) RouteBytes(model []byte) (*Route, bool) {
	r := t.byModel.getBytes(model)
	return r, r != nil
}

// RouteForService returns the route that lists the full gRPC service name,
// compared byte for byte.
func (t *Table) RouteForService(service string) (*Route, bool) {
	r, ok := t.byService[service]
	return r, ok
}

// Routes yields the routes in the order of their models' names.
func (t *Table) Routes() iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for _, m := range t.models {
			if !yield(t.byModel.get(m)) {
				return
			}
		}
	}
}

// ChangedSince yields the models whose routes are not those of another table: changed,
// new or gone, in no order. Between a table and the one it was made from by a change
// that takes about as long as the change is large, however many routes there are.
func (t *Table) ChangedSince(from *Table) iter.Seq[string] { return t.byModel.differing(&from.byModel) }
