package routing

import (
	"errors"
	"maps"
	"slices"
)

// The operations on a store whose failures are counted.
const (
	OpFollow  = "follow"
	OpUpdate  = "update"
	OpHistory = "history"
)

// StoreError is a kind of failure: what was asked of a store and what kept it from
// that. Both come from short lists, whatever the store says.
type StoreError struct{ Op, Reason string }

// Reasons of failures beside the store's own words.
const (
	ReasonUnavailable = "UNAVAILABLE" // it does not answer
	ReasonOther       = "OTHER"
)

// storeWords are the reasons of a [RefusedError] that are counted by themselves.
var storeWords = []string{
	"READONLY", "OOM", "NOPERM", "NOAUTH", "WRONGPASS", "MISCONF", "NOREPLICAS", "WRONGTYPE", "DAMAGED", "DISK",
}

// StoreCounts are what has happened between a [Watcher] and its store since the
// Watcher was made.
type StoreCounts struct {
	Errors      map[StoreError]uint64
	Reconnects  uint64 // times that the store was followed again after it was not
	LostChanges uint64 // changes that the store had acknowledged and lost
}

// newStoreCounts has the failures that every store may have at 0, so that somebody
// who watches them need not wait for the first.
func newStoreCounts() StoreCounts {
	c := StoreCounts{Errors: make(map[StoreError]uint64)}
	for _, op := range []string{OpFollow, OpUpdate, OpHistory} {
		c.Errors[StoreError{op, ReasonUnavailable}] = 0
	}
	return c
}

// count adds a failure of an operation to the counts. Races lost to others and
// updates that are wrong in themselves are no failures of the store. w.mu is held.
func (w *Watcher) count(op string, err error) {
	var unavailable *UnavailableError
	var refused *RefusedError
	e := StoreError{op, ReasonOther}
	switch {
	case errors.As(err, &refused):
		if slices.Contains(storeWords, refused.Reason) {
			e.Reason = refused.Reason
		}
	case errors.As(err, &unavailable):
		e.Reason = ReasonUnavailable
	case err == nil || op != OpFollow:
		return
	}
	w.counts.Errors[e]++
}

// counted is count for those who do not hold w.mu.
func (w *Watcher) counted(op string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(op, err)
}

// copied returns counts of the caller's own.
func (c StoreCounts) copied() StoreCounts {
	c.Errors = maps.Clone(c.Errors)
	return c
}
