package routing

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// StateOf returns the state that a message holds; nil holds an empty one.
func StateOf(stored *routingv1.StoredState) *State {
	s := &State{
		Position: Position{stored.GetRevision(), stored.GetId(), stored.GetEpoch()},
		Routes:   make(map[string]*routingv1.StoredRoute, len(stored.GetRoutes())),
	}
	if stored.GetTime() != nil {
		s.Time = stored.GetTime().AsTime()
	}
	for _, r := range stored.GetRoutes() {
		s.Routes[r.GetModel()] = r
	}
	return s
}

// Stored returns the message that holds a state, without changes.
func (s *State) Stored() *routingv1.StoredState {
	stored := &routingv1.StoredState{
		Revision: s.Revision,
		Id:       s.ID,
		Epoch:    s.Epoch,
		Time:     timestamppb.New(s.Time),
		Routes:   make([]*routingv1.StoredRoute, 0, len(s.Routes)),
	}
	for _, model := range slices.Sorted(maps.Keys(s.Routes)) {
		stored.Routes = append(stored.Routes, s.Routes[model])
	}
	return stored
}
