package incident

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/memstore"
)

// gateway is one tracker and what it is told of calls.
type gateway struct {
	*Tracker
	calls, failed atomic.Uint64
	late          atomic.Uint64
	looks         atomic.Uint64
	budget        atomic.Uint64 // percent left
	samples       []*adminv1.SampleCall
	sees          atomic.Pointer[sight]
	stop          func()
}

// sight is what the gateway sees when it is asked.
type sight struct {
	troubles []Trouble
	over     string // why no trouble stands any more; empty: they stand
	help     Help
}

func startGateway(t *testing.T, name string, shelf Shelf) *gateway {
	t.Helper()
	g := new(gateway)
	g.budget.Store(100)
	g.sees.Store(new(sight))
	g.Tracker = New(Config{
		Gateway: name, Shelf: shelf, Logger: slog.New(slog.DiscardHandler),
		Effect: func(string) Effect {
			return Effect{Calls: g.calls.Load(), Failed: g.failed.Load(), Late: g.late.Load()}
		},
		Budget: func(_, objective string) (float64, bool) {
			left := float64(g.budget.Load()) / 100
			if objective == Latency {
				left -= 2
			}
			return left, true
		},
		Samples:  func(string) []*adminv1.SampleCall { return g.samples },
		Troubles: func() []Trouble { g.looks.Add(1); return g.sees.Load().troubles },
		Over: func(string, string) (string, time.Time, bool) {
			s := g.sees.Load()
			return s.over, time.Now(), s.over != ""
		},
		Helped: func(string) (string, Help) { return fmt.Sprint("help ", g.sees.Load().help), g.sees.Load().help },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = g.Run(ctx); close(ended) }()
	g.stop = func() { cancel(); <-ended }
	t.Cleanup(g.stop)
	return g
}

func breakerOpens(version string) Trouble {
	now := time.Now()
	return Trouble{
		Model: "fraud", Name: "breaker " + version, Trigger: "breaker", At: now, Onset: now.Add(-3 * time.Second),
		Text: "breaker of " + version + " open: 5 failures in a row", RequestID: "req-1", Seen: Effect{Calls: 7, Failed: 5},
	}
}

func all(t *testing.T, shelf Shelf) []*adminv1.Incident {
	t.Helper()
	found, err := NewBook(shelf).All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// settle lets trackers write what they were told.
func settle() { time.Sleep(interval + time.Millisecond); synctest.Wait() }

// TestIncidentLastsFromTheFirstTroubleToTheLast, with what callers noticed.
func TestIncidentLastsFromTheFirstTroubleToTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "gw-1", shelf)
		g.calls.Store(1000)
		began := time.Now()
		for i, id := range []string{"b", "a", "before"} { // the latest first
			g.samples = append(g.samples, &adminv1.SampleCall{
				RequestId: id, Version: "v8", Code: "INTERNAL", Time: stamp(began.Add(time.Duration(-2*i) * time.Second)),
			})
		}
		g.Begin(breakerOpens("v8"))
		g.Mitigate("fraud", "the breaker cut v8 off, v7 answers", began.Add(time.Second))
		g.Mitigate("fraud", "weight 0", began.Add(time.Minute))
		settle()
		if in := all(t, shelf); len(in) != 1 || in[0].GetRecovered() != nil || g.Stats().Open != 1 {
			t.Fatalf("after a breaker opened: %v", in)
		}
		g.calls.Store(1100)
		g.failed.Store(3)
		g.budget.Store(90)
		time.Sleep(30 * time.Second)
		g.End("fraud", "breaker v8", "breaker of v8 closed", time.Now())
		time.Sleep(calm / 2)
		g.Begin(breakerOpens("v8")) // it comes back before it was believed to be over
		time.Sleep(10 * time.Second)
		over := time.Now()
		g.End("fraud", "breaker v8", "breaker of v8 closed", over)
		time.Sleep(calm + 2*interval)
		synctest.Wait()

		incidents := all(t, shelf)
		if len(incidents) != 1 {
			t.Fatalf("%d incidents, want one: %v", len(incidents), incidents)
		}
		in := incidents[0]
		if got, want := in.GetOnset().AsTime(), began.Add(-3*time.Second); !got.Equal(want) {
			t.Errorf("onset %v, want %v", got, want)
		}
		if !in.GetDetected().AsTime().Equal(began) || !in.GetRecovered().AsTime().Equal(over) {
			t.Errorf("detected %v, recovered %v; want %v, %v", in.GetDetected().AsTime(), in.GetRecovered().AsTime(), began, over)
		}
		if !in.GetMitigated().AsTime().Equal(began.Add(time.Second)) || !strings.Contains(in.GetMitigation(), "v7 answers") {
			t.Errorf("mitigated %v: %q, want the first", in.GetMitigated().AsTime(), in.GetMitigation())
		}
		e := in.GetGateways()["gw-1"].GetEffect()
		if e.GetCalls() != 107 || e.GetFailed() != 8 || e.GetBudgetBefore() != 1 || e.GetBudgetAfter() != 0.9 {
			t.Errorf("effect %v, want what was seen at the opening and what came after", e)
		}
		if len(in.GetSamples()) != 1 || in.GetSamples()[0].GetRequestId() != "a" {
			t.Errorf("samples %v, want the first of a version and code", in.GetSamples())
		}
		if len(in.GetEvents()) != 4 || g.Stats().Open != 0 {
			t.Errorf("events %v, want two openings and two closings; open %d", in.GetEvents(), g.Stats().Open)
		}
	})
}

