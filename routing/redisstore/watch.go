package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Watch follows the stream, and looks at the head now and then: the stream may be
// gone, cut short, or not be readable by this user.
func (s *Store) Watch(ctx context.Context, after routing.Position, deliver func(*routingv1.Change) error) error {
	f := &follower{store: s, at: after, deliver: deliver, polling: s.cfg.PollOnly}
	for {
		if err := f.step(ctx); err != nil {
			if hasEnded(ctx) {
				return ctx.Err()
			}
			return err
		}
	}
}

// hasEnded reports whether ctx has ended. A connection may notice its deadline a
// moment earlier than the context's own timer.
func hasEnded(ctx context.Context) bool {
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// follower is one Watch.
type follower struct {
	store    *Store
	at       routing.Position // delivered last
	deliver  func(*routingv1.Change) error
	polling  bool // the stream cannot be read while waiting
	nextPoll time.Time
}

// step polls if it is time to, and else waits for a change.
func (f *follower) step(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !time.Now().Before(f.nextPoll) {
		s := f.store
		mean := s.cfg.Poll
		f.nextPoll = time.Now().Add(mean/2 + rand.N(mean))
		f.polling = s.cfg.PollOnly // it may be allowed to read the stream by now
		return f.poll(ctx)
	}
	if f.polling {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(f.nextPoll)):
		}
		return nil
	}
	return f.read(ctx)
}

// poll compares the head with what was delivered and fetches what is missing.
func (f *follower) poll(ctx context.Context) error {
	s := f.store
	h, err := s.readHead(ctx)
	if err = s.answered(err); err != nil {
		return err
	}
	if s.hasLostEntries(h) {
		return routing.ErrGap
	}
	for f.at != h.Position {
		changes, err := s.changesAfter(ctx, f.at)
		if isCut(err) {
			return fmt.Errorf("%w: %w", routing.ErrGap, err) // a single change is too much; a Load has smaller pieces
		}
		if err != nil {
			return s.answered(err)
		}
		if len(changes) == 0 {
			return routing.ErrGap
		}
		if err := f.pass(changes); err != nil {
			return err
		}
		if f.at.Revision > h.Revision {
			return nil // it has moved on since we asked
		}
	}
	return nil
}

// read waits for the stream to tell of changes.
func (f *follower) read(ctx context.Context) error {
	s := f.store
	waiting, cancel := context.WithTimeout(ctx, s.cfg.Block+s.cfg.Timeout)
	defer cancel()
	streams, err := s.client.XRead(waiting, &redis.XReadArgs{
		Streams: []string{s.keys.changes},
		ID:      streamID(f.at.Revision),
		Count:   pageSize,
		Block:   s.cfg.Block,
	}).Result()
	if errors.Is(err, redis.Nil) {
		s.noteLate(nil)
		return s.answered(nil)
	}
	if isCut(err) {
		f.nextPoll = time.Time{} // perhaps it was too much at once; polling takes it in pieces
		return nil
	}
	var refused *routing.RefusedError
	if errors.As(s.translate(err), &refused) && refused.Reason == "NOPERM" {
		f.polling = true // which says whether that is all that is wrong
		s.noteLate(refused)
		return nil
	}
	if err = s.answered(err); err != nil {
		return err
	}
	s.noteLate(nil)
	for _, st := range streams {
		changes, err := s.continuing(st.Messages, f.at)
		if err != nil {
			return err
		}
		if err := f.pass(changes); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) pass(changes []*routingv1.Change) error {
	for _, c := range changes {
		if err := f.deliver(c); err != nil {
			return err
		}
		f.at = routing.PositionAfter(c)
		f.store.noteWrite(nil) // somebody can write, wherever that was
	}
	return nil
}

// hasLostEntries reports whether entries are missing that the last Load did not
// already find missing.
func (s *Store) hasLostEntries(h head) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.found < h.entries && (h.Position != s.entriesAt || h.found != s.entriesHad)
}
