package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// pageSize is how many entries or changes are asked for at once. Redis closes a
// connection whose answer outgrows client-output-buffer-limit.
const pageSize = 100

// Load reads the whole state, page by page: what changes meanwhile is added from
// the stream.
func (s *Store) Load(ctx context.Context) (*routing.State, error) {
	state, err := s.load(ctx)
	for range 2 {
		if !errors.Is(err, routing.ErrGap) {
			break
		}
		state, err = s.load(ctx)
	}
	return state, s.answered(err)
}

func (s *Store) load(ctx context.Context) (*routing.State, error) {
	before, err := s.readHead(ctx)
	if err != nil {
		return nil, err
	}
	state := routing.StateOf(nil)
	if before.Revision == 0 {
		return state, nil
	}
	state.Position, state.Time = before.Position, before.time
	if err := s.scan(ctx, s.client, state); err != nil {
		return nil, err
	}
	after, err := s.readHead(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.catchUp(ctx, state, after.Position); err != nil {
		return nil, err
	}
	state.Removed = int(max(0, after.entries-after.found))
	s.mu.Lock()
	s.entriesAt, s.entriesHad = after.Position, after.found
	s.mu.Unlock()
	return state, nil
}

// scan adds all entries to a state. Those written meanwhile may be there in
// either form, so the changes since have to be applied.
func (s *Store) scan(ctx context.Context, c redis.Cmdable, state *routing.State) error {
	state.Unreadable = make(map[string]error)
	for cursor := uint64(0); ; {
		page, next, err := c.HScan(ctx, s.keys.routes, cursor, "", pageSize).Result()
		if isCut(err) { // too much at once
			page, next, err = c.HScan(ctx, s.keys.routes, cursor, "", 1).Result()
		}
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(page); i += 2 {
			addEntry(state, page[i], page[i+1])
		}
		if next == 0 {
			return nil
		}
		cursor = next
	}
}

func addEntry(state *routing.State, model, value string) {
	entry, err := decodeEntry(model, value)
	if err != nil {
		state.Unreadable[model] = err
		return
	}
	delete(state.Unreadable, model)
	state.Routes[model] = entry
}

// catchUp applies the changes from a state's position to another.
func (s *Store) catchUp(ctx context.Context, state *routing.State, to routing.Position) error {
	for state.Position != to {
		changes, err := s.changesAfter(ctx, state.Position)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return fmt.Errorf("%s: between revision %d and %d: %w", s.name, state.Revision, to.Revision, routing.ErrGap)
		}
		for _, c := range changes {
			if state.Position != to {
				state.Apply(c)
				for _, r := range c.GetRoutes() {
					delete(state.Unreadable, r.GetModel())
				}
			}
		}
	}
	return nil
}

// changesAfter returns the next page of changes that continue from a position. A
// break between them is ErrGap.
func (s *Store) changesAfter(ctx context.Context, at routing.Position) ([]*routingv1.Change, error) {
	page, err := s.page(ctx, streamID(at.Revision+1), "+", true, pageSize)
	if err != nil {
		return nil, err
	}
	return s.continuing(page, at)
}

// continuing decodes entries of the stream that have to follow a position and
// each other.
func (s *Store) continuing(page []redis.XMessage, at routing.Position) ([]*routingv1.Change, error) {
	changes := make([]*routingv1.Change, 0, len(page))
	for _, m := range page {
		c, err := s.decodeChange(m)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", routing.ErrGap, err)
		}
		if c.GetPredecessorRevision() != at.Revision || c.GetPredecessorId() != at.ID {
			return nil, fmt.Errorf("%s: revision %d does not follow revision %d: %w", s.name, c.GetRevision(), at.Revision, routing.ErrGap)
		}
		changes, at = append(changes, c), routing.PositionAfter(c)
	}
	return changes, nil
}
