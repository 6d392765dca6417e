package slo

import (
	"math"
	"time"
)

// Counts are events and how many of them were bad.
type Counts struct {
	Total, Bad uint64
}

// since is what has been added to o. A counter that went backwards has begun anew.
func (c Counts) since(o Counts) Counts {
	if c.Total < o.Total || c.Bad < o.Bad {
		return c
	}
	return Counts{c.Total - o.Total, c.Bad - o.Bad}
}

// Period is the time that an error budget is for.
const Period = 30 * 24 * time.Hour

// Step is the length of the shortest step of a [Series].
const Step = 30 * time.Second

// ringSteps is the length of both rings: six hours of Step, 30 days of hours.
const ringSteps = int64(Period / time.Hour)

// Series is the past of one objective: in steps of 30 s for six hours, of an hour for 30
// days, 13 KB in all. The zero value is empty. It is not safe for concurrent use.
type Series struct {
	fine, coarse ring
	seen         Counts           // cumulative, as of the latest Add
	first        [ringSteps]int16 // of steps of fine with bad events: when the first one was, in ms from their beginning
}

// Add says what the cumulative counts are at a time that is not before the last one.
// Call it at least every [Step]: what happened since the last time belongs to the step of now.
func (s *Series) Add(now time.Time, cumulative Counts) { s.AddSince(now, cumulative, time.Time{}) }

// AddSince is Add for one who knows when the first of the bad events among the new ones was, less than a
// [Step] before now; zero if nobody knows.
func (s *Series) AddSince(now time.Time, cumulative Counts, firstBad time.Time) {
	news := cumulative.since(s.seen)
	s.seen = cumulative
	before := s.fine.at
	s.fine.add(now, Step, news)
	if n := s.fine.at; news.Bad > 0 && (n != before || s.fine.step(n).Bad == news.Bad) {
		s.first[n%ringSteps] = 0
		if !firstBad.IsZero() {
			// It may lie a little before the step in which it is counted.
			offset := firstBad.Sub(time.Unix(0, n*int64(Step)))
			s.first[n%ringSteps] = int16(min(max(offset, -Step), Step-1) / time.Millisecond)
		}
	}
	s.coarse.add(now, time.Hour, news)
}

// Skip says what the cumulative counts are without taking them for events: they are of before
// the objective.
func (s *Series) Skip(cumulative Counts) { s.seen = cumulative }

// Since returns the events by which cumulative counts have grown since the latest Add or Skip.
func (s *Series) Since(cumulative Counts) Counts { return cumulative.since(s.seen) }

// Seen returns what the cumulative counts were at the latest Add or Skip.
func (s *Series) Seen() Counts { return s.seen }

// Last returns the events of the last d before the latest Add, in whole steps of which the
// latest counts as one: of 30 s for up to six hours, else of an hour.
func (s *Series) Last(d time.Duration) Counts {
	if n := int64(d / Step); n <= ringSteps {
		return s.fine.last(n)
	}
	return s.coarse.last(int64(d / time.Hour))
}

// Onset returns since when the budget burns at least at a rate: the first bad event in the first
// of the latest steps of 30 s that all do, those without events aside, or the beginning of that step
// if nobody knew the event's time. It is zero if the latest step with events does not. It knows six hours.
func (s *Series) Onset(target, rate float64) time.Time {
	first := int64(-1)
	for n := s.fine.at; n > s.fine.at-ringSteps && n >= 0; n-- {
		c := s.fine.step(n)
		if c.Total == 0 {
			continue
		}
		if BurnRate(c, target) < rate {
			break
		}
		first = n
	}
	if first < 0 {
		return time.Time{}
	}
	return time.Unix(0, first*int64(Step)).Add(time.Duration(s.first[first%ringSteps]) * time.Millisecond)
}

// LastBurn returns the end of the latest step of 30 s in which the budget burnt at least at a rate,
// zero if none of the last six hours did.
func (s *Series) LastBurn(target, rate float64) time.Time {
	for n := s.fine.at; n > s.fine.at-ringSteps && n >= 0; n-- {
		if c := s.fine.step(n); c.Total > 0 && BurnRate(c, target) >= rate {
			return time.Unix(0, (n+1)*int64(Step))
		}
	}
	return time.Time{}
}

// ring holds the latest steps of time, the oldest overwritten by the newest.
type ring struct {
	steps [ringSteps]step
	at    int64 // number of the newest step, counted from 1970
}

// step takes half the memory of Counts; 4 billion calls in an hour are more than a gateway
// can do, and would be counted as just that many.
type step struct{ total, bad uint32 }

func saturate(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

func (r *ring) step(n int64) Counts {
	s := r.steps[n%ringSteps]
	return Counts{uint64(s.total), uint64(s.bad)}
}

func (r *ring) add(now time.Time, length time.Duration, news Counts) {
	n := max(now.UnixNano()/int64(length), r.at)
	for i := max(r.at+1, n-ringSteps+1); i <= n; i++ {
		r.steps[i%ringSteps] = step{}
	}
	r.at = n
	c := r.step(n)
	r.steps[n%ringSteps] = step{saturate(c.Total + news.Total), saturate(c.Bad + news.Bad)}
}

// last adds the newest n steps up.
func (r *ring) last(n int64) (sum Counts) {
	for i := r.at; i > r.at-min(n, ringSteps) && i >= 0; i-- {
		c := r.step(i)
		sum.Total += c.Total
		sum.Bad += c.Bad
	}
	return sum
}
