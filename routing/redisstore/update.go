package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Update makes one change in one transaction.
func (s *Store) Update(ctx context.Context, u *routing.Update) (*routingv1.Change, error) {
	if err := u.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	for {
		c, err := s.try(ctx, u)
		if errors.Is(err, errOvertaken) {
			if !pause(ctx) {
				return nil, &routing.UnavailableError{Store: s.name, Err: err}
			}
			continue
		}
		err = s.answered(err)
		if !mayRetry(err) || !pause(ctx) {
			s.noteWrite(err)
			return c, err
		}
	}
}

// mayRetry reports whether nothing has happened and trying again may help.
func mayRetry(err error) bool {
	var unavailable *routing.UnavailableError
	return errors.As(err, &unavailable) && !unavailable.Unknown
}

// errOvertaken says that a watched key was touched by somebody else. The next
// attempt tells whether that matters.
var errOvertaken = errors.New("another change was made at the same time")

// pause waits a little; it reports false when time is up.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(20 * time.Millisecond):
		return true
	}
}

// try makes the change unless somebody else is faster.
func (s *Store) try(ctx context.Context, u *routing.Update) (made *routingv1.Change, err error) {
	var sent *routingv1.Change
	err = s.client.Watch(ctx, func(tx *redis.Tx) error {
		b, err := s.readBasis(ctx, tx, u)
		if err != nil || b.repeated != nil {
			made = b.repeated
			return err
		}
		c, err := u.Prepare(b.state, time.Now())
		if errors.Is(err, routing.ErrUnchanged) {
			return cmp.Or(s.noteUnchanged(ctx, tx, u), err)
		}
		if err != nil {
			return err
		}
		if err := s.makeRoom(ctx, tx, b, c); err != nil {
			return err
		}
		sent = c
		if err := s.write(ctx, tx, b, u, c); err != nil {
			return err
		}
		made = c
		return nil
	}, s.keys.head, s.keys.routes, s.keys.changes)
	switch {
	case made != nil: // what giving back the connection says does not matter
		return made, nil
	case errors.Is(err, redis.TxFailedErr):
		return nil, errOvertaken
	case sent != nil && !isAnswer(err):
		return s.resolve(ctx, sent, err)
	default:
		return nil, err
	}
}

// isAnswer reports whether Redis itself has said no.
func isAnswer(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// basis is what a change is made to.
type basis struct {
	head
	state    *routing.State
	existing int // entries of the update's models
	stream   streamEnds
	repeated *routingv1.Change // the change that was made for the same request key
}

// readBasis reads, under WATCH, what the update needs to know.
func (s *Store) readBasis(ctx context.Context, tx *redis.Tx, u *routing.Update) (*basis, error) {
	b := new(basis)
	var err error
	if b.head, err = s.readHeadBy(ctx, tx); err != nil {
		return b, err
	}
	if b.repeated, err = s.madeBefore(ctx, tx, u); err != nil || b.repeated != nil {
		return b, err
	}
	b.state = routing.StateOf(nil)
	b.state.Position = b.Position
	if b.Revision == 0 {
		b.state.Position = routing.Position{}
	}
	if b.stream, err = s.readStreamEnds(ctx, tx); err != nil {
		return b, err
	}
	if u.Expected != b.Revision {
		return b, nil // a conflict, which needs no documents
	}
	if s.hasLostEntries(b.head) {
		return b, fmt.Errorf("%s: %d of %d entries are gone: %w", s.name, b.entries-b.found, b.entries, routing.ErrGap)
	}
	if err := s.readEntries(ctx, tx, u, b); err != nil {
		return b, err
	}
	if u.ConcernsOthers(b.state) {
		return b, s.scan(ctx, tx, b.state)
	}
	return b, nil
}

// readEntries reads the entries of the update's models.
func (s *Store) readEntries(ctx context.Context, tx *redis.Tx, u *routing.Update, b *basis) error {
	models := append([]string(nil), u.Delete...)
	for _, r := range u.Set {
		models = append(models, r.GetModel())
	}
	b.state.Unreadable = make(map[string]error)
	for len(models) > 0 {
		page := models[:min(pageSize, len(models))]
		models = models[len(page):]
		values, err := tx.HMGet(ctx, s.keys.routes, page...).Result()
		if err != nil {
			return err
		}
		for i, v := range values {
			if text, ok := v.(string); ok {
				b.existing++
				addEntry(b.state, page[i], text)
			}
		}
	}
	return nil
}

// makeRoom keeps a change's revision above every id in the stream, without which
// only half of the transaction would succeed. They can be above the head only if
// somebody removed the head, or wrote to the stream; or made a change just now.
func (s *Store) makeRoom(ctx context.Context, tx *redis.Tx, b *basis, c *routingv1.Change) error {
	if b.stream.top < c.GetRevision() {
		return nil
	}
	now, err := s.readHeadBy(ctx, tx)
	switch {
	case err != nil:
		return err
	case now.Position != b.Position:
		return errOvertaken
	case b.Revision == 0 || len(c.GetLost()) > 0:
		c.Revision = b.stream.top + 1
		return nil
	}
	return &damagedError{s.keys.changes, fmt.Sprintf("its last id is %d-x, above revision %d; remove the key, which loses the history and no route",
		b.stream.top, b.Revision)}
}

// write is the transaction. It does not make the number of entries that there should be
// smaller where some are missing: a gateway that has not noticed yet is to notice.
func (s *Store) write(ctx context.Context, tx *redis.Tx, b *basis, u *routing.Update, c *routingv1.Change) error {
	entry, err := s.addition(ctx, tx, b.stream, c)
	if err != nil {
		return err
	}
	fields, added, err := entriesAfter(b, c)
	if err != nil {
		return err
	}
	cmds, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, s.keys.head, "revision", c.GetRevision(), "id", c.GetId(), "epoch", c.GetEpoch(),
			"time", c.GetTime().AsTime().Format(time.RFC3339Nano), "entries", max(b.entries, b.found+int64(added)))
		if len(fields) > 0 {
			p.HSet(ctx, s.keys.routes, fields...)
		}
		p.XAdd(ctx, entry)
		return s.setRequest(ctx, p, u.Answered(c, c.GetTime().AsTime()))
	})
	return reasonOf(cmds, err)
}

