package incident

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// Shelf is where incidents are kept; sluice/routing has it.
type Shelf interface {
	// Get returns the value of a key, nil if there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// All returns every key with its value.
	All(ctx context.Context) (map[string][]byte, error)
	// Swap sets the value of a key (nil removes it) if its value is old, nil meaning that there is
	// none, and reports whether it was.
	Swap(ctx context.Context, key string, old, value []byte) (bool, error)
}

// Book is the incidents of all gateways that share a store. Safe for concurrent use.
//
// On the shelf stand, encoded, "incident/ID" and, while it is open, "open/MODEL" with the id; and "forgotten", if some are.
type Book struct{ shelf Shelf }

// NewBook returns the incidents on a shelf.
func NewBook(s Shelf) *Book { return &Book{s} }

const (
	incidentKey = "incident/"
	openKey     = "open/"
	// forgottenKey has, by model and in JSON, when the latest incident was over that is no longer kept.
	forgottenKey = "forgotten"
	// maxIncidents is how many are kept that are over; of those, the oldest of the model that has the most of them goes
	// first, so that one that is always in trouble does not take the past of others with it.
	maxIncidents = 500
	// maxTries is how often a change is tried when others change the same incident.
	maxTries = 20
)

var (
	errOvertaken = errors.New("others changed the same incident again and again")
	errOver      = errors.New("the incident is over")
)

// ErrUnknown is returned for an id that no incident has.
var ErrUnknown = errors.New("no such incident")

