package change

// PageHinkley is the test of Page ("Continuous inspection schemes", Biometrika 1954) for a mean that has grown, with
// the mean so far in the place of a known one (Hinkley 1971): m adds up by how much outcomes exceed that mean and a
// tolerance; an alarm is raised when m has risen from its lowest point by more than a threshold.
type PageHinkley struct {
	tolerance, threshold float64

	n, mean, sum, lowest float64
}

// hinkleyLeast is how many outcomes there have to be before the mean so far means something.
const hinkleyLeast = 30

// NewPageHinkley returns a detector; a tolerance of 0.005 and a threshold of 50 are customary for error rates.
func NewPageHinkley(tolerance, threshold float64) *PageHinkley {
	return &PageHinkley{tolerance: tolerance, threshold: threshold}
}

// Add tells of n outcomes, events of which were what the detector looks for.
func (p *PageHinkley) Add(events, n uint64) bool { return spread(events, n, p.Observe) }

// Observe tells of one outcome, and reports whether to raise an alarm; if so, the detector begins anew.
func (p *PageHinkley) Observe(x float64) bool {
	p.n++
	p.mean += (x - p.mean) / p.n
	p.sum += x - p.mean - p.tolerance
	p.lowest = min(p.lowest, p.sum)
	if p.n < hinkleyLeast || p.sum-p.lowest <= p.threshold {
		return false
	}
	*p = PageHinkley{tolerance: p.tolerance, threshold: p.threshold}
	return true
}
