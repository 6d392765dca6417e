// Package stores opens the store that a --store flag names.
package stores

import (
	"fmt"
	"strings"

	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/memstore"
	"sluice/routing/redisstore"
)

// Forms lists what [Open] accepts, for errors and help.
const Forms = "memory, file:DIR, " + redisstore.Forms

// Kind says what a gateway should know of a store.
type Kind uint8

// The kinds.
const (
	// Memory forgets everything with the process. The file of routes is followed.
	Memory Kind = iota
	// File survives a restart, on this machine.
	File
	// Redis is shared, and may be out of reach: a copy is kept on disk.
	Redis
)

// SpecError says that a text names no store, or not as it has to.
type SpecError struct{ err error }

// Error says what is accepted; it never repeats a password.
func (e *SpecError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *SpecError) Unwrap() error { return e.err }

// Open returns the store that a flag's value names; empty means memory. Errors
// name what is accepted and never a password; where the value itself is wrong, it is
// a [*SpecError].
func Open(spec string) (routing.Store, Kind, error) {
	switch {
	case spec == "" || spec == "memory":
		return memstore.New(memstore.Config{}), Memory, nil
	case strings.HasPrefix(spec, "file:"):
		dir := strings.TrimPrefix(spec, "file:")
		if dir == "" {
			return nil, File, &SpecError{fmt.Errorf("store: got \"file:\" without a folder, want %s", Forms)}
		}
		store, err := filestore.Open(dir)
		if err != nil {
			return nil, File, fmt.Errorf("store: %w", err)
		}
		return store, File, nil
	case redisstore.IsURL(spec):
		store, err := redisstore.Open(redisstore.Config{URL: spec})
		if err != nil {
			return nil, Redis, &SpecError{err} // nothing has been asked yet
		}
		return store, Redis, nil
	default:
		scheme, _, _ := strings.Cut(spec, ":") // what follows may hold a password
		return nil, Memory, &SpecError{fmt.Errorf("store: got %q, want one of %s", scheme, Forms)}
	}
}