// TestGatewaysShareOneIncident, which is over when it is to all of them.
func TestGatewaysShareOneIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b := startGateway(t, "a", shelf), startGateway(t, "b", shelf)
		a.Begin(breakerOpens("v8"))
		b.Begin(breakerOpens("v8"))
		settle()
		a.End("fraud", "breaker v8", "closed", time.Now())
		time.Sleep(2 * calm)
		synctest.Wait()
		in := all(t, shelf)
		if len(in) != 1 || len(in[0].GetGateways()) != 2 || in[0].GetRecovered() != nil {
			t.Fatalf("while b is in trouble: %v, want one open incident of both", in)
		}
		b.End("fraud", "breaker v8", "closed", time.Now())
		over := time.Now()
		time.Sleep(2 * calm)
		synctest.Wait()
		if in := all(t, shelf); len(in) != 1 || !in[0].GetRecovered().AsTime().Equal(over) {
			t.Errorf("after both: %v, want it over at %v", in, over)
		}
		a.Begin(breakerOpens("v8"))
		settle()
		if in := all(t, shelf); len(in) != 2 {
			t.Errorf("the next trouble: %d incidents, want 2", len(in))
		}
	})
}

// TestGatewayThatCouldNotTellNoticedFirst: the store was out of its reach. Its moments and events are the earlier ones all the
// same, and what it had no room to keep meanwhile is counted.
func TestGatewayThatCouldNotTellNoticedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		away := &failing{Shelf: shelf}
		away.down.Store(true)
		a, b := startGateway(t, "a", away), startGateway(t, "b", shelf)
		first := breakerOpens("v8")
		first.Trigger = Rollback // of whatever kind it is
		first.Onset = first.At.Add(-10 * time.Second)
		a.Begin(first)
		for range maxPending + 6 {
			a.Note("fraud", &adminv1.IncidentEvent{Time: stamp(time.Now()), Text: "of many"})
			time.Sleep(100 * time.Millisecond)
		}
		b.Begin(breakerOpens("v8"))
		settle()
		if in := all(t, shelf)[0]; in.GetTrigger() != Breaker || in.GetDetected().AsTime().Equal(first.At) {
			t.Fatalf("before a can tell: %v", in)
		}
		away.down.Store(false)
		settle()
		in := all(t, shelf)
		if len(in) != 1 || !in[0].GetOnset().AsTime().Equal(first.Onset) || !in[0].GetDetected().AsTime().Equal(first.At) || in[0].GetTrigger() != Rollback {
			t.Errorf("%v, want one incident that a has noticed at %v", in, first.At)
		}
		inOrder := func(x, y *adminv1.IncidentEvent) int { return x.GetTime().AsTime().Compare(y.GetTime().AsTime()) }
		if n := len(in[0].GetEvents()); n != maxPending+1 || in[0].GetDroppedEvents() != 7 || !slices.IsSortedFunc(in[0].GetEvents(), inOrder) {
			t.Errorf("%d events, %d dropped; want those that a had room for and b's, in their order", n, in[0].GetDroppedEvents())
		}
	})
}

