package redisstore

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/redis/go-redis/v9"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// History reads the stream from either end, page by page.
func (s *Store) History(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	found, err := s.history(ctx, q)
	return found, s.answered(err)
}

func (s *Store) history(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	lowest, highest := "-", "+"
	if q.From > 0 {
		lowest = streamID(q.From)
	}
	if q.To > 0 {
		highest = streamID(q.To)
	}
	var found []*routingv1.Change
	for {
		page, err := s.page(ctx, lowest, highest, q.OldestFirst, min(pageSize, q.Max()-len(found)))
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			c, err := s.decodeChange(m)
			if err != nil {
				continue // of no use to anyone who asks for changes
			}
			if q.Matches(c) {
				found = append(found, c)
			}
		}
		if len(page) == 0 || len(found) == q.Max() {
			return found, nil
		}
		if last := "(" + page[len(page)-1].ID; q.OldestFirst {
			lowest = last
		} else {
			highest = last
		}
	}
}

// page returns up to n entries of the stream between two ids. If Redis will not
// send as many, it returns one.
func (s *Store) page(ctx context.Context, lowest, highest string, oldestFirst bool, n int) ([]redis.XMessage, error) {
	read := func(n int) ([]redis.XMessage, error) {
		if oldestFirst {
			return s.client.XRangeN(ctx, s.keys.changes, lowest, highest, int64(n)).Result()
		}
		return s.client.XRevRangeN(ctx, s.keys.changes, highest, lowest, int64(n)).Result()
	}
	entries, err := read(n)
	if n > 1 && isCut(err) {
		return read(1)
	}
	return entries, err
}

// isCut reports whether the connection ended while Redis was answering.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
