package routing

import (
	"bytes"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// How long a store remembers a request key, and how many of them one does that keeps
// them in memory.
const (
	RequestKeyTTL  = 24 * time.Hour
	MaxRequestKeys = 10_000
)

// Answered returns what a store remembers of an update that it has answered, nil for
// one without a key. c is nil if there was nothing to change.
func (u *Update) Answered(c *routingv1.Change, at time.Time) *routingv1.StoredRequest {
	if u.RequestKey == "" {
		return nil
	}
	made := &routingv1.StoredRequest{Key: u.RequestKey, Digest: u.RequestDigest, Time: timestamppb.New(at)}
	if c != nil {
		made.Change = Shortened(c, 0)
	}
	return made
}

// Repeats returns the answer to an update whose key a store remembers: the change that
// was made, [ErrUnchanged] if there was nothing to change, or a [*FieldError] if something
// else was asked with that key.
func (u *Update) Repeats(made *routingv1.StoredRequest) (*routingv1.Change, error) {
	switch {
	case len(u.RequestDigest) > 0 && len(made.GetDigest()) > 0 && !bytes.Equal(u.RequestDigest, made.GetDigest()):
		return nil, &FieldError{Field: "request_key", Got: quote(u.RequestKey) + ", with which something else was asked",
			Want: "the same request as then, or a key of its own"}
	case made.GetChange() == nil:
		return nil, ErrUnchanged
	default:
		return made.GetChange(), nil
	}
}

// Shortened returns a change in which no more than so many routes have their documents;
// the others have their names only.
func Shortened(c *routingv1.Change, documents int) *routingv1.Change {
	if len(c.GetRoutes()) <= documents {
		return c
	}
	short := &routingv1.Change{
		Revision: c.GetRevision(), Id: c.GetId(), Epoch: c.GetEpoch(),
		PredecessorRevision: c.GetPredecessorRevision(), PredecessorId: c.GetPredecessorId(),
		Time: c.GetTime(), Actor: c.GetActor(), Reason: c.GetReason(), Forced: c.GetForced(),
		RequestKey: c.GetRequestKey(), Lost: c.GetLost(),
	}
	for i, r := range c.GetRoutes() {
		if i >= documents {
			r = &routingv1.RouteChange{Model: r.GetModel()}
		}
		short.Routes = append(short.Routes, r)
	}
	return short
}
