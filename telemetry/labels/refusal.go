package labels

import (
	"fmt"
	"time"
)

// Reason is why a label was not counted.
type Reason uint8

// The reasons.
const (
	Malformed      Reason = iota // the id is none, or damaged
	UnknownKey                   // it was signed with a key that is not known
	BadSignature                 // it was not made by a gateway
	UnknownVersion               // nobody takes labels for the version
	Late                         // the prediction is too old
	WrongKind                    // the route predicts something else than the label is of
	UnknownClass                 // the class is none of the route's, or these have changed
	NoPrediction                 // the answer was not understood
	WrongTime                    // the label is from the future, or older than its prediction
	Full                         // there are more labels than can be told apart
	WrongRow                     // the answer has no such row, or several and none is said
	Reasons                      // the number of reasons
)

// String returns the reason as metrics have it.
func (r Reason) String() string {
	return [...]string{"malformed", "unknown_key", "bad_signature", "unknown_version", "late", "wrong_kind", "unknown_class",
		"no_prediction", "wrong_time", "full", "wrong_row"}[r]
}

// Refusal says why a label was not counted.
type Refusal struct {
	Reason Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// Label is what turned out to be true of one prediction.
type Label struct {
	// ID is that of the prediction.
	ID string
	// Row is which of the answer's rows it is of, from 0; NoRow if that is not said.
	Row int
	// Truth says which of the others is set.
	Truth Truth
	// Class is the name of the true class.
	Class string
	// Number is the true number, or the reward.
	Number float64
	// Time is when the truth became known; zero means now.
	Time time.Time
}

// NoRow is the row of a label that does not say one, which does for answers of one row.
const NoRow = -1

// at is when the truth became known.
func (l *Label) at(now time.Time) time.Time {
	if l.Time.IsZero() {
		return now
	}
	return l.Time
}

// Truth is what a label is of.
type Truth uint8

// The kinds of truth.
const (
	NoTruth Truth = iota
	TrueClass
	TrueNumber
	Reward
)
