package routing

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	routingv1 "sluice/proto/sluice/routing/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// weight is a version of a test's route and its weight.
type weight struct {
	version string
	weight  uint32
}

// document returns a route of the model "m" with these weights.
func document(weights ...weight) *routingv1.Route {
	r := &routingv1.Route{Model: "m", Weights: map[string]uint32{}}
	for i, w := range weights {
		r.Versions = append(r.Versions, &routingv1.Version{
			Name:      w.version,
			Endpoints: []string{fmt.Sprintf("127.0.0.1:%d", 1+i)},
		})
		r.Weights[w.version] = w.weight
	}
	return r
}

// build makes a table of valid routes.
func build(t testing.TB, revision uint64, routes ...*routingv1.Route) *Table {
	t.Helper()
	table, err := Build(&routingv1.Document{Routes: routes}, revision)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// buildRoute makes a route of a valid document.
func buildRoute(t testing.TB, doc *routingv1.Route) *Route {
	t.Helper()
	r, ok := build(t, 1, doc).Route(doc.GetModel())
	if !ok {
		t.Fatalf("no route for %s", doc.GetModel())
	}
	return r
}

// choose returns the version chosen, where nothing is forced.
func choose(t testing.TB, r *Route, key string, u uint64) string {
	t.Helper()
	c, err := r.Choose("", key, u)
	if err != nil {
		t.Fatal(err)
	}
	return c.Version.Name
}