// TestSamplesAreBounded, however many kinds of failure there are; the first ones say most.
func TestSamplesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		for i := range 2 * maxSamples { // the latest first
			g.samples = append(g.samples, &adminv1.SampleCall{Version: "v8", Code: fmt.Sprint(2*maxSamples - i), Time: stamp(time.Now())})
		}
		g.Begin(breakerOpens("v8"))
		settle()
		if s := all(t, shelf)[0].GetSamples(); len(s) != maxSamples || s[0].GetCode() != "1" {
			t.Errorf("%d samples, the first of them %v", len(s), s[0])
		}
	})
}

// TestSamplesOfAllGatewaysAreInTheOrderOfTime.
func TestSamplesOfAllGatewaysAreInTheOrderOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b := startGateway(t, "a", shelf), startGateway(t, "b", shelf)
		now := time.Now()
		a.samples = []*adminv1.SampleCall{{Version: "v7", Time: stamp(now)}}
		b.samples = []*adminv1.SampleCall{{Version: "v8", Time: stamp(now.Add(-time.Second))}}
		a.Begin(breakerOpens("v8"))
		settle()
		tr := breakerOpens("v8")
		tr.Onset = now.Add(-3 * time.Second)
		b.Begin(tr)
		settle()
		if s := all(t, shelf)[0].GetSamples(); len(s) != 2 || s[0].GetVersion() != "v8" {
			t.Errorf("%v, want b's earlier one before a's", s)
		}
	})
}

// TestIncidentOfAGatewayThatEndedIsClosedByAnother.
func TestIncidentOfAGatewayThatEndedIsClosedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a := startGateway(t, "a", shelf)
		startGateway(t, "b", shelf)
		a.Begin(breakerOpens("v8"))
		time.Sleep(sweepEvery / 2) // so that somebody looks between calm and stale
		a.stop()
		time.Sleep(stale - 2*interval)
		synctest.Wait()
		if in := all(t, shelf); in[0].GetRecovered() != nil {
			t.Fatal("closed while its gateway may be back")
		}
		time.Sleep(stale + sweepEvery)
		synctest.Wait()
		if in := all(t, shelf); in[0].GetRecovered() == nil {
			t.Error("still open, with nobody to close it")
		}
	})
}

// TestTroubleThatNobodyTellsOf begins and ends all the same, by what can be seen: telling may fail.
func TestTroubleThatNobodyTellsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		g.sees.Store(&sight{troubles: []Trouble{breakerOpens("v8")}})
		time.Sleep(10 * interval)
		synctest.Wait()
		if in := all(t, shelf); len(in) != 1 || in[0].GetRecovered() != nil || len(in[0].GetEvents()) != 1 {
			t.Fatalf("while it can be seen: %v, want one incident with one event", in)
		}
		g.sees.Store(&sight{over: "v8 was taken out"})
		over := time.Now()
		time.Sleep(calm + 3*interval)
		synctest.Wait()
		in := all(t, shelf)[0]
		if r := in.GetRecovered(); r == nil || r.AsTime().Before(over) || r.AsTime().After(over.Add(interval)) || in.GetMitigated() != nil {
			t.Errorf("afterwards %v, want it over at %v, and nobody's merit", in, over)
		}
		if e := in.GetEvents(); e[len(e)-1].GetText() != "v8 was taken out" {
			t.Errorf("events %v", e)
		}
	})
}

