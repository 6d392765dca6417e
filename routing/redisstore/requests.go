package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// madeBefore returns the change that was made for an update's request key, as the
// history has it, or without documents once that has forgotten it. A request that found
// nothing to change, or asked for something else, is an error, see
// [routing.Update.Repeats].
func (s *Store) madeBefore(ctx context.Context, c redis.Cmdable, u *routing.Update) (*routingv1.Change, error) {
	if u.RequestKey == "" {
		return nil, nil
	}
	text, err := c.Get(ctx, s.keys.request+u.RequestKey).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	request := new(routingv1.StoredRequest)
	if err := proto.Unmarshal([]byte(text), request); err != nil || request.GetKey() != u.RequestKey {
		return nil, &damagedError{s.keys.request + u.RequestKey, "it does not hold a request"}
	}
	made, err := u.Repeats(request)
	if err != nil {
		return nil, err
	}
	whole, err := s.entryOf(ctx, c, made.GetRevision())
	if err != nil || whole.GetId() != made.GetId() {
		return made, err
	}
	return whole, nil
}

// setRequest adds to a transaction that a request has been answered; nil adds nothing.
func (s *Store) setRequest(ctx context.Context, p redis.Pipeliner, request *routingv1.StoredRequest) error {
	if request == nil {
		return nil
	}
	value, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	p.Set(ctx, s.keys.request+request.GetKey(), value, routing.RequestKeyTTL)
	return nil
}

// noteUnchanged remembers, under WATCH, that a request with a key found nothing to
// change: repeated later, it must not find something.
func (s *Store) noteUnchanged(ctx context.Context, tx *redis.Tx, u *routing.Update) error {
	request := u.Answered(nil, time.Now())
	if request == nil {
		return nil
	}
	cmds, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return s.setRequest(ctx, p, request) })
	return reasonOf(cmds, err)
}
