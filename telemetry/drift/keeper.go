package drift

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	driftv1 "sluice/proto/sluice/drift/v1"
)

const (
	// referenceShelf has a reference for each "MODEL VERSION".
	referenceShelf = "drift-references"
	// tallyShelf has, for each slot of a window and one more, a tally for each "MODEL VERSION GATEWAY".
	tallyShelf = "drift-slot-%02d"
	// tallyShelves is the number of those: slots of which one is written and another still read.
	tallyShelves = slots + 1

	shortestBeat = 250 * time.Millisecond
	longestBeat  = 5 * time.Second
	// calibrateAgain is how long after a try to calibrate a reference the next one may begin.
	calibrateAgain = 10 * time.Minute
	// storeTimeout bounds one look into the store.
	storeTimeout = 2 * time.Second
)

// keeper closes slots, exchanges them with other gateways through the store, and follows references. It is one
// goroutine; a store that hangs makes it late, and then it goes on with what this gateway has counted itself.
type keeper struct {
	*Monitor
	pending     []closedSlot // in the order in which they were closed
	published   map[string]uint64
	swept       map[string]int64  // by shelf, the slot in which it was swept
	calibrating chan Key          // one at a time
	tried       map[Key]time.Time // when calibrating a version's reference was begun last
	problem     string            // that was logged last
}

func newKeeper(m *Monitor) *keeper {
	return &keeper{Monitor: m, published: make(map[string]uint64), swept: make(map[string]int64), calibrating: make(chan Key), tried: make(map[Key]time.Time)}
}

func (k *keeper) run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.calibrate(ctx)
	}()
	defer func() { <-done }()
	for {
		k.step(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.beat()):
		}
	}
}

// beat is the time between two steps: short against the shortest slot.
func (k *keeper) beat() time.Duration {
	beat := longestBeat
	for _, v := range k.all() {
		v.mu.Lock()
		beat = min(beat, v.period()/6)
		v.mu.Unlock()
	}
	return max(beat, shortestBeat)
}

// grace is how long after its end a slot waits for the other gateways' counts: their next step, and the time that
// it may take.
func (k *keeper) grace() time.Duration {
	if !k.cfg.Shared {
		return 0
	}
	return 2*k.beat() + storeTimeout/2
}

func (k *keeper) step(ctx context.Context, now time.Time) {
	// A store that does not answer once is left alone until the next step: what waits for it must not pile up.
	up := k.try("references", k.references(ctx, now))
	for _, v := range k.all() {
		k.pending = append(k.pending, v.roll(now)...)
	}
	if k.cfg.Shared && up {
		up = k.try("counts", k.publish(ctx))
	}
	grace := k.grace()
	for len(k.pending) > 0 {
		c := k.pending[0]
		if end := time.Unix(0, (c.number+1)*int64(c.period)); time.Since(end) < grace {
			break
		}
		k.pending = k.pending[1:]
		if k.cfg.Shared && up {
			up = k.try("counts of others", k.collect(ctx, c))
		}
		for _, a := range c.version.fold(c) {
			k.raise(a)
		}
	}
	if !up {
		return
	}
	k.adoptLearnt(ctx, now)
	k.wantCalibrated(now)
}

// try reports whether something went well, and logs a problem with the store when it begins and when it ends.
func (k *keeper) try(what string, err error) bool {
	switch {
	case err == nil && k.problem == what:
		k.problem = ""
		k.cfg.Logger.Info("drift: the store is back", "for", what)
	case err != nil && k.problem == "":
		k.problem = what
		k.cfg.Logger.Warn("drift: the store cannot be used, going on with what this gateway knows", "for", what, "error", err)
	}
	return err == nil
}

// references follows what is compared with.
func (k *keeper) references(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, err := k.cfg.Shelf(referenceShelf).All(ctx)
	if err != nil {
		return err
	}
	for _, v := range k.all() {
		data, ok := stored[v.key.shelfKey()]
		if ok && v.isFrom(data) {
			continue
		}
		var r *reference
		if ok {
			if r, err = decodeReference(data); err != nil {
				k.cfg.Logger.Error("drift: a reference in the store cannot be used", "model", v.key.Model, "version", v.key.Version, "error", err)
				r = nil
			}
		}
		v.setReference(r, data, now)
	}
	return nil
}

func decodeReference(data []byte) (*reference, error) {
	doc := new(driftv1.Reference)
	if err := proto.Unmarshal(data, doc); err != nil {
		return nil, err
	}
	return newReference(doc)
}

func (key Key) shelfKey() string { return key.Model + " " + key.Version }

