package routing

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
)

func TestTableLookups(t *testing.T) {
	a, b := document(weight{"v1", 1}), document(weight{"v1", 1})
	a.Model, a.Services = "b/model", []string{"pkg.A", "pkg.B"}
	b.Model = "a"
	table := build(t, 42, a, b)

	if table.Revision() != 42 || table.RevisionText() != "42" || table.Len() != 2 {
		t.Errorf("revision %d (%q) with %d routes, want 42 with 2", table.Revision(), table.RevisionText(), table.Len())
	}
	var models []string
	for r := range table.Routes() {
		models = append(models, r.Model)
	}
	if want := []string{"a", "b/model"}; !slices.Equal(models, want) {
		t.Errorf("Routes = %v, want %v", models, want)
	}
	for range table.Routes() {
		break // must not go on
	}
	for model, want := range map[string]bool{"a": true, "b/model": true, "A": false, "": false, "pkg.A": false} {
		r, ok := table.Route(model)
		if ok != want || ok && r.Model != model {
			t.Errorf("Route(%q) = %+v, %v, want %v", model, r, ok, want)
		}
		if same, ok := table.RouteBytes([]byte(model)); ok != want || same != r {
			t.Errorf("RouteBytes(%q) = %+v, %v, want as Route", model, same, ok)
		}
	}
	for service, want := range map[string]bool{"pkg.A": true, "pkg.B": true, "pkg.a": false, "": false, "a": false} {
		if r, ok := table.RouteForService(service); ok != want || ok && r.Model != "b/model" {
			t.Errorf("RouteForService(%q) = %+v, %v, want %v", service, r, ok, want)
		}
	}
}

func TestBuildRefusesWhatValidateRefuses(t *testing.T) {
	doc := &routingv1.Document{Routes: []*routingv1.Route{document(weight{"v1", 0})}}
	want := `routes[0].weights: got only 0, want a weight above 0 for at least one version`
	if table, err := Build(doc, 1); err == nil || err.Error() != want {
		t.Errorf("Build = %v, %v, want %s", table, err, want)
	}
	if err := Validate(doc); err == nil || err.Error() != want {
		t.Errorf("Validate = %v, want %s", err, want)
	}
	if err := Validate(&routingv1.Document{}); err != nil {
		t.Errorf("Validate of no routes = %v, want nil", err)
	}
}

// TestTableKeepsNothingOfTheDocument: whoever built a table may go on using the
// document.
func TestTableKeepsNothingOfTheDocument(t *testing.T) {
	doc := document(weight{"v1", 1})
	doc.Services = []string{"pkg.A"}
	r := buildRoute(t, doc)
	doc.Services[0], doc.Versions[0].Endpoints[0], doc.Versions[0].Name, doc.Weights["v1"] = "x", "x", "x", 7
	v := r.Versions[0]
	if r.Services[0] != "pkg.A" || v.Endpoints[0] != "127.0.0.1:1" || v.Name != "v1" || v.Weight != 1 {
		t.Errorf("the route became %+v, %+v", r, v)
	}
}

func TestRouterStartsEmpty(t *testing.T) {
	table := NewRouter().Current()
	if _, ok := table.Route("m"); ok || table.Revision() != 0 || table.Len() != 0 {
		t.Errorf("Current = %+v, want an empty table of revision 0", table)
	}
}

func TestOldTableUnchangedByPublish(t *testing.T) {
	router := NewRouter()
	router.Publish(build(t, 1, document(weight{"v1", 1}, weight{"v2", 0})))
	old := router.Current()
	router.Publish(build(t, 2, document(weight{"v1", 0}, weight{"v2", 1})))

	for table, want := range map[*Table]string{old: "v1", router.Current(): "v2"} {
		r, ok := table.Route("m")
		if !ok {
			t.Fatalf("revision %d has no route", table.Revision())
		}
		if got := choose(t, r, "", 0); got != want {
			t.Errorf("revision %d chooses %s, want %s", table.Revision(), got, want)
		}
	}
	if old.Revision() != 1 || router.Current().Revision() != 2 {
		t.Errorf("revisions %d and %d, want 1 and 2", old.Revision(), router.Current().Revision())
	}
}

// TestFollowersSeeEveryTable in order, from the current one until they leave.
func TestFollowersSeeEveryTable(t *testing.T) {
	router := NewRouter()
	router.Publish(build(t, 1))
	var early, late []uint64
	router.Follow(func(table *Table) { early = append(early, table.Revision()) })
	router.Publish(build(t, 2))
	leave := router.Follow(func(table *Table) { late = append(late, table.Revision()) })
	router.Publish(build(t, 3))
	leave()
	router.Publish(build(t, 4))
	if want := []uint64{1, 2, 3, 4}; !slices.Equal(early, want) {
		t.Errorf("the first follower saw %v, want %v", early, want)
	}
	if want := []uint64{2, 3}; !slices.Equal(late, want) {
		t.Errorf("the second follower saw %v, want %v", late, want)
	}
}

// TestReadersSeeWholeTables has many readers beside one publisher. In every
// table the only version with weight is named after the revision.
func TestReadersSeeWholeTables(t *testing.T) {
	const tables, readers = 200, 8
	router := NewRouter()
	publish := func(revision uint64) {
		router.Publish(build(t, revision, document(weight{fmt.Sprint(revision), 1}, weight{"dark", 0})))
	}
	publish(1)
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for last := uint64(0); last < tables; {
				table := router.Current()
				r, ok := table.Route("m")
				if !ok {
					t.Errorf("revision %d has no route", table.Revision())
					return
				}
				c, err := r.Choose("", "key", last)
				if err != nil || c.Version.Name != table.RevisionText() || table.Revision() < last {
					t.Errorf("revision %d after %d chooses %+v, %v", table.Revision(), last, c.Version, err)
					return
				}
				last = table.Revision()
			}
		})
	}
	for revision := uint64(2); revision <= tables; revision++ {
		publish(revision)
	}
	group.Wait()
}
