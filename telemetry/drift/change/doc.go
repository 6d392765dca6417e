// Package change finds, in a stream of outcomes, the moment from which on things go worse.
//
// A detector is told one outcome after the other and says when to raise an alarm. It keeps a bounded number of
// values, whatever the length of the stream. A detector belongs to one goroutine at a time.
//
// [ESR] promises how rare its false alarms are and needs to know the rate before; [ADWIN] and [PageHinkley] learn
// that rate from the stream itself, and promise nothing of the kind.
package change

// A Detector watches the rate of events among outcomes.
type Detector interface {
	// Add tells of n outcomes, events of which were what is looked for, and reports whether to raise an alarm.
	Add(events, n uint64) bool
}

// mostSpread is as how many outcomes a larger sum is taken, so that it takes milliseconds whatever somebody has counted.
const mostSpread = 1 << 20

// spread calls observe for n outcomes, events of which are 1 and the others 0, as evenly as they go: in which order
// they came is not known. It reports whether observe ever did.
func spread(events, n uint64, observe func(x float64) bool) (alarm bool) {
	events = min(events, n)
	for n > mostSpread {
		events, n = events/2, n/2
	}
	var acc uint64
	for range n {
		x := 0.0
		if acc += events; acc >= n {
			acc -= n
			x = 1
		}
		alarm = observe(x) || alarm
	}
	return alarm
}