// publish leaves this gateway's counts for the others: of the open slots, and of those that are closed and not
// added up yet.
func (k *keeper) publish(ctx context.Context) error {
	for _, c := range k.pending {
		if err := k.put(ctx, c); err != nil {
			return err
		}
	}
	for _, v := range k.all() {
		if c, ok := v.snapshot(); ok {
			if err := k.put(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// put stores a slot's counts unless they are there already.
func (k *keeper) put(ctx context.Context, c closedSlot) error {
	key := c.version.key.shelfKey() + " " + k.replica
	mark := uint64(c.number)<<32 ^ c.tally.samples ^ c.ref.print
	name := shelfOf(c.number)
	if k.published[name+key] == mark {
		return nil
	}
	data, err := proto.Marshal(&driftv1.Tally{
		Reference: c.ref.print, Slot: c.number, Period: int64(c.period), Samples: c.tally.samples, Features: c.tally.encode(),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := k.cfg.Shelf(name).Put(ctx, key, data); err != nil {
		return err
	}
	k.published[name+key] = mark
	return nil
}

func shelfOf(slot int64) string { return fmt.Sprintf(tallyShelf, slot%tallyShelves) }

// collect adds what the other gateways have counted in a slot.
func (k *keeper) collect(ctx context.Context, c closedSlot) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	shelf := k.cfg.Shelf(shelfOf(c.number))
	stored, err := shelf.All(ctx)
	if err != nil {
		return err
	}
	if err := k.sweep(ctx, shelf, c.number, stored); err != nil {
		return err
	}
	mine := c.version.key.shelfKey() + " "
	for key, data := range stored {
		if !strings.HasPrefix(key, mine) || key == mine+k.replica {
			continue
		}
		t := new(driftv1.Tally)
		if err := proto.Unmarshal(data, t); err != nil {
			continue // it is swept away
		}
		if t.GetSlot() == c.number && t.GetPeriod() == int64(c.period) && t.GetReference() == c.ref.print {
			c.tally.addEncoded(t)
		}
	}
	return nil
}

// sweep removes from a shelf, once in a slot, what gateways have left that are gone, and what is of versions that are, and
// what nobody can read.
func (k *keeper) sweep(ctx context.Context, shelf Shelf, slot int64, stored map[string][]byte) error {
	name := shelfOf(slot)
	if k.swept[name] == slot {
		return nil
	}
	for key, data := range stored {
		t := new(driftv1.Tally)
		err := proto.Unmarshal(data, t)
		if err != nil {
			k.cfg.Logger.Warn("drift: what another gateway has stored cannot be read, and is removed", "key", key, "error", err)
		} else if time.Since(time.Unix(0, t.GetSlot()*t.GetPeriod())) < tallyShelves*time.Duration(t.GetPeriod()) {
			continue // its shelf has not come round again
		}
		if err := shelf.Put(ctx, key, nil); err != nil {
			return err
		}
	}
	k.swept[name] = slot
	return nil
}

// adoptLearnt stores what versions have learnt. Of several gateways, the first one's is taken.
func (k *keeper) adoptLearnt(ctx context.Context, now time.Time) {
	k.mu.Lock()
	keys := make([]Key, 0, len(k.learned))
	for key := range k.learned {
		keys = append(keys, key)
	}
	k.mu.Unlock()
	for _, key := range keys {
		v := k.version(key)
		if v == nil {
			continue
		}
		if err := k.adopt(ctx, v, now); err != nil {
			k.try("learning", err)
			continue
		}
		k.mu.Lock()
		delete(k.learned, key)
		k.mu.Unlock()
	}
}

func (k *keeper) adopt(ctx context.Context, v *Version, now time.Time) error {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	shelf, key := k.cfg.Shelf(referenceShelf), v.key.shelfKey()
	old, err := shelf.Get(limited, key)
	if err != nil {
		return err
	}
	known := new(driftv1.Reference)
	if err := proto.Unmarshal(old, known); err != nil {
		return err
	}
	features, keep, source, data := v.learnt(known)
	if len(features) == 0 {
		return nil
	}
	doc := &driftv1.Reference{
		Model: v.key.Model, Version: v.key.Version, Data: data, Source: source, Made: timestamppb.New(now),
	}
	doc.Features = slices.Concat(keep, features)
	if len(keep) > 0 {
		doc.Data, doc.Source = known.GetData(), known.GetSource()+", the rest from the "+source
	}
	doc.Features = doc.Features[:min(len(doc.Features), MaxFeatures)]
	sortFeatures(doc.Features)
	if err := Check(doc); err != nil {
		return err
	}
	stored, err := encode(doc)
	if err != nil {
		return err
	}
	swapped, err := shelf.Swap(limited, key, old, stored)
	if err != nil || !swapped {
		return err // not swapped: another gateway was faster, and references will tell
	}
	k.cfg.Logger.Info("drift: learnt what to compare with", "model", v.key.Model, "version", v.key.Version, "features", len(features), "source", doc.Source)
	return k.references(ctx, now)
}

// wantCalibrated has the next reference calibrated that is not: of several gateways, the first one's result is taken.
func (k *keeper) wantCalibrated(now time.Time) {
	for _, v := range k.all() {
		v.mu.Lock()
		r := v.ref
		v.mu.Unlock()
		if r == nil || now.Sub(k.tried[v.key]) < calibrateAgain || !slices.ContainsFunc(r.features, func(f *feature) bool { return !f.calibrated() }) {
			continue
		}
		select {
		case k.calibrating <- v.key:
			k.tried[v.key] = now
		default: // another one is
		}
		return
	}
}

// calibrate calibrates references that were learnt, or made of traffic, at half the speed of one core.
func (k *keeper) calibrate(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-k.calibrating:
			if err := k.calibrateOne(ctx, key); err != nil && ctx.Err() == nil {
				k.cfg.Logger.Warn("drift: a reference stays uncalibrated", "model", key.Model, "version", key.Version, "error", err)
			}
		}
	}
}

func (k *keeper) calibrateOne(ctx context.Context, key Key) error {
	shelf := k.cfg.Shelf(referenceShelf)
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	data, err := shelf.Get(limited, key.shelfKey())
	if err != nil || data == nil {
		return err
	}
	doc := new(driftv1.Reference)
	if err := proto.Unmarshal(data, doc); err != nil {
		return err
	}
	began := time.Now()
	err = calibrate(doc, k.draws, func(string) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(began)):
			began = time.Now()
			return nil
		}
	})
	if err != nil {
		return err
	}
	calibrated, err := proto.Marshal(doc)
	if err != nil {
		return err
	}
	limited, cancel = context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err = shelf.Swap(limited, key.shelfKey(), data, calibrated)
	return err
}
