package redisstore

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// An entry of the stream has one of two fields: an encoded Change, or the same
// compressed by gzip. Documents are much alike, and Redis closes a connection
// whose answer outgrows client-output-buffer-limit.
const (
	changeField     = "change"
	compressedField = "change.gz"
)

// compressAbove is the size in bytes from which a change is compressed.
const compressAbove = 16 << 10

// maxChange bounds what is decompressed, in bytes. Redis takes values of at most
// 512 MiB.
const maxChange = 512 << 20

// encodeChange returns a stream entry's field and value, and the value's size in bytes.
func encodeChange(c *routingv1.Change) (entry []any, size int, err error) {
	encoded, err := proto.Marshal(c)
	if err != nil || len(encoded) < compressAbove {
		return []any{changeField, encoded}, len(encoded), err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, 0, err
	}
	if _, err := z.Write(encoded); err != nil {
		return nil, 0, err
	}
	if err := z.Close(); err != nil {
		return nil, 0, err
	}
	return []any{compressedField, b.Bytes()}, b.Len(), nil
}

// encodedChange returns what encodeChange was given, nil if the entry has no such
// field.
func encodedChange(m redis.XMessage) []byte {
	if text, ok := m.Values[changeField].(string); ok {
		return []byte(text)
	}
	text, ok := m.Values[compressedField].(string)
	if !ok {
		return nil
	}
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		return nil
	}
	encoded, err := io.ReadAll(io.LimitReader(z, maxChange))
	if err != nil {
		return nil
	}
	return encoded
}

// streamID returns the id of a revision's entry in the stream.
func streamID(revision uint64) string { return strconv.FormatUint(revision, 10) + "-0" }

// decodeChange reads an entry of the stream.
func (s *Store) decodeChange(m redis.XMessage) (*routingv1.Change, error) {
	c := new(routingv1.Change)
	if proto.Unmarshal(encodedChange(m), c) != nil || streamID(c.GetRevision()) != m.ID || c.GetId() == "" {
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
