package gateway

import (
	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/routing"
	"sluice/shadow/tape"
	"sluice/telemetry"
	"sluice/telemetry/drift"
	"sluice/telemetry/labels"
)

// target is what the path of a call needs of one version, prepared when its table
// is published. It never changes; its group does.
type target struct {
	version *routing.Version
	group   *liveGroup
	guard   *breaker.Version
	budget  *breaker.Budget // of the route
	renames *renames
	series  *telemetry.Series
	refused *telemetry.Series // of the route: of calls for which no version is chosen
	data    *drift.Version    // nil: nobody watches it
	labels  *labels.Version   // nil: nobody takes labels
	faults  []fault           // nil if there are none
	model   hpack.HeaderField // sluice-model
	name    hpack.HeaderField // sluice-version
}

// snapshot is everything a call reads of the routing state.
type snapshot struct {
	table    *routing.Table
	targets  *targetSet
	shadows  map[*routing.Route][]*shadowed    // in the order of Route.Shadows
	tapes    map[*routing.Route]*tape.Recorder // of those whose calls are kept; nil if nothing is
	revision hpack.HeaderField                 // sluice-revision
}

func newTarget(
	v *routing.Version, g *liveGroup, guard *breaker.Version, budget *breaker.Budget, series *telemetry.Series,
) *target {
	return &target{
		version: v, group: g, guard: guard, budget: budget,
		renames: renamesOf(v.Rename), series: series,
		model: hpack.HeaderField{Name: "sluice-model", Value: v.Model},
		name:  hpack.HeaderField{Name: "sluice-version", Value: v.Name},
	}
}
