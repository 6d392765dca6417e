package incident

import (
	"slices"
	"time"
)

// maxLooks bounds how far back it is remembered what had been counted when: with one look for each interval, a little longer
// than it takes to find that a budget has not been burning for half an hour.
const maxLooks = 400

// counted is what callers of one gateway have noticed of a model in the course of an incident.
type counted struct {
	sum    Effect // since this gateway has joined it, and shortly before
	last   Effect // the gateway's counts as of the latest look
	before Effect // of the times that it was part of it before
	looks  []look // the latest last
}

// look is what had been counted at a time.
type look struct {
	at  time.Time
	sum Effect
}

// observe adds what the gateway's counts have grown by. Counts that are smaller than they were have begun
// anew: the route was deleted in between.
func (c *counted) observe(counts Effect, now time.Time) {
	if last := c.last; counts.Calls >= last.Calls && counts.Failed >= last.Failed && counts.FellBack >= last.FellBack && counts.Late >= last.Late {
		c.sum = c.sum.plus(Effect{counts.Calls - last.Calls, counts.Failed - last.Failed, counts.FellBack - last.FellBack, counts.Late - last.Late})
	} else {
		c.sum = c.sum.plus(counts)
	}
	c.last = counts
	if n := len(c.looks); n > 0 && c.looks[n-1].at.Truncate(interval).Equal(now.Truncate(interval)) {
		c.looks[n-1] = look{now, c.sum}
		return
	}
	if len(c.looks) == maxLooks {
		c.looks = slices.Delete(c.looks, 0, 1)
	}
	c.looks = append(c.looks, look{now, c.sum})
}

// all is everything.
func (c *counted) all() Effect { return c.before.plus(c.sum) }

// until is everything up to a time, as of the first look from then on.
func (c *counted) until(at time.Time) Effect {
	for _, l := range c.looks {
		if !l.at.Before(at) {
			return c.before.plus(l.sum)
		}
	}
	return c.all()
}

func (e Effect) plus(o Effect) Effect {
	return Effect{e.Calls + o.Calls, e.Failed + o.Failed, e.FellBack + o.FellBack, e.Late + o.Late}
}
