package redisstore

import (
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// changeField is the one field of a stream entry.
const changeField = "change"

// streamID returns the id of a revision's entry in the stream.
func streamID(revision uint64) string { return strconv.FormatUint(revision, 10) + "-0" }

// decodeChange reads an entry of the stream.
func (s *Store) decodeChange(m redis.XMessage) (*routingv1.Change, error) {
	text, ok := m.Values[changeField].(string)
	c := new(routingv1.Change)
	if !ok || proto.Unmarshal([]byte(text), c) != nil || streamID(c.GetRevision()) != m.ID || c.GetId() == "" {
		return nil, &damagedError{s.keys.changes, fmt.Sprintf("entry %q is not one that sluice writes", m.ID)}
	}
	return c, nil
}

// decodeEntry reads what is stored under a model's name.
func decodeEntry(model, value string) (*routingv1.StoredRoute, error) {
	entry := new(routingv1.StoredRoute)
	if err := proto.Unmarshal([]byte(value), entry); err != nil {
		return nil, fmt.Errorf("the store holds %d bytes that are not a route: %w", len(value), err)
	}
	if entry.GetModel() != model || entry.GetRoute() != nil && entry.GetRoute().GetModel() != model {
		return nil, fmt.Errorf("the store holds a route of model %q under this name", entry.GetModel())
	}
	return entry, nil
}