// TestTroubleThatWasOverForLongEndsNothingSooner: what budgets say comes minutes late.
func TestTroubleThatWasOverForLongEndsNothingSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		began := time.Now()
		g.Begin(breakerOpens("v8"))
		burns := Trouble{Model: "fraud", Name: "budget for availability", Trigger: BurnRate, At: began}
		g.Begin(burns)
		time.Sleep(4 * time.Minute)
		closed := time.Now()
		g.End("fraud", "breaker v8", "breaker of v8 closed", closed)
		time.Sleep(90 * time.Second)
		g.End("fraud", burns.Name, "no longer burns", began.Add(10*time.Second))
		time.Sleep(calm + 2*interval)
		synctest.Wait()
		if in := all(t, shelf)[0]; in.GetRecovered() == nil || !in.GetRecovered().AsTime().Equal(closed) {
			t.Errorf("recovered %v, want when the breaker closed, %v", in.GetRecovered().AsTime(), closed)
		}
	})
}

// TestBudgetDoesNotBlurAnOnset that a breaker knows exactly, and adds the time before it.
func TestBudgetDoesNotBlurAnOnset(t *testing.T) {
	for before, moved := range map[time.Duration]bool{burnBlur - time.Second: false, time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			shelf := memstore.New(memstore.Config{}).Shelf("incidents")
			g := startGateway(t, "a", shelf)
			tr := breakerOpens("v8")
			g.Begin(tr)
			burns := Trouble{Model: "fraud", Name: "budget", Trigger: BurnRate, At: time.Now(), Onset: tr.Onset.Add(-before)}
			g.Begin(burns)
			settle()
			want := tr.Onset
			if moved {
				want = burns.Onset
			}
			if got := all(t, shelf)[0].GetOnset().AsTime(); !got.Equal(want) {
				t.Errorf("a budget that burns %v before: onset %v, want %v", before, got, want)
			}
		})
	}
}

// TestRollbackIsAnIncidentOfItsOwn that is mitigated by being one.
func TestRollbackIsAnIncidentOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		at := time.Now()
		g.Follow(rollback(7))
		g.BeginRollback(rollback(7))
		time.Sleep(calm + 2*interval)
		synctest.Wait()
		in := all(t, shelf)
		if len(in) != 1 || !in[0].GetRecovered().AsTime().Equal(at) || in[0].GetTrigger() != "rollback" || in[0].GetEvents()[0].GetActor() != "anna" {
			t.Errorf("after a rollback: %v", in)
		}
	})
}

// TestRollbackWhileAllIsWellDetectsNothing of what goes wrong afterwards, and mends nothing.
func TestRollbackWhileAllIsWellDetectsNothing(t *testing.T) {
	for _, order := range []string{"a", "ba"} { // who sees it first: the gateway that was asked to roll back, or another one
		synctest.Test(t, func(t *testing.T) {
			shelf := memstore.New(memstore.Config{}).Shelf("incidents")
			gateways := map[rune]*gateway{'a': startGateway(t, "a", shelf), 'b': startGateway(t, "b", shelf)}
			c := rollback(7)
			gateways['a'].BeginRollback(c)
			for _, g := range gateways {
				g.Follow(c)
			}
			time.Sleep(10 * time.Second)
			tr := breakerOpens("v7")
			for _, name := range order {
				gateways[name].Begin(tr)
				time.Sleep(time.Millisecond)
				synctest.Wait()
				in := all(t, shelf)
				if len(in) != 1 || in[0].GetTrigger() != Breaker || in[0].GetMitigated() != nil ||
					!in[0].GetOnset().AsTime().Equal(tr.Onset) || !in[0].GetDetected().AsTime().Equal(tr.At) {
					t.Errorf("%s, %c: %v, want an incident by a breaker since %v that nothing has mitigated", order, name, in, tr.Onset)
				}
			}
		})
	}
}

