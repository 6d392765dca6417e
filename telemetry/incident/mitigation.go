package incident

import (
	"fmt"
	"maps"
	"slices"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// Help is whether callers of a model are answered in the place of versions that are cut off.
type Help uint8

// The kinds of help.
const (
	// NothingCutOff: nobody has to stand in.
	NothingCutOff Help = iota
	// Helped: another version answers.
	Helped
	// Helpless: nobody does.
	Helpless
)

const (
	// failingShare is the share of calls from which on a model fails, as 1 of so many: less than
	// that is no outage, and callers are not helped while more do.
	failingShare = 100
	// failingLooks is how many looks in a row have to find that, before a remedy is believed to be none:
	// where calls are few, a single one that fails would else prolong an outage by hours.
	failingLooks = 2
)

// help is whether callers of a model are helped, at one gateway. Somebody says that there is a remedy; whether it is one, the
// calls show.
type help struct {
	remedy  string    // that is in place; empty for none
	refuted string    // one against which a budget burns all the same
	from    time.Time // since when it helps; zero while it does not
	how     string    // the remedy of from

	seen    Effect    // as of the latest look
	since   time.Time // that look
	failing int       // looks in a row in which calls failed
	bad     time.Time // the latest of the looks that found so
}

// mitigate tells of a remedy. The first one counts, for as long as it helps.
func (m *model) mitigate(how string, at time.Time) {
	h := &m.help
	if how == h.remedy || how == h.refuted {
		return
	}
	h.remedy = how
	if h.from.IsZero() {
		h.from, h.how = at, how
		m.dirty = true
	}
}

// worsen tells that callers are not helped, or no longer.
func (m *model) worsen(why string, at time.Time) {
	h := &m.help
	if h.remedy == "" && h.from.IsZero() {
		return
	}
	h.remedy, h.refuted, h.from = "", "", time.Time{}
	m.note(&adminv1.IncidentEvent{Time: stamp(at), Kind: m.trigger, Text: why})
}

// withdraw takes a remedy for none, as a budget that has begun to burn shows.
func (h *help) withdraw() {
	if h.remedy == "" {
		return // another budget has shown it already
	}
	h.remedy, h.refuted, h.from = "", h.remedy, time.Time{}
}

// restore believes in a remedy again that a budget had refuted, as of when that burnt last: nobody else tells of it a second time.
func (h *help) restore(burnt time.Time) {
	if h.refuted != "" && h.remedy == "" {
		h.remedy, h.how, h.from = h.refuted, h.refuted, later(burnt, h.bad)
	}
	h.refuted = ""
}

// look compares the remedy with what callers have noticed so far, and says so in words if it turns out to help or not to.
func (h *help) look(noticed Effect, now time.Time) (text string) {
	calls, failed, began := noticed.Calls-h.seen.Calls, noticed.Failed-h.seen.Failed, h.since
	h.seen, h.since = noticed, now
	switch {
	case calls == 0:
		return "" // nobody has tried
	case failed*failingShare >= calls:
		if h.failing++; h.failing >= failingLooks {
			h.bad = now
		}
	default:
		h.failing = 0
		if h.remedy != "" && h.from.IsZero() {
			h.from, h.how = began, h.remedy
			return "calls no longer fail: " + h.remedy
		}
	}
	// Calls that were under way when help came may fail for a while.
	if h.failing >= failingLooks && !h.from.IsZero() && !h.from.After(began) {
		h.from = time.Time{}
		return fmt.Sprintf("calls fail all the same: %d of the last %d", failed, calls)
	}
	return ""
}

// setMitigation says since when callers of all gateways are helped. A gateway to which all is well has no callers to help
// any more; one that has not been heard of for long says nothing.
func setMitigation(in *adminv1.Incident, now time.Time) {
	in.Mitigated, in.Mitigation = nil, ""
	var last time.Time
	how := ""
	for _, name := range slices.Sorted(maps.Keys(in.GetGateways())) {
		g := in.GetGateways()[name]
		at, by := g.GetMitigated().AsTime(), g.GetMitigation()
		switch {
		case g.GetMitigated() != nil && !at.Before(in.GetOnset().AsTime()):
		case len(g.GetTroubles()) == 0:
			at, by = g.GetUpdated().AsTime(), ""
		case now.Sub(g.GetUpdated().AsTime()) >= stale:
			continue
		default:
			return
		}
		if by != "" {
			how = by
		}
		last = later(last, at)
	}
	if how != "" {
		in.Mitigated, in.Mitigation = stamp(last), how
	}
}
