package redisstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// totalField of an entry of the stream says how many bytes the values of all entries up
// to it have, of those that were ever there. Of two entries it tells what is between them,
// so that the stream is bounded in bytes without being read, or asking Redis for its
// memory, which needs a further permission. Entries of others lack it, and count as 0.
const totalField = "total"

// streamEnds are what an addition to the stream has to know.
type streamEnds struct {
	top           uint64 // first part of the greatest id it has had
	before, total int64  // the total before its first entry, and that of its last one
}

// readStreamEnds also fails, before anything is written, where the key is no stream.
func (s *Store) readStreamEnds(ctx context.Context, tx *redis.Tx) (streamEnds, error) {
	info, err := tx.XInfoStream(ctx, s.keys.changes).Result()
	if err != nil {
		if strings.HasPrefix(err.Error(), "ERR no such key") {
			err = nil
		}
		return streamEnds{}, err
	}
	text, _, _ := strings.Cut(info.LastGeneratedID, "-")
	top, err := strconv.ParseUint(text, 10, 64)
	first := info.FirstEntry
	return streamEnds{top, max(0, totalOf(first)-int64(sizeOf(first))), totalOf(info.LastEntry)}, err
}

func totalOf(m redis.XMessage) int64 {
	text, _ := m.Values[totalField].(string)
	total, _ := strconv.ParseInt(text, 10, 64)
	return max(0, total)
}

// sizeOf is that of the change in an entry, in bytes.
func sizeOf(m redis.XMessage) int {
	plain, _ := m.Values[changeField].(string)
	compressed, _ := m.Values[compressedField].(string)
	return len(plain) + len(compressed)
}

// addition returns what adds a change to the stream, and trims it: to about MaxChanges, or
// where they have become too large, to MaxBytes and the newest.
func (s *Store) addition(ctx context.Context, tx *redis.Tx, ends streamEnds, c *routingv1.Change) (*redis.XAddArgs, error) {
	values, size, err := encodeChange(c)
	if err != nil {
		return nil, err
	}
	total := ends.total + int64(size)
	add := &redis.XAddArgs{
		Stream: s.keys.changes, ID: streamID(c.GetRevision()), MaxLen: s.cfg.MaxChanges, Approx: true,
		Values: append(values, totalField, total),
	}
	if total-ends.before <= s.cfg.MaxBytes {
		return add, nil
	}
	add.MaxLen, add.Approx = 0, false
	add.MinID, err = s.firstAfter(ctx, tx, total-s.cfg.MaxBytes)
	if add.MinID == "" {
		add.MinID = add.ID // all that were there are too much
	}
	return add, err
}

// firstAfter returns the id of the first entry before which there are at least so many
// bytes, empty if there is none. After every change the stream is within its bounds, so
// few entries have to be looked at.
func (s *Store) firstAfter(ctx context.Context, tx *redis.Tx, bytes int64) (string, error) {
	const few = 4
	enough := false
	for lowest := "-"; ; {
		page, err := tx.XRangeN(ctx, s.keys.changes, lowest, "+", few).Result()
		if err != nil || len(page) == 0 {
			return "", err
		}
		for _, m := range page {
			if enough {
				return m.ID, nil
			}
			enough = totalOf(m) >= bytes
			lowest = "(" + m.ID
		}
	}
}
