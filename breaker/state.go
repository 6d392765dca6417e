package breaker

// State of a breaker.
type State uint8

// The states.
const (
	// Closed: traffic flows.
	Closed State = iota
	// Open: cut off.
	Open
	// HalfOpen: a single probe is let through.
	HalfOpen
)

var stateNames = [...]string{"closed", "open", "half-open"}

// String returns the state's name.
func (s State) String() string { return stateNames[s] }

// Cause is why a breaker is in its state.
type Cause uint8

// The causes.
const (
	// CauseNew: it has always been closed.
	CauseNew Cause = iota
	// CauseConsecutive, CauseFailureRatio, CauseSlowRatio: this limit was reached.
	CauseConsecutive
	CauseFailureRatio
	CauseSlowRatio
	// CauseProbeDue: the open time is over and a call was let through.
	CauseProbeDue
	// CauseProbeFailed, CauseProbeSucceeded: that probe's result.
	CauseProbeFailed
	CauseProbeSucceeded
	// CauseForced, CauseReset: an operator's word.
	CauseForced
	CauseReset
)

var causeNames = [...]string{"new", "consecutive failures", "failure ratio", "slow calls",
	"open time over", "probe failed", "probe succeeded", "forced open", "reset"}

// String says the cause in words.
func (c Cause) String() string { return causeNames[c] }

// condition is all that Allow reads of a breaker whose state is closed: state, flags and generation
// in one word.
type condition uint64

const (
	stateMask       condition = 1<<2 - 1
	forcedFlag      condition = 1 << 2
	dryRunFlag      condition = 1 << 3
	generationShift           = 4
)

func (c condition) state() State       { return State(c & stateMask) }
func (c condition) forced() bool       { return c&forcedFlag != 0 }
func (c condition) dryRun() bool       { return c&dryRunFlag != 0 }
func (c condition) generation() uint64 { return uint64(c >> generationShift) }
