package routing

import (
	"context"
	"fmt"
	"regexp"
)

// A Shelf keeps small values beside the routing state, under names of their own:
// what gateways share or want to find again after a restart, such as incidents.
// What is on it has no history and no revision, and no call ever waits for it.
//
// Shelves are safe for concurrent use, by several gateways if the store is shared.
// They fail with [*UnavailableError], [*RefusedError] and [*FieldError] as stores do,
// within 2 s; an [*UnavailableError] says whether the value may have been set. Values that are returned belong to the caller.
type Shelf interface {
	// Get returns the value of a key, nil if there is none.
	Get(ctx context.Context, key string) ([]byte, error)

	// All returns every key with its value.
	All(ctx context.Context) (map[string][]byte, error)

	// Put sets the value of a key, whatever it was; nil removes the key.
	Put(ctx context.Context, key string, value []byte) error

	// Swap sets the value of a key (nil removes it) if its value is old, nil meaning
	// that there is none, and reports whether it was.
	Swap(ctx context.Context, key string, old, value []byte) (bool, error)
}

// Limits of what stands on a shelf. They keep a mistake of its user from filling
// the store; nothing here is meant to come near them.
const (
	MaxShelfKeys  = 10_000
	MaxShelfValue = 1 << 20 // bytes
)

// MaxShelfFile is how much one shelf holds in a store that writes it whole, in bytes.
const MaxShelfFile = 64 << 20

var shelfName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// CheckShelfName panics unless name may be that of a shelf: it is a constant of the
// program, never a caller's.
func CheckShelfName(name string) {
	if !shelfName.MatchString(name) {
		panic(fmt.Sprintf("routing: shelf %q: want a name that matches %v", name, shelfName))
	}
}

// CheckShelfEntry returns a [*FieldError] unless key and value may stand on a shelf.
func CheckShelfEntry(key string, value []byte) error {
	if len(key) == 0 || len(key) > 512 {
		return &FieldError{Field: "key", Got: fmt.Sprintf("%d bytes", len(key)), Want: "1 to 512 bytes"}
	}
	if len(value) > MaxShelfValue {
		return &FieldError{Field: key, Got: fmt.Sprintf("%d bytes", len(value)), Want: fmt.Sprintf("at most %d bytes", MaxShelfValue)}
	}
	return nil
}

// FullShelf is the error of a shelf that takes no more.
func FullShelf(store, shelf, limit string) error {
	return &RefusedError{Store: store, Reason: "FULL", Err: fmt.Errorf("shelf %q has reached its limit of %s", shelf, limit)}
}