// entriesAfter returns what the routes hash has to say after a change, and how
// many of its fields are new.
func entriesAfter(b *basis, c *routingv1.Change) (fields []any, added int, err error) {
	for _, r := range c.GetRoutes() {
		value, err := proto.Marshal(routing.EntryAfter(c, r))
		if err != nil {
			return nil, 0, err
		}
		fields = append(fields, r.GetModel(), value)
		if b.state.Routes[r.GetModel()] == nil && b.state.Unreadable[r.GetModel()] == nil {
			added++
		}
	}
	return fields, added, nil
}

// reasonOf finds the command that Redis would not take: EXEC itself says no more
// than that there was one.
func reasonOf(cmds []redis.Cmder, err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "EXECABORT") {
		return err
	}
	for _, cmd := range cmds {
		if e := cmd.Err(); e != nil && isAnswer(e) && !strings.HasPrefix(e.Error(), "EXECABORT") {
			return e
		}
	}
	return err
}

// entryOf returns the change of one revision, nil if the stream has it no more.
func (s *Store) entryOf(ctx context.Context, c redis.Cmdable, revision uint64) (*routingv1.Change, error) {
	page, err := c.XRangeN(ctx, s.keys.changes, streamID(revision), streamID(revision), 1).Result()
	if err != nil || len(page) == 0 {
		return nil, err
	}
	return s.decodeChange(page[0])
}

// resolve finds out whether a change was made whose transaction was sent and not
// answered.
func (s *Store) resolve(ctx context.Context, sent *routingv1.Change, cause error) (*routingv1.Change, error) {
	unknown := &routing.UnavailableError{Store: s.name, Unknown: true, Err: cause}
	h, err := s.readHead(ctx)
	if err != nil {
		return nil, unknown
	}
	if h.ID == sent.GetId() {
		return sent, nil
	}
	if h.Revision <= sent.GetPredecessorRevision() {
		// It may still lie in a socket's buffer; or, after a failover, this is another Redis, which
		// knows less than the one that was asked.
		return nil, unknown
	}
	found, err := s.entryOf(ctx, s.client, sent.GetRevision())
	switch {
	case err != nil:
		return nil, unknown
	case found.GetId() == sent.GetId():
		return sent, nil
	default: // the watched head has moved on, so it cannot be made any more
		return nil, &routing.ConflictError{Expected: sent.GetPredecessorRevision(), Current: h.Revision}
	}
}
