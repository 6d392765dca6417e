package incident

// counted is what callers of one gateway have noticed of a model in the course of an incident.
type counted struct {
	sum    Effect // since this gateway has joined it, and shortly before
	last   Effect // the gateway's counts as of the latest look
	before Effect // of the times that it was part of it before
}

// observe adds what the gateway's counts have grown by. Counts that are smaller than they were have begun
// anew: the route was deleted in between.
func (c *counted) observe(counts Effect) {
	if last := c.last; counts.Calls >= last.Calls && counts.Failed >= last.Failed && counts.FellBack >= last.FellBack {
		c.sum = c.sum.plus(Effect{counts.Calls - last.Calls, counts.Failed - last.Failed, counts.FellBack - last.FellBack})
	} else {
		c.sum = c.sum.plus(counts)
	}
	c.last = counts
}

// all is everything.
func (c *counted) all() Effect { return c.before.plus(c.sum) }

func (e Effect) plus(o Effect) Effect {
	return Effect{e.Calls + o.Calls, e.Failed + o.Failed, e.FellBack + o.FellBack}
}
