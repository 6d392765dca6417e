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
	found := routing.NewFound(q)
	size := firstPage
	for {
		if left := q.Max() - len(found.Changes); q.Model == "" { // of those of others, more have to be read
			size = min(size, left)
		}
		page, err := s.page(ctx, lowest, highest, q.OldestFirst, size)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			c, err := s.decodeChange(m)
			if err != nil {
				continue // of no use to anyone who asks for changes
			}
			found.Add(c)
		}
		if len(page) == 0 || found.Full() {
			return found.Changes, nil
		}
		size = nextPage(page)
		if last := "(" + page[len(page)-1].ID; q.OldestFirst {
			lowest = last
		} else {
			highest = last
		}
	}
}

// The number of entries asked for at once suits their size, as far as that is known: those
// of changes of all routes are large.
const (
	firstPage = 10
	pageBytes = 4 << 20
)

// nextPage is how many entries to ask for after a page.
func nextPage(page []redis.XMessage) int {
	bytes := 0
	for _, m := range page {
		bytes += sizeOf(m)
	}
	return max(1, min(pageSize, pageBytes*len(page)/max(bytes, 1)))
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
