package breaker

import (
	"fmt"
	"slices"
	"strings"
)

// Priority is how much a caller needs its answer, for the time when not all can have one. The zero
// value is Normal.
type Priority uint8

// The priorities.
const (
	Normal Priority = iota
	// Critical may use the places that [Limits].Reserve keeps, and passes an adaptive limit, up to the
	// static one.
	Critical
	// Sheddable may use three quarters of a limit: it is refused first.
	Sheddable
)

var priorityNames = [...]string{"normal", "critical", "sheddable"}

// String returns the priority's name.
func (p Priority) String() string { return priorityNames[p] }

// ParsePriority returns the priority of that name; the empty name means Normal.
func ParsePriority(name string) (Priority, error) {
	if name == "" {
		return Normal, nil
	}
	if i := slices.Index(priorityNames[:], name); i >= 0 {
		return Priority(i), nil
	}
	return Normal, fmt.Errorf("priority: got %q, want one of %s", name, strings.Join(priorityNames[:], ", "))
}

// share is the part of n places that the priority may use, the reserve being for Critical alone.
func (p Priority) share(n, reserve int64) int64 {
	switch p {
	case Critical:
		return n
	case Sheddable:
		return max((n-reserve)*3/4, 1)
	case Normal:
	}
	return max(n-reserve, 1)
}
