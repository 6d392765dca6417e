// Package redisstore keeps the routing state in Redis, for any number of
// gateways: one Redis, one with Sentinel, or a Cluster.
//
// Three keys share a hash tag, "{sluice}" unless the URL says otherwise:
//
//	{sluice}:head     hash: revision, id, epoch, time and the number of entries
//	{sluice}:routes   hash: a StoredRoute per model, tombstones too
//	{sluice}:changes  stream: a Change per entry, whose id is <revision>-0
//
// and for a day {sluice}:request:<key> per request key, a StoredRequest, and {sluice}:shelf:<name>, a
// hash per shelf. A change is one
// transaction under WATCH, without scripts, so a user with few permissions
// suffices; docs/redis.md lists them. Nothing is ever removed but old changes.
package redisstore

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/routing"
)

// Config says which Redis, and how patiently. URL has to be set.
type Config struct {
	// URL is one of the forms that [Forms] lists.
	URL string
	// Block is how long one XREAD waits for a change, and thereby how long a Watch
	// may take to end. Default 1 s.
	Block time.Duration
	// Poll is the mean time between two looks at the revision, which find what the
	// stream did not tell; each waits between half and one and a half of it.
	// Default 2.5 s.
	Poll time.Duration
	// PollOnly never reads the stream while waiting.
	PollOnly bool
	// Timeout bounds one command. Default 1 s.
	Timeout time.Duration
	// MaxChanges is about how many changes the stream keeps. Default 10,000.
	MaxChanges int64
	// MaxBytes is the most the changes that the stream keeps take, as they are encoded,
	// except for the newest one. Default 64 MiB.
	MaxBytes int64
}

// UpdateTimeout bounds a change, whatever Redis does.
const UpdateTimeout = 1500 * time.Millisecond

// Store is a [routing.Store] in Redis.
type Store struct {
	cfg    Config
	name   string
	client redis.UniversalClient
	keys   keys

	mu         sync.Mutex
	health     routing.Health
	entriesAt  routing.Position // where entriesHad was seen
	entriesHad int64            // entries found by the last Load
}

type keys struct{ head, routes, changes, request, shelf, marks string }

func newKeys(prefix string) keys {
	tag := "{" + prefix + "}:"
	return keys{head: tag + "head", routes: tag + "routes", changes: tag + "changes", request: tag + "request:", shelf: tag + "shelf:", marks: tag + "marks:"}
}

// quiet keeps the client library from writing to standard error: what matters is
// returned, and shown in the status.
type quiet struct{}

// Printf discards.
func (quiet) Printf(context.Context, string, ...any) {}

var silence = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

// Open checks the URL and returns a store. It connects to nothing yet: a Redis
// that is down is no reason not to start.
func Open(cfg Config) (*Store, error) {
	target, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Block == 0 {
		cfg.Block = time.Second
	}
	if cfg.Poll == 0 {
		cfg.Poll = 2500 * time.Millisecond
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	if cfg.MaxChanges == 0 {
		cfg.MaxChanges = 10_000
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	silence()
	return &Store{
		cfg:    cfg,
		name:   target.name,
		client: redis.NewUniversalClient(target.options(cfg)),
		keys:   newKeys(target.prefix),
	}, nil
}

// String names the store, without user and password.
func (s *Store) String() string { return s.name }

// Close closes all connections.
func (s *Store) Close() error { return s.client.Close() }

// Health returns how the last command went.
func (s *Store) Health() routing.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// answered notes how a command went and returns its error in this module's
// terms.
func (s *Store) answered(err error) error {
	err = s.translate(err)
	var unavailable *routing.UnavailableError
	var refused *routing.RefusedError
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	bad := errors.As(err, &unavailable) || errors.As(err, &refused)
	if !bad {
		s.health.Answered = now
	}
	if bad != (s.health.Err != nil) || s.health.Since.IsZero() {
		s.health.Since = now
	}
	s.health.Err = nil
	if bad {
		s.health.Err = err
	}
	return err
}

// noteWrite remembers why a change was refused, until one is made.
func (s *Store) noteWrite(err error) {
	var refused *routing.RefusedError
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || errors.As(err, &refused) {
		s.health.WriteErr = err
	}
}

// noteLate remembers why the stream cannot be waited for, nil if it can.
func (s *Store) noteLate(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.Late = err
}

// head is what {sluice}:head says, and how many entries there really are.
type head struct {
	routing.Position
	time    time.Time
	entries int64 // that there should be
	found   int64 // that there are
}

// readHead asks for the head and counts the entries, both as of the same moment.
// That is no transaction, which a Redis that is out of memory would not begin:
// reading has to go on while writing does not.
func (s *Store) readHead(ctx context.Context) (head, error) {
	for {
		h, err := s.readHeadBy(ctx, s.client)
		if !errors.Is(err, errOvertaken) {
			return h, err
		}
	}
}

// pipeliner is a client or a transaction that is yet to come.
type pipeliner interface {
	Pipelined(context.Context, func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// readHeadBy is one attempt; it fails with errOvertaken if a change was made in
// the middle of it.
func (s *Store) readHeadBy(ctx context.Context, by pipeliner) (head, error) {
	var fields, again *redis.SliceCmd
	var count *redis.IntCmd
	_, err := by.Pipelined(ctx, func(p redis.Pipeliner) error {
		fields = p.HMGet(ctx, s.keys.head, "revision", "id", "epoch", "time", "entries")
		count = p.HLen(ctx, s.keys.routes)
		again = p.HMGet(ctx, s.keys.head, "id")
		return nil
	})
	if err != nil {
		return head{}, err
	}
	if fields.Val()[1] != again.Val()[0] {
		return head{}, errOvertaken
	}
	return s.decodeHead(fields.Val(), count.Val())
}

func (s *Store) decodeHead(fields []any, found int64) (head, error) {
	h := head{found: found}
	if fields[0] == nil {
		return h, nil // nothing was ever written, or all of it is gone
	}
	var texts [5]string
	for i, f := range fields {
		texts[i], _ = f.(string)
	}
	var errs [4]error
	h.Revision, errs[0] = strconv.ParseUint(texts[0], 10, 64)
	h.ID = texts[1]
	h.Epoch, errs[1] = strconv.ParseUint(texts[2], 10, 64)
	h.time, errs[2] = time.Parse(time.RFC3339Nano, texts[3])
	h.entries, errs[3] = strconv.ParseInt(texts[4], 10, 64)
	if err := errors.Join(errs[:]...); err != nil || h.ID == "" || h.Revision == 0 {
		return h, &damagedError{s.keys.head, "it does not hold revision, id, epoch, time and entries as sluice writes them"}
	}
	return h, nil
}
