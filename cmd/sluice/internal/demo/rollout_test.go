package demo

import (
	"log/slog"
	"strings"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/sample"
)

// TestRolloutLeavesSomebodysRouteAlone starts the demo on a store that serves the
// model already.
func TestRolloutLeavesSomebodysRouteAlone(t *testing.T) {
	store := memstore.New(memstore.Config{})
	theirs := &routingv1.Route{
		Model: sample.ModelName, Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{"127.0.0.1:1"}}},
		Weights: map[string]uint32{"v1": 1},
	}
	if _, err := store.Update(t.Context(), &routing.Update{Set: []*routingv1.Route{theirs}, Actor: "somebody"}); err != nil {
		t.Fatal(err)
	}
	_, err := newRollout(t.Context(), store, nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("newRollout = %v, want a refusal", err)
	}
	state, err := store.Load(t.Context())
	if err != nil || state.Revision != 1 {
		t.Errorf("the store is at %v, %v; want revision 1", state, err)
	}
}