// All returns all incidents, the latest first. Of two gateways that open one for the same
// trouble at the same time, the slower one's is there for a moment, or for longer if that
// gateway ends just then; it has no name and is left out.
func (b *Book) All(ctx context.Context) ([]*adminv1.Incident, error) {
	values, err := b.shelf.All(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(decodeAll(values), func(in *adminv1.Incident) bool {
		named := string(values[openKey+in.GetModel()])
		return in.GetRecovered() == nil && named != "" && named != in.GetId()
	}), nil
}

// decodeAll leaves out what is not an incident: a later version of the program may have put it
// there.
func decodeAll(values map[string][]byte) []*adminv1.Incident {
	var all []*adminv1.Incident
	for key, value := range values {
		in := new(adminv1.Incident)
		if strings.HasPrefix(key, incidentKey) && proto.Unmarshal(value, in) == nil {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *adminv1.Incident) int {
		return cmp.Or(b.GetDetected().AsTime().Compare(a.GetDetected().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return all
}

// Find returns the incident whose id begins like that, if there is just one.
func (b *Book) Find(ctx context.Context, id string) (*adminv1.Incident, error) {
	all, err := b.All(ctx)
	if err != nil {
		return nil, err
	}
	var found []*adminv1.Incident
	for _, in := range all {
		if in.GetId() == id {
			return in, nil
		}
		if id != "" && strings.HasPrefix(in.GetId(), id) {
			found = append(found, in)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("%w: %q", ErrUnknown, id)
	}
	return nil, fmt.Errorf("%w: %q begins the ids of %d", ErrUnknown, id, len(found))
}

// Change alters one incident, whatever others do to it at the same time.
func (b *Book) Change(ctx context.Context, id string, alter func(*adminv1.Incident) error) (*adminv1.Incident, error) {
	for range maxTries {
		old, err := b.shelf.Get(ctx, incidentKey+id)
		if err != nil {
			return nil, err
		}
		if old == nil {
			return nil, fmt.Errorf("%w: %q", ErrUnknown, id)
		}
		in := new(adminv1.Incident)
		if err := proto.Unmarshal(old, in); err != nil {
			return nil, fmt.Errorf("incident %q cannot be read: %w", id, err)
		}
		if err := alter(in); err != nil {
			return nil, err
		}
		value, err := proto.Marshal(in)
		if err != nil {
			return nil, err
		}
		if done, err := b.shelf.Swap(ctx, incidentKey+id, old, value); done || err != nil {
			return in, err
		}
	}
	return nil, errOvertaken
}

// update alters the open incident of a model and opens one if there is none: that of the id again, which goes on although
// somebody believed it to be over, or a new one if id is empty.
func (b *Book) update(ctx context.Context, model, id string, alter func(*adminv1.Incident)) (in *adminv1.Incident, opened bool, err error) {
	for range maxTries {
		current, err := b.shelf.Get(ctx, openKey+model)
		if err != nil {
			return nil, false, err
		}
		if current == nil {
			in, err := b.reopen(ctx, model, id, alter)
			if in == nil && err == nil {
				in, err = b.begin(ctx, model, alter)
			}
			if in != nil || err != nil {
				return in, in != nil, err
			}
			continue // somebody else was faster
		}
		in, err := b.Change(ctx, string(current), func(in *adminv1.Incident) error {
			if in.GetRecovered() != nil {
				return errOver
			}
			alter(in)
			return nil
		})
		if errors.Is(err, ErrUnknown) || errors.Is(err, errOver) {
			// Whoever opened it got no further than its name, or whoever closed it has not taken that away yet, and
			// may never.
			if _, err := b.shelf.Swap(ctx, openKey+model, current, nil); err != nil {
				return nil, false, err
			}
			continue
		}
		return in, false, err
	}
	return nil, false, errOvertaken
}

// reopen opens an incident again; nil if there is none of that id, or another one is open by now.
func (b *Book) reopen(ctx context.Context, model, id string, alter func(*adminv1.Incident)) (*adminv1.Incident, error) {
	if id == "" {
		return nil, nil
	}
	if old, err := b.shelf.Get(ctx, incidentKey+id); old == nil || err != nil {
		return nil, err
	}
	if won, err := b.shelf.Swap(ctx, openKey+model, nil, []byte(id)); !won || err != nil {
		return nil, err
	}
	return b.Change(ctx, id, func(in *adminv1.Incident) error {
		in.Recovered = nil
		alter(in)
		return nil
	})
}

// begin opens an incident; nil if another one is open by now.
func (b *Book) begin(ctx context.Context, model string, alter func(*adminv1.Incident)) (*adminv1.Incident, error) {
	in := &adminv1.Incident{Model: model}
	alter(in)
	in.Id = newID(in.GetDetected().AsTime())
	value, err := proto.Marshal(in)
	if err != nil {
		return nil, err
	}
	// The incident is there before its name is, so that a name always leads to one.
	if _, err := b.shelf.Swap(ctx, incidentKey+in.GetId(), nil, value); err != nil {
		return nil, err
	}
	won, err := b.shelf.Swap(ctx, openKey+model, nil, []byte(in.GetId()))
	if err != nil || !won {
		_, undo := b.shelf.Swap(ctx, incidentKey+in.GetId(), value, nil)
		return nil, errors.Join(err, undo)
	}
	return in, nil
}

// newID sorts by time and is short enough to be read out over the telephone.
func newID(at time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // it never fails
	return at.UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

// forget drops incidents that are over, beyond what is kept.
func (b *Book) forget(ctx context.Context, now time.Time) error {
	values, err := b.shelf.All(ctx)
	if err != nil {
		return err
	}
	all := decodeAll(values)
	over := make(map[string][]*adminv1.Incident) // by model, the latest first
	for _, in := range all {
		if in.GetRecovered() != nil {
			over[in.GetModel()] = append(over[in.GetModel()], in)
		}
	}
	for range max(0, countOver(all)-maxIncidents) {
		in := excess(over)
		// That it is missing is known before it is.
		if err := b.noteForgotten(ctx, in, now); err != nil {
			return err
		}
		key := incidentKey + in.GetId()
		if _, err := b.shelf.Swap(ctx, key, values[key], nil); err != nil {
			return err
		}
	}
	return nil
}

// excess takes out the oldest incident of the model that has the most; where several have as many, the oldest of them all.
func excess(over map[string][]*adminv1.Incident) *adminv1.Incident {
	var out *adminv1.Incident
	for _, of := range over {
		in := of[len(of)-1]
		most := len(over[out.GetModel()])
		if out == nil || len(of) > most || len(of) == most && in.GetDetected().AsTime().Before(out.GetDetected().AsTime()) {
			out = in
		}
	}
	model := out.GetModel()
	if over[model] = over[model][:len(over[model])-1]; len(over[model]) == 0 {
		delete(over, model)
	}
	return out
}

// noteForgotten remembers that a model's incidents up to that one are not all kept.
func (b *Book) noteForgotten(ctx context.Context, in *adminv1.Incident, now time.Time) error {
	for range maxTries {
		old, err := b.shelf.Get(ctx, forgottenKey)
		if err != nil {
			return err
		}
		until := decodeForgotten(old)
		until[in.GetModel()] = later(until[in.GetModel()], in.GetRecovered().AsTime())
		maps.DeleteFunc(until, func(_ string, t time.Time) bool { return now.Sub(t) > Horizon }) // nobody looks back that far
		value, err := json.Marshal(until)
		if err != nil {
			return err
		}
		if done, err := b.shelf.Swap(ctx, forgottenKey, old, value); done || err != nil {
			return err
		}
	}
	return errOvertaken
}

// Forgotten says until when incidents of models are missing that were once there, for want of room; models whose incidents
// are all kept, or were last missed longer ago than [Horizon], are not in it.
func (b *Book) Forgotten(ctx context.Context) (map[string]time.Time, error) {
	value, err := b.shelf.Get(ctx, forgottenKey)
	if err != nil {
		return nil, err
	}
	return decodeForgotten(value), nil
}

func decodeForgotten(value []byte) map[string]time.Time {
	until := make(map[string]time.Time)
	if len(value) > 0 && json.Unmarshal(value, &until) != nil {
		return make(map[string]time.Time) // a later version of the program may say it otherwise
	}
	return until
}

// open returns the incidents that are not over, and how many are. What a gateway left that was slower than another one to open
// an incident, and ended before it could take its own back, is taken away.
func (b *Book) open(ctx context.Context, now time.Time) (open []*adminv1.Incident, over int, err error) {
	values, err := b.shelf.All(ctx)
	if err != nil {
		return nil, 0, err
	}
	all := decodeAll(values)
	for _, in := range all {
		named := string(values[openKey+in.GetModel()])
		switch {
		case in.GetRecovered() != nil:
		case named == "" || named == in.GetId():
			open = append(open, in)
		case now.Sub(in.GetDetected().AsTime()) >= stale: // else its gateway may be about to
			key := incidentKey + in.GetId()
			if _, err := b.shelf.Swap(ctx, key, values[key], nil); err != nil {
				return nil, 0, err
			}
		}
	}
	return open, countOver(all), nil
}

func countOver(all []*adminv1.Incident) (n int) {
	for _, in := range all {
		if in.GetRecovered() != nil {
			n++
		}
	}
	return n
}

var errNotCalm = errors.New("a gateway still sees trouble")

// closeIfCalm closes an incident to which no gateway has anything to add, and returns it; nil if it is
// not over, or was over already.
func (b *Book) closeIfCalm(ctx context.Context, id string, now time.Time) (*adminv1.Incident, error) {
	in, err := b.Change(ctx, id, func(in *adminv1.Incident) error {
		var last time.Time
		for _, g := range in.GetGateways() {
			at := g.GetUpdated().AsTime()
			waits := calm
			if len(g.GetTroubles()) > 0 {
				waits = stale
			}
			if now.Sub(at) < waits {
				return errNotCalm
			}
			if at.After(last) {
				last = at
			}
		}
		if in.GetRecovered() != nil {
			return errNotCalm
		}
		in.Recovered = stamp(last)
		return nil
	})
	switch {
	case errors.Is(err, errNotCalm), errors.Is(err, ErrUnknown):
		return nil, nil
	case err != nil:
		return nil, err
	}
	_, err = b.shelf.Swap(ctx, openKey+in.GetModel(), []byte(id), nil)
	return in, err
}
