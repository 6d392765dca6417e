package gateway

import (
	"context"
	"errors"
	"time"

	"sluice/gateway/identify"
	"sluice/routing"
	"sluice/shadow"
	"sluice/shadow/tape"
)

// Replay says which calls that were kept are made again, of whom, and how fast.
type Replay struct {
	Version *routing.Version // any of its route
	From    string           // the name of a file; empty means all of the route's
	Rate    float64          // calls per second
	Limit   uint64           // of calls; 0 means all there are
	// Sequences makes calls again that belong to a sequence, too.
	Sequences bool
}

// What can keep a replay from beginning.
var (
	ErrNoCaptures = errors.New("no calls are kept: the gateway was started without --capture-dir")
	ErrReplaying  = errors.New("another replay is under way")
)

// errLimit ends the reading of files.
var errLimit = errors.New("as many calls as are wanted")

const (
	// replayLook is how often a replay looks whether there is room for more, and replayTell
	// how often it tells where it is.
	replayLook = 5 * time.Millisecond
	replayTell = time.Second
	// replayCatchUp is how far a replay may be behind its rate and still make up for it.
	replayCatchUp = 100 * time.Millisecond
)

// Replay makes calls again that were kept, and compares the answers with those that
// callers got then, by the rules of the version's shadow if it is one. It tells every
// second, and in the end, how many calls it has read and what they have brought; an error of
// tell ends it. Versions' breakers and limits neither know of it nor count.
func (g *Gateway) Replay(ctx context.Context, r Replay, tell func(read uint64, at shadow.Status) error) error {
	s := g.director.snapshot.Load()
	switch {
	case g.cfg.CaptureDir == "":
		return ErrNoCaptures
	case s == nil || s.targets.get(r.Version) == nil:
		return errors.New("the version is gone")
	case !g.replaying.CompareAndSwap(false, true):
		return ErrReplaying
	}
	defer g.replaying.Store(false)
	files, err := tape.Files(g.cfg.CaptureDir, r.Version.Model, r.From)
	if err != nil {
		return err
	}
	var settings shadow.Settings
	if route, ok := s.table.Route(r.Version.Model); ok {
		for _, sh := range route.Shadows {
			if sh.Version == r.Version {
				settings = mirrorSettings(route, sh)
				settings.Rate = 0
			}
		}
	}
	settings.Sequences = r.Sequences
	m := shadow.New(replayTarget{s.targets.get(r.Version)}, shadow.Limits{}, settings)
	defer m.Close()
	return replay(ctx, m, r, files, tell)
}

// replay offers calls at their rate, and waits for the last.
func replay(ctx context.Context, m *shadow.Mirror, r Replay, files []string, tell func(uint64, shadow.Status) error) error {
	read := uint64(0)
	told := time.Now()
	pace := pace{between: time.Duration(float64(time.Second) / r.Rate), due: told}
	pause := func(until time.Time) error {
		for {
			now := time.Now()
			if now.Sub(told) >= replayTell {
				told = now
				if err := tell(read, m.Status()); err != nil {
					return err
				}
			}
			if !now.Before(until) {
				return ctx.Err()
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(min(until.Sub(now), replayTell)):
			}
		}
	}
	err := tape.Read(files, func(c *tape.Call) error {
		if r.Limit > 0 && read == r.Limit {
			return errLimit
		}
		if err := pause(pace.due); err != nil {
			return err
		}
		pace.next(time.Now())
		copied := c.Copy()
		for !m.Room(copied) { // they are not dropped, as copies of others are
			if err := pause(time.Now().Add(replayLook)); err != nil {
				return err
			}
		}
		read++
		if m.Admit(time.Now()) {
			m.Offer(copied)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errLimit) {
		return err
	}
	for m.Pending() > 0 {
		if err := pause(time.Now().Add(replayLook)); err != nil {
			return err
		}
	}
	return tell(read, m.Status())
}

// pace says when the calls of a replay are due.
type pace struct {
	between time.Duration
	due     time.Time // the next
}

// next is told when one was made. A server that stood still is not hit by all that it has
// missed.
func (p *pace) next(now time.Time) {
	if earliest := now.Add(-replayCatchUp); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(p.between)
}

// replayTarget is a version as a replay sees it: an operator wants to know what it says,
// and nobody else is to be kept from calling it for that.
type replayTarget struct{ target *target }

// Ready implements [shadow.Target].
func (t replayTarget) Ready(time.Time) bool { return true }

// Admit implements [shadow.Target].
func (t replayTarget) Admit(time.Time) (func(shadow.Attempt), bool) {
	return func(shadow.Attempt) {}, true
}

// Pick implements [shadow.Target].
func (t replayTarget) Pick(now time.Time) (shadow.Endpoint, bool) {
	return t.target.shadowEndpoint(now)
}

// Trace implements [shadow.Target]: there is no call to link to.
func (t replayTarget) Trace(*shadow.Copy, shadow.Endpoint, time.Time) shadow.Span { return nil }

// Rewrite implements [shadow.Target].
func (t replayTarget) Rewrite(path string, dst, body []byte) ([]byte, bool) {
	return t.target.rewriteCopy(path, dst, body)
}

// shadowEndpoint returns where a copy for the version goes.
func (t *target) shadowEndpoint(now time.Time) (shadow.Endpoint, bool) {
	e, _ := t.group.pick(now, nil)
	if e == nil {
		return shadow.Endpoint{}, false
	}
	return shadow.Endpoint{Addr: e.addr, TLS: e.up.TLS()}, true
}

// rewriteCopy appends a copy's messages to dst, renamed for the version.
func (t *target) rewriteCopy(path string, dst, body []byte) ([]byte, bool) {
	m, ok := identify.Lookup(path)
	if !ok {
		return dst, false
	}
	rename := t.renames.of(m.Scope, false)
	if rename.err != nil {
		return dst, false
	}
	var w identify.Rewriter
	w.Reset(rename.rewrite)
	return w.Append(dst, body), true
}
