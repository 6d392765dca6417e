package health

import "time"

// State is what is known of a target.
type State uint8

// The states. Unknown is as good as Healthy.
const (
	Unknown State = iota // no answer yet, nor enough failures
	Healthy
	Unhealthy
)

var stateNames = [...]string{"unknown", "healthy", "unhealthy"}

// String returns the state's name.
func (s State) String() string { return stateNames[s] }

// Status is a target at one moment.
type Status struct {
	State State
	// Why is what was wrong when it was asked last; empty if nothing was.
	Why string
	// Since is when it reached State; zero if it was never asked.
	Since time.Time
	// Asked is when it was last asked; zero if never.
	Asked time.Time
}

// verdict is what one answer, or none, says.
type verdict uint8

const (
	unasked  verdict = iota // there is no such question for this server
	alive                   // an answer
	refusing                // an answer that says not ready
	failed                  // no answer
)

// finding is a verdict, and what it rests on unless it is good.
type finding struct {
	verdict verdict
	why     string
}

// record is what the findings about a target add up to.
type record struct {
	Status
	row int // failures one after the other
}

// add takes a finding about questions that began at began. If calls have been answered
// since, a server that was not quick with an answer about its health is busy, not hung.
func (r *record) add(f finding, began, now, callAnswered time.Time, failAfter int) (changed bool) {
	before := r.State
	r.Asked, r.Why = now, f.why
	switch f.verdict {
	case unasked:
		return false
	case alive:
		r.row, r.State = 0, Healthy
	case refusing:
		r.row, r.State = 0, Unhealthy
	case failed:
		if callAnswered.After(began) {
			r.row = 0
			break
		}
		if r.row++; r.row >= failAfter {
			r.State = Unhealthy
		}
	}
	if r.State == before {
		return false
	}
	r.Since = now
	return true
}
