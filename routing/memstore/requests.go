package memstore

import (
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// requests are those that may be repeated. They are kept apart from the history, whose
// documents may be large and are forgotten earlier.
type requests struct {
	order []*routingv1.StoredRequest // oldest first
	byKey map[string]*routingv1.StoredRequest
}

// find returns what became of the request with a key, nil if none is remembered.
func (r *requests) find(key string, now time.Time) *routingv1.StoredRequest {
	made := r.byKey[key]
	if key == "" || made == nil || now.Sub(made.GetTime().AsTime()) > routing.RequestKeyTTL {
		return nil
	}
	return made
}

// add remembers a request, unless it is remembered already, and forgets those that are
// too many or too old.
func (r *requests) add(made *routingv1.StoredRequest) {
	if r.byKey == nil {
		r.byKey = make(map[string]*routingv1.StoredRequest)
	}
	if old := r.byKey[made.GetKey()]; old != nil && proto.Equal(old.GetTime(), made.GetTime()) {
		return
	}
	r.order = append(r.order, made)
	r.byKey[made.GetKey()] = made
	oldest := made.GetTime().AsTime().Add(-routing.RequestKeyTTL)
	for len(r.order) > routing.MaxRequestKeys || r.order[0].GetTime().AsTime().Before(oldest) {
		first := r.order[0]
		r.order[0] = nil
		r.order = r.order[1:]
		if r.byKey[first.GetKey()] == first {
			delete(r.byKey, first.GetKey())
		}
	}
}

// requestOf returns what is remembered of an entry, nil if it has no key.
func requestOf(entry *routingv1.JournalEntry) *routingv1.StoredRequest {
	r := entry.GetRequest()
	if r == nil || entry.GetChange() == nil {
		return r
	}
	return &routingv1.StoredRequest{
		Key: r.GetKey(), Digest: r.GetDigest(), Time: r.GetTime(), Change: routing.Shortened(entry.GetChange(), 0),
	}
}
