package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Every change has a reason. Where its actor gives none, it is a note of what was asked for.

// reasonOr returns the actor's reason or, without one, a note, as far as there is room.
func reasonOr(in *adminv1.Intent, note string) string {
	if !isBlank(in.GetReason()) {
		return in.GetReason()
	}
	if len(note) <= routing.MaxReason {
		return note
	}
	const cut = "..."
	return strings.ToValidUTF8(note[:routing.MaxReason-len(cut)], "") + cut
}

func isBlank(text string) bool { return strings.TrimSpace(text) == "" }

// updateOf is an update of one route.
func updateOf(in *adminv1.Intent, route *routingv1.Route, note string) *routing.Update {
	return &routing.Update{Set: []*routingv1.Route{route}, Reason: reasonOr(in, note)}
}

// weightsNote is as somebody types it: "weights v7=95 v8=5".
func weightsNote(weights map[string]uint32) string {
	words := []string{"weights"}
	for _, version := range slices.Sorted(maps.Keys(weights)) {
		words = append(words, fmt.Sprintf("%s=%d", version, weights[version]))
	}
	return strings.Join(words, " ")
}

// applyNote names the models: "apply fraud, penguins; delete iris".
func applyNote(u *routing.Update) string {
	var set, parts []string
	for _, r := range u.Set {
		set = append(set, r.GetModel())
	}
	if len(set) > 0 {
		parts = append(parts, "apply "+firstOf(set))
	}
	if len(u.Delete) > 0 {
		parts = append(parts, "delete "+firstOf(u.Delete))
	}
	return strings.Join(parts, "; ")
}

// firstOf lists the first few names.
func firstOf(names []string) string {
	const most = 5
	if n := len(names) - most; n > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// orderNote is what a breaker was ordered: "breaker open v8 at 10.0.0.8:8001".
func orderNote(order, version, endpoint string) string {
	note := "breaker " + order + " " + version
	if endpoint != "" {
		note += " at " + endpoint
	}
	return note
}
