package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Mark implements [routing.Marker]: an item is one BITFIELD, which Redis does whole. It says nothing about the health of
// the store, since a user who may not do it may be all that routes need.
func (s *Store) Mark(ctx context.Context, set string, keep time.Duration, items [][]uint32) (fresh []bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	key := s.keys.marks + set
	was := make([]*redis.IntSliceCmd, len(items))
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, bits := range items {
			args := make([]any, 0, 4*len(bits))
			for _, bit := range bits {
				args = append(args, "SET", "u1", bit, 1)
			}
			was[i] = p.BitField(ctx, key, args...)
		}
		p.PExpire(ctx, key, keep)
		return nil
	})
	if err != nil {
		return nil, s.translate(err)
	}
	fresh = make([]bool, len(items))
	for i, cmd := range was {
		for _, bit := range cmd.Val() {
			fresh[i] = fresh[i] || bit == 0
		}
	}
	return fresh, nil
}
