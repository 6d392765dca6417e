package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// inWords says what a change did to one route, in a few words.
func inWords(r *routingv1.RouteChange) string {
	before, after := r.GetBefore(), r.GetAfter()
	switch {
	case before == nil && after == nil:
		return "changed" // told without documents
	case before == nil:
		return "added, " + splitWords(after)
	case after == nil:
		return "deleted"
	}
	var parts []string
	if w := weightWords(before, after); w != "" {
		parts = append(parts, w)
	}
	parts = append(parts, versionWords(before, after)...)
	parts = append(parts, cutOffWords(before, after)...)
	parts = append(parts, faultChangeWords(before, after)...)
	parts = append(parts, settingWords(before, after)...)
	if len(parts) == 0 {
		return "unchanged"
	}
	return strings.Join(parts, ", ")
}

// splitWords is the split of a route, such as "v7=95 v8=5".
func splitWords(r *routingv1.Route) string {
	var parts []string
	for _, v := range r.GetVersions() {
		if w := r.GetWeights()[v.GetName()]; w > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", v.GetName(), w))
		}
	}
	return strings.Join(parts, " ")
}

// weightWords names the weights that moved, such as "v7 95->50, v8 5->50".
func weightWords(before, after *routingv1.Route) string {
	var parts []string
	for _, name := range versionNames(before, after) {
		if was, is := before.GetWeights()[name], after.GetWeights()[name]; was != is {
			parts = append(parts, fmt.Sprintf("%s %d->%d", name, was, is))
		}
	}
	return strings.Join(parts, ", ")
}

// versionWords names the versions that came, went or are otherwise.
func versionWords(before, after *routingv1.Route) []string {
	old, now := versionsByName(before), versionsByName(after)
	var parts []string
	for _, name := range versionNames(before, after) {
		switch {
		case old[name] == nil:
			parts = append(parts, "+"+name)
		case now[name] == nil:
			parts = append(parts, "-"+name)
		case !proto.Equal(old[name], now[name]):
			parts = append(parts, name+" is served otherwise")
		}
	}
	return parts
}

// versionNames returns the names of both routes' versions, each once, those of
// the later document first.
func versionNames(before, after *routingv1.Route) []string {
	var names []string
	for _, r := range []*routingv1.Route{after, before} {
		for _, v := range r.GetVersions() {
			if !slices.Contains(names, v.GetName()) {
				names = append(names, v.GetName())
			}
		}
	}
	return names
}

func versionsByName(r *routingv1.Route) map[string]*routingv1.Version {
	m := make(map[string]*routingv1.Version)
	for _, v := range r.GetVersions() {
		m[v.GetName()] = v
	}
	return m
}

// cutOffWords says what was cut off, such as "v8 cut off", and what was let back.
func cutOffWords(before, after *routingv1.Route) []string {
	var parts []string
	for _, w := range []struct {
		in, notIn *routingv1.Route
		words     string
	}{{after, before, " cut off"}, {before, after, " let back"}} {
		for _, c := range w.in.GetCutOff() {
			if !slices.ContainsFunc(w.notIn.GetCutOff(), func(o *routingv1.CutOff) bool { return proto.Equal(o, c) }) {
				parts = append(parts, strings.TrimSpace(c.GetVersion()+" "+c.GetEndpoint())+w.words)
			}
		}
	}
	return parts
}

// faultChangeWords says what faults came, such as "+fault on v8: 10 % status
// UNAVAILABLE", and which went.
func faultChangeWords(before, after *routingv1.Route) []string {
	var parts []string
	for _, w := range []struct {
		in, notIn *routingv1.Route
		sign      string
	}{{after, before, "+"}, {before, after, "-"}} {
		for _, f := range w.in.GetFaults() {
			if !slices.ContainsFunc(w.notIn.GetFaults(), func(o *routingv1.Fault) bool { return proto.Equal(o, f) }) {
				parts = append(parts, fmt.Sprintf("%sfault on %s: %v %% %s", w.sign, cmp.Or(f.GetVersion(), "all"), f.GetPercent(), faultWords(f)))
			}
		}
	}
	return parts
}

// settingWords names the settings that are otherwise, as a file of routes calls
// them.
func settingWords(before, after *routingv1.Route) []string {
	var names []string
	told := []string{"versions", "weights", "cut_off", "faults"} // in better words
	was, is := before.ProtoReflect(), after.ProtoReflect()
	for i := range was.Descriptor().Fields().Len() {
		f := was.Descriptor().Fields().Get(i)
		if name := string(f.Name()); !slices.Contains(told, name) && !was.Get(f).Equal(is.Get(f)) {
			names = append(names, name)
		}
	}
	return names
}

// withoutSplit leaves the settings of a route.
func withoutSplit(r *routingv1.Route) *routingv1.Route {
	r = proto.CloneOf(r)
	r.Versions, r.Weights = nil, nil
	return r
}

// sameVersions reports whether two routes have the same versions, with whatever
// weights.
func sameVersions(before, after *routingv1.Route) bool {
	return slices.EqualFunc(before.GetVersions(), after.GetVersions(), func(a, b *routingv1.Version) bool { return proto.Equal(a, b) })
}

// share is a version's part of a route's calls, such as "95.0 %"; "-" for none.
func share(r *routingv1.Route, version string) string {
	total := 0.0
	for _, w := range r.GetWeights() {
		total += float64(w)
	}
	w := r.GetWeights()[version]
	if w == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(w)/total)
}

// moment is a time in UTC, in the form that sorts; "-" for none. Postmortems and /debug/ are in UTC, too, and what one
// person has copied, another one reads in another zone.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Format(time.DateTime + " UTC")
}

// clock is a time of this day, in UTC as well.
func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly + " UTC") }

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// reasonOrDash is why a change was made.
func reasonOrDash(c *routingv1.Change, most int) string {
	text := cmp.Or(visible(c.GetReason(), most), "-")
	if c.GetForced() {
		text += alarm.Render(" forced")
	}
	return text
}