// TestOperatorWhoRollsBackNoticedFirst, if calls had failed before.
func TestOperatorWhoRollsBackNoticedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		at := time.Now()
		g.Follow(rollback(7))
		g.BeginRollback(rollback(7))
		settle()
		tr := breakerOpens("v8")
		tr.Onset = at.Add(-time.Minute)
		g.Begin(tr)
		settle()
		in := all(t, shelf)[0]
		if in.GetTrigger() != Rollback || !in.GetOnset().AsTime().Equal(tr.Onset) || !in.GetDetected().AsTime().Equal(at) || !in.GetMitigated().AsTime().Equal(at) {
			t.Errorf("%v, want it to begin with the bad call and to be noticed and mitigated by the rollback", in)
		}
	})
}

// failing is a shelf that is out of reach for a while, sometimes after it has done what it
// was asked, or that takes its time.
type failing struct {
	Shelf
	down, late, hangs, slow atomic.Bool
}

var errDown = errors.New("the store is out of reach")

func (f *failing) Get(ctx context.Context, key string) ([]byte, error) {
	if f.hangs.Load() {
		select {
		case <-time.After(2 * time.Second): // as stores do
			return nil, errDown
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.down.Load() {
		return nil, errDown
	}
	if f.slow.Load() {
		time.Sleep(stuck / 2)
	}
	return f.Shelf.Get(ctx, key)
}

func (f *failing) Swap(ctx context.Context, key string, old, value []byte) (bool, error) {
	if f.down.Load() {
		return false, errDown
	}
	done, err := f.Shelf.Swap(ctx, key, old, value)
	if f.late.Load() {
		return false, errDown
	}
	return done, err
}

// TestStoreOutOfReachDelaysAnIncidentAndLosesNothing of it, nor tells it twice.
func TestStoreOutOfReachDelaysAnIncidentAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &failing{Shelf: memstore.New(memstore.Config{}).Shelf("incidents")}
		g := startGateway(t, "a", shelf)
		g.Begin(breakerOpens("v8"))
		settle()
		shelf.late.Store(true)
		g.Note("fraud", &adminv1.IncidentEvent{Time: stamp(time.Now()), Kind: "change", Text: "written, though nobody heard"})
		settle()
		shelf.late.Store(false)
		shelf.down.Store(true)
		for i := range 3 {
			g.Note("fraud", &adminv1.IncidentEvent{Time: stamp(time.Now()), Kind: "change", Text: fmt.Sprint("change ", i)})
			time.Sleep(time.Minute)
		}
		shelf.down.Store(false)
		settle()
		in := all(t, shelf)
		if len(in) != 1 || len(in[0].GetEvents()) != 5 {
			t.Errorf("afterwards %v, want each of five events once", in)
		}
		if g.Stats().Failed == 0 {
			t.Error("nothing was counted as failed")
		}
	})
}

// TestStoreThatHangsDoesNotBlind: while it does, or is slow, the tracker looks at a hundred models nearly as often as before;
// also if it has to close the incidents of a gateway that has ended.
func TestStoreThatHangsDoesNotBlind(t *testing.T) {
	for name, ended := range map[string]bool{"its own incidents": false, "those of a gateway that has ended": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shelf := &failing{Shelf: memstore.New(memstore.Config{}).Shelf("incidents")}
				g, writes := startGateway(t, "a", shelf), startGateway(t, "b", shelf)
				if !ended {
					writes.stop()
					writes = g
				}
				looksInAMinute := func() uint64 {
					before := g.looks.Load()
					time.Sleep(time.Minute)
					return g.looks.Load() - before
				}
				shelf.hangs.Store(!ended)
				for i := range 100 {
					tr := breakerOpens("v8")
					tr.Model = fmt.Sprint("m", i)
					writes.Begin(tr)
				}
				settle()
				if ended {
					writes.stop()
				}
				for what, wrong := range []*atomic.Bool{&shelf.hangs, &shelf.slow} {
					wrong.Store(true)
					time.Sleep(stale + sweepEvery)
					if n := looksInAMinute(); n < 5 {
						t.Errorf("while the store %s: %d looks in a minute, want one each %v, or nearly", []string{"hangs", "is slow"}[what], n, interval)
					}
					wrong.Store(false)
				}
				time.Sleep(2 * sweepEvery)
				synctest.Wait()
				open := slices.DeleteFunc(all(t, shelf), func(in *adminv1.Incident) bool { return in.GetRecovered() != nil })
				if want := map[bool]int{true: 0, false: 100}[ended]; len(open) != want || len(all(t, shelf)) != 100 {
					t.Errorf("%d incidents afterwards, %d of them open, want 100 and %d", len(all(t, shelf)), len(open), want)
				}
			})
		})
	}
}

// TestTellingNeverBlocks, whoever does not listen.
func TestTellingNeverBlocks(t *testing.T) {
	g := New(Config{Effect: func(string) Effect { return Effect{} }, Budget: func(string, string) (float64, bool) { return 0, false }})
	for range room + 10 {
		g.Begin(breakerOpens("v8"))
	}
	if got := g.Stats().Dropped; got != 10 {
		t.Errorf("dropped %d, want 10", got)
	}
}

// TestLongIncidentKeepsItsBeginningAndItsEnd.
func TestLongIncidentKeepsItsBeginningAndItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		g.Begin(breakerOpens("v8"))
		for i := range 2 * maxEvents {
			g.Note("fraud", &adminv1.IncidentEvent{Time: stamp(time.Now()), Text: fmt.Sprint(i)})
			time.Sleep(interval)
		}
		settle()
		in := all(t, shelf)[0]
		n := len(in.GetEvents())
		if n != maxEvents || in.GetDroppedEvents() != maxEvents+1 {
			t.Errorf("%d events kept, %d dropped", n, in.GetDroppedEvents())
		}
		if first, last := in.GetEvents()[0], in.GetEvents()[n-1]; first.GetKind() != "breaker" || last.GetText() != fmt.Sprint(2*maxEvents-1) {
			t.Errorf("from %v to %v", first, last)
		}
	})
}

// TestOldIncidentsAreForgottenButNotOpenOnes: first those of the model that has the most, and what is missing is known.
func TestOldIncidentsAreForgottenButNotOpenOnes(t *testing.T) {
	shelf := memstore.New(memstore.Config{}).Shelf("incidents")
	book := NewBook(shelf)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Hour) }
	for i := range maxIncidents + 4 { // one of them stays open
		model := "noisy"
		if i < 200 { // the oldest ones
			model = fmt.Sprint("m", i)
		}
		in, opened, err := book.update(t.Context(), model, "", func(in *adminv1.Incident) {
			in.Onset, in.Detected = stamp(hour(i)), stamp(hour(i))
			if i != 0 {
				in.Recovered = stamp(hour(i).Add(time.Minute))
			}
		})
		if err != nil || !opened {
			t.Fatal(in, opened, err)
		}
	}
	for i := range maxIncidents { // trouble of everybody at once takes nobody's past
		open := func(in *adminv1.Incident) { in.Onset, in.Detected = stamp(hour(-i)), stamp(hour(-i)) }
		if _, _, err := book.update(t.Context(), fmt.Sprint("open", i), "", open); err != nil {
			t.Fatal(err)
		}
	}
	if _, over, err := book.open(t.Context(), time.Now()); err != nil || over != maxIncidents+3 {
		t.Fatalf("%d incidents are over, %v", over, err)
	}
	if err := book.forget(t.Context(), hour(maxIncidents+4)); err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(all(t, shelf), func(in *adminv1.Incident) bool { return strings.HasPrefix(in.GetModel(), "open") })
	var first *adminv1.Incident
	for _, in := range kept {
		if in.GetModel() == "noisy" {
			first = in
		}
	}
	if n := len(kept); n != maxIncidents+1 || kept[n-1].GetModel() != "m0" || kept[n-2].GetModel() != "m1" || !first.GetDetected().AsTime().Equal(hour(203)) {
		t.Errorf("kept %d, the oldest of %q and %q, of the noisy one since %v; want %d, and the noisy one's oldest three forgotten",
			n, kept[n-1].GetModel(), kept[n-2].GetModel(), first.GetDetected().AsTime(), maxIncidents+1)
	}
	want := map[string]time.Time{"noisy": hour(202).Add(time.Minute)}
	if got, err := book.Forgotten(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("forgotten %v, %v; want %v", got, err, want)
	}
	// That is of interest for as long as anybody looks back.
	old := &adminv1.Incident{Model: "m9", Recovered: stamp(hour(40 * 24))}
	if err := book.noteForgotten(t.Context(), old, hour(40*24)); err != nil {
		t.Fatal(err)
	}
	if got, _ := book.Forgotten(t.Context()); !maps.Equal(got, map[string]time.Time{"m9": hour(40 * 24)}) {
		t.Errorf("a month later, forgotten are %v", got)
	}
}

// TestSweepForgets what there is no room for, whoever has closed it.
func TestSweepForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		for i := range maxIncidents + 2 {
			in := &adminv1.Incident{Id: fmt.Sprint(i), Model: "fraud", Detected: stamp(time.Now()), Recovered: stamp(time.Now())}
			if _, err := shelf.Swap(t.Context(), incidentKey+in.GetId(), nil, mustMarshal(t, in)); err != nil {
				t.Fatal(err)
			}
		}
		startGateway(t, "a", shelf)
		time.Sleep(sweepEvery + time.Second)
		synctest.Wait()
		if n := len(all(t, shelf)); n != maxIncidents {
			t.Errorf("%d are kept, want %d", n, maxIncidents)
		}
	})
}

// TestHelpIsThereFromTheFirstWord: nobody reads of an incident whose callers are helped that they are not.
func TestHelpIsThereFromTheFirstWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		g.sees.Store(&sight{help: Helped})
		tr := breakerOpens("v8")
		g.Begin(tr)
		synctest.Wait()
		if in := all(t, shelf); len(in) != 1 || !in[0].GetMitigated().AsTime().Equal(tr.At) {
			t.Errorf("%v, want one that is mitigated at once", in)
		}
		g.sees.Store(&sight{help: Helpless})
		g.Begin(breakerOpens("v7"))
		synctest.Wait()
		if in := all(t, shelf); in[0].GetMitigated() != nil {
			t.Errorf("%v, want nobody helped as soon as nobody is", in)
		}
	})
}

func TestFindTakesAUniqueBeginning(t *testing.T) {
	shelf := memstore.New(memstore.Config{}).Shelf("incidents")
	for _, id := range []string{"20260101-000000-aa", "20260101-000000-ab", "20260102-000000-aa"} {
		if _, err := shelf.Swap(t.Context(), incidentKey+id, nil, mustMarshal(t, &adminv1.Incident{Id: id})); err != nil {
			t.Fatal(err)
		}
	}
	book := NewBook(shelf)
	if in, err := book.Find(t.Context(), "20260102"); err != nil || in.GetId() != "20260102-000000-aa" {
		t.Errorf("Find = %v, %v", in, err)
	}
	for _, id := range []string{"20260101", "2027", ""} {
		if in, err := book.Find(t.Context(), id); !errors.Is(err, ErrUnknown) {
			t.Errorf("Find(%q) = %v, %v, want it unknown", id, in, err)
		}
	}
}

// TestSlowerOfTwoOpeningsIsNeverListed: a gateway finds that another has opened an incident
// after it has written its own, and ends before it can take that back.
func TestSlowerOfTwoOpeningsIsNeverListed(t *testing.T) {
	shelf := memstore.New(memstore.Config{}).Shelf("incidents")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	describe := func(in *adminv1.Incident) { in.Detected, in.Onset = stamp(at), stamp(at) }
	slow := &overtaken{Shelf: shelf, meanwhile: func() {
		if _, opened, err := NewBook(shelf).update(t.Context(), "m", "", describe); err != nil || !opened {
			t.Errorf("the faster one: opened %v, %v", opened, err)
		}
	}}
	if in, err := NewBook(slow).begin(t.Context(), "m", describe); err == nil {
		t.Fatalf("the slower one has opened %v", in)
	}
	if values, err := shelf.All(t.Context()); err != nil || len(values) != 3 {
		t.Fatalf("%d entries, %v: want two incidents and one name", len(values), err)
	}
	if in := all(t, shelf); len(in) != 1 {
		t.Errorf("%d incidents are listed, want one: %v", len(in), in)
	}
	for age, want := range map[time.Duration]int{stale - 1: 3, stale: 2} {
		copied := copyOf(t, shelf)
		open, over, err := NewBook(copied).open(t.Context(), at.Add(age))
		if values, _ := copied.All(t.Context()); err != nil || len(open) != 1 || over != 0 || len(values) != want {
			t.Errorf("after %v: %d open, %d over, %d entries, %v; want the one, and %d entries", age, len(open), over, len(values), err, want)
		}
	}
}

// copyOf returns a shelf with the same entries.
func copyOf(t *testing.T, shelf Shelf) Shelf {
	t.Helper()
	values, err := shelf.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copied := memstore.New(memstore.Config{}).Shelf("incidents")
	for key, value := range values {
		if _, err := copied.Swap(t.Context(), key, nil, value); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

// overtaken is the shelf of a gateway that ends when another has opened an incident.
type overtaken struct {
	Shelf
	meanwhile func()
	ended     bool
}

func (o *overtaken) Swap(ctx context.Context, key string, old, value []byte) (bool, error) {
	if o.ended {
		return false, errors.New("this gateway has ended")
	}
	if strings.HasPrefix(key, openKey) {
		o.meanwhile()
		o.ended = true
	}
	return o.Shelf.Swap(ctx, key, old, value)
}

// TestLastWordsAreWritten of a gateway that ends with what it tells.
func TestLastWordsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		for range 20 { // both are due at once: either may be taken first
			g := startGateway(t, "a", shelf)
			tr := breakerOpens("v8")
			tr.Model = fmt.Sprint("m", time.Now().UnixNano())
			g.Begin(tr)
			g.stop()
			time.Sleep(time.Second)
		}
		if n := len(all(t, shelf)); n != 20 {
			t.Errorf("%d of 20 incidents are there", n)
		}
	})
}

// TestWhatLedToAnIncidentIsInIt: of what was told before anybody knew of trouble, that since shortly before the onset.
func TestWhatLedToAnIncidentIsInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		tell := func(model, text string) {
			g.Note(model, &adminv1.IncidentEvent{Time: stamp(time.Now()), Kind: Breaker, Text: text})
		}
		tell("fraud", "long before")
		time.Sleep(lead)
		tell("fraud", "shortly before")
		time.Sleep(lead - 5*time.Second)
		tell("fraud", "endpoint 1")
		tell("other", "another model's")
		time.Sleep(time.Second)
		g.Begin(breakerOpens("v8"))
		settle()
		tell("fraud", "endpoint 2")
		settle()
		var got []string
		for _, e := range all(t, shelf)[0].GetEvents() {
			got = append(got, e.GetText())
		}
		if want := []string{"shortly before", "endpoint 1", "breaker of v8 open: 5 failures in a row", "endpoint 2"}; !slices.Equal(got, want) {
			t.Errorf("the events are %q, want %q", got, want)
		}
		tell("quiet", "while another flaps")
		for i := range 2 * maxBefore {
			tell("flaps", fmt.Sprint(i))
			synctest.Wait()
		}
		of := make(map[string][]string)
		for _, n := range g.before {
			of[n.model] = append(of[n.model], n.event.GetText())
		}
		if n := len(of["flaps"]); n != maxBeforeEach || of["flaps"][n-1] != fmt.Sprint(2*maxBefore-1) || len(of["quiet"]) != 1 {
			t.Errorf("remembered are %q, want the latest of the one that flaps, and that of the quiet one", of)
		}
		for i := range 2 * maxBefore {
			tell(fmt.Sprint("m", i), "of many")
			synctest.Wait()
		}
		settle()
		if n := len(g.before); n != maxBefore {
			t.Errorf("%d notes are remembered, want %d", n, maxBefore)
		}
	})
}
