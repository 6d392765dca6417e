package incident

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// Postmortem tells an incident's story in Markdown: what callers noticed, what happened in which order,
// and what is to be done. It names versions and changes, and the people who made them only because they can
// tell more; nobody is to blame for what a system let them do. changes are those of the model around that
// time, from the routing state's history, in any order.
func Postmortem(in *adminv1.Incident, changes []*adminv1.IncidentEvent, now time.Time) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }

	w("# Incident %s: %s\n\n", in.GetId(), text(in.GetModel()))
	w("| | |\n| --- | --- |\n")
	onset := in.GetOnset().AsTime()
	w("| first bad call | %s |\n", moment(onset))
	w("| detected | %s, after %s, by %s |\n", moment(in.GetDetected().AsTime()), since(onset, in.GetDetected().AsTime()), trigger(in.GetTrigger()))
	if m := in.GetMitigated(); m != nil {
		w("| mitigated | %s, after %s, %s after it was detected: %s |\n", moment(m.AsTime()), since(onset, m.AsTime()),
			since(in.GetDetected().AsTime(), m.AsTime()), text(in.GetMitigation()))
	} else {
		w("| mitigated | no |\n")
	}
	if r := in.GetRecovered(); r != nil {
		healed := ""
		if m := in.GetMitigated(); m != nil {
			healed = fmt.Sprintf(", %s after it was mitigated", since(m.AsTime(), r.AsTime()))
		}
		w("| recovered | %s, after %s%s |\n", moment(r.AsTime()), since(onset, r.AsTime()), healed)
	} else {
		w("| recovered | not yet; open for %s |\n", since(onset, now))
	}
	w("\n## Effect on callers\n\n")
	effect(w, in)
	w("\n## Timeline\n\n")
	timeline(w, in, changes)
	w("\n## Calls to look at\n\n")
	samples(w, in)
	w("\n## What is to be done\n\n")
	if len(in.GetActions()) == 0 {
		w("Nothing has been written down yet; try: sluice postmortem %s --action \"...\"\n", in.GetId())
	}
	for i, a := range in.GetActions() {
		mark := " "
		if a.GetDone() {
			mark = "x"
		}
		w("- [%s] %d. %s (%s)\n", mark, i+1, text(a.GetText()), text(a.GetActor()))
	}
	w("\nQuestions that help: Why could it happen? Why was it noticed then, and not earlier? What limited the damage, and " +
		"what would have limited it more? What was luck?\n")
	return b.String()
}

func effect(w func(string, ...any), in *adminv1.Incident) {
	var sum adminv1.Effect
	names := slices.Sorted(maps.Keys(in.GetGateways()))
	for _, name := range names {
		e := in.GetGateways()[name].GetEffect()
		sum.Calls += e.GetCalls()
		sum.Failed += e.GetFailed()
		sum.FellBack += e.GetFellBack()
		sum.Late += e.GetLate()
	}
	w("Of %d calls, %d failed%s, %d were answered late%s and %d were answered by another version%s.\n",
		sum.GetCalls(), sum.GetFailed(), share(sum.GetFailed(), sum.GetCalls()), sum.GetLate(), share(sum.GetLate(), sum.GetCalls()),
		sum.GetFellBack(), share(sum.GetFellBack(), sum.GetCalls()))
	w("\n| gateway | calls | failed | late | fell back | budget left for availability | for latency |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, name := range names {
		e := in.GetGateways()[name].GetEffect()
		w("| %s | %d | %d | %d | %d | %s | %s |\n", text(name), e.GetCalls(), e.GetFailed(), e.GetLate(), e.GetFellBack(),
			budgetSpent(e.BudgetBefore, e.BudgetAfter), budgetSpent(e.LateBudgetBefore, e.LateBudgetAfter))
	}
}

// budgetSpent says what is left of an error budget before and after, which are nil where there is no objective.
func budgetSpent(before, after *float64) string {
	if before == nil || after == nil {
		return "no objective"
	}
	return budgetLeft(*before) + " -> " + budgetLeft(*after)
}

// budgetLeft says what is left of an error budget.
func budgetLeft(share float64) string {
	if share < 0 {
		return fmt.Sprintf("none, spent %.1f times", 1-share)
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// share says a part in percent, if there is a whole.
func share(part, whole uint64) string {
	if whole == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.2f %%)", 100*float64(part)/float64(whole))
}

func timeline(w func(string, ...any), in *adminv1.Incident, changes []*adminv1.IncidentEvent) {
	// What gateways noticed of a change is in the history too, with more to tell.
	events := slices.Clone(changes)
	for _, e := range in.GetEvents() {
		known := e.GetRevision() != 0 && slices.ContainsFunc(changes, func(c *adminv1.IncidentEvent) bool { return c.GetRevision() == e.GetRevision() })
		if !known {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b *adminv1.IncidentEvent) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	w("| time | what happened | where, or by whom |\n| --- | --- | --- |\n")
	for _, e := range events {
		who := e.GetGateway()
		if e.GetActor() != "" {
			who = e.GetActor()
		}
		what := text(e.GetText())
		if e.GetRevision() != 0 {
			what = fmt.Sprintf("revision %d: %s", e.GetRevision(), what)
		}
		if e.GetRequestId() != "" {
			what += " (request `" + code(e.GetRequestId()) + "`)"
		}
		w("| %s | %s | %s |\n", e.GetTime().AsTime().UTC().Format("2006-01-02 15:04:05.000"), what, text(who))
	}
	if n := in.GetDroppedEvents(); n > 0 {
		w("\n%d more events were not kept.\n", n)
	}
}

func samples(w func(string, ...any), in *adminv1.Incident) {
	if len(in.GetSamples()) == 0 {
		w("None was seen to fail, to fall back or to be late.\n")
		return
	}
	w("| time | request | trace | version | status |\n| --- | --- | --- | --- | --- |\n")
	for _, s := range in.GetSamples() {
		status := s.GetCode()
		if s.GetReason() != "" {
			status += ", " + s.GetReason()
		}
		trace := "none" // traces are off, and the caller sent none
		if id := s.GetTraceId(); id != "" {
			trace = "`" + code(id) + "`"
		}
		w("| %s | `%s` | %s | %s | %s |\n", s.GetTime().AsTime().UTC().Format("15:04:05.000"),
			code(s.GetRequestId()), trace, text(s.GetVersion()), text(status))
	}
}

func trigger(t string) string {
	switch t {
	case Breaker:
		return "a breaker that opened"
	case BurnRate:
		return "the rate at which the error budget burnt"
	case Rollback:
		return "an operator who rolled back"
	}
	return text(t)
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

func since(from, to time.Time) string {
	d := max(0, to.Sub(from)) // clocks of gateways differ a little
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

var (
	escaper     = strings.NewReplacer("\\", `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`, "\n", " ", "\r", " ")
	codeEscaper = strings.NewReplacer("`", "'", "|", `\|`, "\n", " ", "\r", " ")
)

// text keeps what people and callers wrote from being taken for Markdown.
func text(s string) string { return escaper.Replace(s) }

// code is the same for what stands between backquotes.
func code(s string) string { return codeEscaper.Replace(s) }
