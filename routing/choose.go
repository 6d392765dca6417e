package routing

import (
	"errors"
	"fmt"
	"math/bits"
)

// Errors of [Route.Choose] and [Route.ForcedByModelVersion], wrapped in a
// [VersionError].
var (
	// ErrUnknownVersion says that the route has no version of that name.
	ErrUnknownVersion = errors.New("unknown version")
	// ErrSharedVersion says that several versions go by that name on their
	// servers, so that it does not say which one is meant.
	ErrSharedVersion = errors.New("several versions have this name on their servers, ask by the version's own")
	// ErrForceNotAllowed says that callers may not ask for the version by name.
	ErrForceNotAllowed = errors.New("not open to being asked for by name (allow_force: false)")
)

// VersionError says which version was asked for, and why it is not to be had.
type VersionError struct {
	Model   string
	Version string // as the caller wrote it
	Err     error
}

// Error names model and version; of a caller's long name only the beginning.
func (e *VersionError) Error() string {
	return fmt.Sprintf("model %q: version %s: %v", e.Model, quote(e.Version), e.Err)
}

// Unwrap returns one of the sentinel errors above.
func (e *VersionError) Unwrap() error { return e.Err }

// Reason says why a version was chosen.
type Reason uint8

// The reasons, weakest first.
const (
	Weighted Reason = iota // a random draw by weight
	Sticky                 // the caller's key, by weight
	Forced                 // the caller asked for the version
)

// String returns the reason in lower case.
func (r Reason) String() string { return [...]string{"weighted", "sticky", "forced"}[r] }

// Choice is a version and the reason why it was chosen.
type Choice struct {
	Version *Version
	Reason  Reason
}

// Choose picks the version of one call. A force that is not empty names the
// version; otherwise a key that is not empty decides, the same key always alike;
// otherwise u does, which is to be uniform over all its values. The caller
// supplies u so that tests need no seed.
//
// A version without weight is chosen by force only. Errors are a
// [*VersionError] and concern force alone.
func (r *Route) Choose(force, key string, u uint64) (Choice, error) {
	switch {
	case force != "":
		return r.forced(force)
	case key != "":
		return Choice{r.stickyPick(key), Sticky}, nil
	default:
		return Choice{r.weightedPick(u), Weighted}, nil
	}
}

func (r *Route) forced(name string) (Choice, error) {
	v, ok := r.byName[name]
	if !ok {
		return Choice{}, &VersionError{r.Model, name, ErrUnknownVersion}
	}
	if !v.AllowForce {
		return Choice{}, &VersionError{r.Model, name, ErrForceNotAllowed}
	}
	return Choice{v, Forced}, nil
}

// ForcedByModelVersion returns the version that the model_version of a request
// asks for, to be given to [Route.Choose] as force: the version of that name,
// else the one that is called so on its server. It returns "" when the request
// forces nothing: the value is empty, or it fits no version and the route
// ignores that. Errors are a [*VersionError].
func (r *Route) ForcedByModelVersion(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	v, known := r.byModelVersion[value]
	switch {
	case v != nil:
		return v.Name, nil
	case r.IgnoreModelVersion:
		return "", nil
	case known:
		return "", &VersionError{r.Model, value, ErrSharedVersion}
	default:
		return "", &VersionError{r.Model, value, ErrUnknownVersion}
	}
}

// weightedPick maps u to a version. The high word of u*total is uniform over
// [0, total) but for a bias below total/2^64, less than 2^-32.
func (r *Route) weightedPick(u uint64) *Version {
	at, _ := bits.Mul64(u, r.total)
	for i := range r.split {
		if at < r.split[i].upTo {
			return r.split[i].version
		}
	}
	panic("routing: a route without weight passed validation")
}
