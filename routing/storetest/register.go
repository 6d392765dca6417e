package storetest

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Request is one operation on a store whose history is checked: a read, an
// update of the one route to a value that no other update uses, or the undoing of the update
// before.
type Request struct {
	Read     bool
	Undo     bool
	Expected uint64 // revision
	Value    string
}

// Outcome is what an operation reported. Of Unknown, NotMade and Conflict at most
// one is true, of an update only; without them it was made, or read, and led to At.
type Outcome struct {
	Unknown  bool // it may have been made, and may still be
	NotMade  bool // for a reason that says nothing of the store
	Conflict bool // the revision was another one
	At       Register
}

// Register is what the store is to the model: a revision and the value set at it.
type Register struct {
	Revision uint64
	Value    string
	before   string // the value of the revision before, as far as the model knows
}

func (r Register) isLike(other Register) bool {
	return r.Revision == other.Revision && r.Value == other.Value
}

// model is a store as its users may imagine it, from a state on: every operation
// happens at one moment between its call and its return.
func (r Register) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return r },
		Step: func(state, input, output any) (bool, any) {
			now, in, out := state.(Register), input.(Request), output.(Outcome)
			next := Register{now.Revision + 1, in.Value, now.Value}
			if in.Undo {
				next.Value = now.before
			}
			switch {
			case in.Read:
				return out.At.isLike(now), now
			case out.NotMade:
				return true, now
			case out.Unknown:
				// Whatever its call did, it did it if the revision was right; it may also
				// have done nothing until after the end.
				if now.Revision == in.Expected {
					return true, next
				}
				return true, now
			case out.Conflict:
				return now.Revision != in.Expected, now
			default:
				return now.Revision == in.Expected && out.At.isLike(next), next
			}
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// Operations gathers a history from several goroutines.
type Operations struct {
	from  Register
	begun time.Time

	mu  sync.Mutex
	all []porcupine.Operation
}

// NewOperations begins a history of a store that is in some state.
func NewOperations(from Register) *Operations { return &Operations{from: from, begun: time.Now()} }

// Run runs one operation of a client and notes when and how it went. An update
// that is unknown has no end; a read that failed tells nothing.
func (o *Operations) Run(client int, in Request, do func() Outcome) Outcome {
	call := time.Since(o.begun)
	out := do()
	end := time.Since(o.begun)
	if out.Unknown {
		if in.Read {
			return out
		}
		end = math.MaxInt64
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, porcupine.Operation{
		ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(end),
	})
	return out
}

// Check fails the test if there is no order of the operations in which each is
// what a single register would have done. It returns how many updates were made,
// met a conflict, and are unknown.
func (o *Operations) Check(t testing.TB) (made, conflicts, unknown int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.all {
		switch out := op.Output.(Outcome); {
		case op.Input.(Request).Read, out.NotMade:
		case out.Unknown:
			unknown++
		case out.Conflict:
			conflicts++
		default:
			made++
		}
	}
	t.Logf("%d operations: %d changes, %d conflicts, %d without an answer", len(o.all), made, conflicts, unknown)
	if result := porcupine.CheckOperationsTimeout(o.from.model(), o.all, 30*time.Second); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", result)
		slices.SortFunc(o.all, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		for _, op := range o.all {
			t.Logf("client %d, %v to %v: %+v -> %+v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
		}
	}
	return made, conflicts, unknown
}
