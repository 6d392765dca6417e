package routing

import (
	"errors"
	"fmt"
)

// ErrUnchanged is returned for an update that asks for what is there already.
// The store is as it was.
var ErrUnchanged = errors.New("nothing to change: the routes are so already")

// ErrGap is returned by [Store.Watch] when changes are missing between the
// position asked for and those the store has.
var ErrGap = errors.New("the store's changes do not continue from here")

// ConflictError says that somebody else was faster.
type ConflictError struct {
	Expected uint64 // the revision the update was made for
	Current  uint64 // the store's
}

// Error names both revisions.
func (e *ConflictError) Error() string {
	if e.Expected == e.Current {
		return fmt.Sprintf("conflict: revision %d is no longer the one this change was made for", e.Current)
	}
	return fmt.Sprintf("conflict: this change was made for revision %d, the routing state is at %d", e.Expected, e.Current)
}

// UnavailableError says that a store could not be reached or did not answer.
type UnavailableError struct {
	Store string
	// Unknown says that an update may have been made all the same: the store was
	// lost before it answered. Asking again with the same request key tells.
	Unknown bool
	Err     error
}

// Error says whether the change may have been made.
func (e *UnavailableError) Error() string {
	if e.Unknown {
		return fmt.Sprintf("%s did not answer, the change may or may not have been made: %v", e.Store, e.Err)
	}
	return fmt.Sprintf("%s is not available: %v", e.Store, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// RefusedError says that a store was reached and would not do what it was asked.
type RefusedError struct {
	Store string
	// Reason is the store's own word, such as READONLY, OOM or NOPERM.
	Reason string
	// Hint says what to look at.
	Hint string
	Err  error
}

// Error puts the store's own word first.
func (e *RefusedError) Error() string {
	text := fmt.Sprintf("%s refused: %v", e.Store, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }
