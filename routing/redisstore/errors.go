package redisstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"sluice/routing"
)

// damagedError says that a key does not hold what Sluice writes.
type damagedError struct{ key, what string }

// Error names the key.
func (e *damagedError) Error() string { return fmt.Sprintf("key %s is damaged: %s", e.key, e.what) }

// passing are the answers of a Redis that will do what was asked after a while.
var passing = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED"}

// hints say what to look at.
var hints = map[string]string{
	"READONLY":  "this is a replica: changes go to the primary",
	"OOM":       "Redis has reached maxmemory",
	"NOPERM":    "the user lacks a permission that docs/redis.md lists",
	"NOAUTH":    "the URL names no user and password",
	"WRONGPASS": "user or password are wrong, or the user is disabled",
	"MISCONF":   "Redis cannot write to its disk",
	"WRONGTYPE": "the key holds something that sluice did not write",
}

// translate puts an error of the client library in this module's terms. Errors
// that are so already stay.
func (s *Store) translate(err error) error {
	var conflict *routing.ConflictError
	var unavailable *routing.UnavailableError
	var refused *routing.RefusedError
	var field *routing.FieldError
	switch {
	case err == nil, errors.As(err, &conflict), errors.As(err, &unavailable), errors.As(err, &refused), errors.As(err, &field),
		errors.Is(err, routing.ErrUnchanged), errors.Is(err, routing.ErrGap):
		return err
	}
	var damaged *damagedError
	if errors.As(err, &damaged) {
		return &routing.RefusedError{Store: s.name, Reason: "DAMAGED", Err: err}
	}
	if isCut(err) {
		err = fmt.Errorf("%w: it has closed the connection while it answered; if it was not stopped, "+
			"client-output-buffer-limit may be too small for what is stored", err)
	}
	var answer redis.Error
	if !errors.As(err, &answer) {
		return &routing.UnavailableError{Store: s.name, Err: err}
	}
	reason, _, _ := strings.Cut(answer.Error(), " ")
	if slices.Contains(passing, reason) {
		return &routing.UnavailableError{Store: s.name, Err: err}
	}
	return &routing.RefusedError{Store: s.name, Reason: reason, Hint: hints[reason], Err: err}
}
