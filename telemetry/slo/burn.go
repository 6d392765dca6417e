package slo

import "time"

// BurnRate is how many times as fast as allowed the events spend the budget of an
// objective: (bad / total) / (1 - target). It is 0 without events. target is the share
// of good events that is wanted, above 0 and below 1.
func BurnRate(c Counts, target float64) float64 {
	if c.Total == 0 {
		return 0
	}
	return float64(c.Bad) / float64(c.Total) / (1 - target)
}

// BudgetLeft is the share of the budget that the events have left, 1 without any bad
// one and negative when it is overspent: 1 - bad / ((1 - target) * total).
func BudgetLeft(c Counts, target float64) float64 {
	return 1 - BurnRate(c, target)
}

// Severity is what a burn rate asks for.
type Severity uint8

// The severities.
const (
	Fine   Severity = iota
	Ticket          // somebody looks at it on a working day
	Page            // somebody is woken
)

var severities = [...]string{"fine", "ticket", "page"}

// String returns the severity's name.
func (s Severity) String() string { return severities[s] }

// Rule is one condition: over both windows the budget burns at Rate or faster.
type Rule struct {
	Long, Short time.Duration
	Rate        float64
	Severity    Severity
}

// Rules are those of the Site Reliability Workbook, table 5-8, the most urgent first: an hour
// that spends 2 % of the budget of 30 days, six hours that spend 5 %, three days that
// spend 10 %.
var Rules = [...]Rule{
	{time.Hour, 5 * time.Minute, 14.4, Page},
	{6 * time.Hour, 30 * time.Minute, 6, Page},
	{72 * time.Hour, 6 * time.Hour, 1, Ticket},
}

// MinBad is how many bad events the long window needs. Where calls are few, one that fails
// would burn at any rate.
const MinBad = 10

// Verdict is what the rules say of a series.
type Verdict struct {
	Severity Severity
	// Rule is the most urgent one that holds; the first one if none does.
	Rule Rule
	// Long and Short are the events of the rule's windows.
	Long, Short Counts
}

// Judge applies the rules to a series as of its latest Add.
func Judge(s *Series, target float64) Verdict {
	for _, r := range Rules {
		v := Verdict{r.Severity, r, s.Last(r.Long), s.Last(r.Short)}
		if v.Long.Bad >= MinBad && BurnRate(v.Long, target) >= r.Rate && BurnRate(v.Short, target) >= r.Rate {
			return v
		}
	}
	return Verdict{Fine, Rules[0], s.Last(Rules[0].Long), s.Last(Rules[0].Short)}
}
