package drift_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift"
)

const window = 20 * time.Minute

func TestAShiftedFeatureIsRaisedAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		rng := rand.New(rand.NewPCG(1, 0))
		g.put(normal(t, 2, 5000))
		g.all[0].Watch(key, settings(), "")
		toWindow(window)
		for range 3 {
			g.send(rng, 2000, window, nil)
		}
		time.Sleep(time.Minute)
		if got := g.raised(); len(got) > 0 {
			t.Fatalf("alarms before anything has moved: %v", got)
		}
		toWindow(window)
		shift := func(s *sample) { s.row[1] += 0.6 }
		g.send(rng, 2000, window, shift)
		time.Sleep(time.Minute)
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms after one window: %v, want two windows to be needed", got)
		}
		toWindow(window)
		g.send(rng, 2000, window, shift)
		time.Sleep(time.Minute)
		if got := g.raised(); !slices.Equal(got, []string{"b distribution"}) {
			t.Errorf("alarms %v, want b's alone", got)
		}
		r := g.all[0].Reports(key.Model)[0]
		if f := r.Findings[0]; f.Feature != "b" || f.State != drift.Drift || f.PSI.Value < 0.2 || f.KS.P > 1e-6 {
			t.Errorf("first of the findings: %+v", f)
		}
		for _, f := range r.Findings[1:] {
			if f.State != drift.OK {
				t.Errorf("%s is %v, want ok: %+v", f.Feature, f.State, f)
			}
		}
		if r.Window.To.Sub(r.Window.From) != window || r.Window.Samples != 2000 || r.Alarms != 1 {
			t.Errorf("report of %+v with %d alarms, want 2,000 samples of 20 minutes with 1", r.Window, r.Alarms)
		}
		log := g.log.alarms(t)
		if len(log) != 1 {
			t.Fatalf("%d lines in the log tell of an alarm, want one: %v", len(log), log)
		}
		for k, want := range map[string]any{
			"level": "WARN", "model": "m", "version": "v1", "feature": "b", "reason": "distribution", "samples": 2000.0,
			"from": r.Window.From.Format(time.RFC3339), "to": r.Window.To.Format(time.RFC3339),
		} {
			if log[0][k] != want {
				t.Errorf("log: %s is %v, want %v", k, log[0][k], want)
			}
		}
		if text, _ := log[0]["text"].(string); !strings.HasPrefix(text, fmt.Sprintf("PSI %.3f >= 0.2, P ", r.Findings[0].PSI.Value)) {
			t.Errorf("log: text %q, want the numbers", text)
		}
		// It lasts, and is not told again.
		toWindow(window)
		g.send(rng, 2000, window, shift)
		time.Sleep(time.Minute)
		if got := g.raised(); len(got) > 0 {
			t.Errorf("the same drift was raised again: %v", got)
		}
	})
}

func TestAnswersThatMoveAreRaisedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		rng := rand.New(rand.NewPCG(3, 0))
		g.put(normal(t, 4, 5000))
		g.all[0].Watch(key, settings(), "")
		toWindow(window)
		for range 2 {
			g.send(rng, 2000, window, func(s *sample) {
				if rng.Float64() < 0.35 {
					s.answer = "yes"
				}
			})
		}
		time.Sleep(time.Minute)
		if got := g.raised(); !slices.Equal(got, []string{"output.y distribution"}) {
			t.Errorf("alarms %v, want that of the answers", got)
		}
	})
}

// Any number of gateways find what one would have found that had seen all samples.
func TestGatewaysAgreeOnTheSumOfTheirCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc := normal(t, 5, 5000)
		var found [3]drift.Finding
		for i, n := range []int{1, 3} {
			g := start(t, n, nil)
			g.put(doc)
			for _, m := range g.all {
				m.Watch(key, settings(), "")
			}
			toWindow(window)
			g.send(rand.New(rand.NewPCG(6, 0)), 3000, window, func(s *sample) { s.row[0] += 0.1 })
			time.Sleep(time.Minute)
			synctest.Wait()
			for _, m := range g.all {
				r := m.Reports(key.Model)[0]
				if r.Window.Samples != 3000 || len(r.Findings) == 0 {
					t.Fatalf("%d gateways: one of them shows a window of %d samples, want 3,000", n, r.Window.Samples)
				}
				at := slices.IndexFunc(r.Findings, func(f drift.Finding) bool { return f.Feature == "a" })
				if f := r.Findings[at]; i == 0 {
					found[0] = f
				} else if f.PSI != found[0].PSI || f.KS != found[0].KS || f.Wasserstein.Value != found[0].Wasserstein.Value {
					t.Errorf("one of three finds %+v, a single gateway %+v", f, found[0])
				}
			}
		}
	})
}

func TestAHungStoreLeavesAGatewayWithItsOwnCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hung atomic.Bool
		g := start(t, 2, func(s drift.Shelf) drift.Shelf { return hangs{s, &hung} })
		g.put(normal(t, 7, 5000))
		for _, m := range g.all {
			m.Watch(key, settings(), "")
		}
		toWindow(window)
		hung.Store(true)
		before := time.Now()
		g.send(rand.New(rand.NewPCG(8, 0)), 3000, window, func(s *sample) { s.row[2] += 1 })
		if took := time.Since(before); took != window {
			t.Errorf("offering took %v of a window of %v: somebody waited for the store", took, window)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := g.all[0].Reports(key.Model)[0]; r.Window.Samples != 1500 {
			t.Errorf("a window of %d samples, want this gateway's 1,500", r.Window.Samples)
		}
		if n := g.all[0].Dropped(); n != 0 {
			t.Errorf("%d samples were dropped", n)
		}
		hung.Store(false)
		toWindow(window)
		g.send(rand.New(rand.NewPCG(9, 0)), 3000, window, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := g.all[1].Reports(key.Model)[0]; r.Window.Samples != 3000 {
			t.Errorf("once the store is back, a window of %d samples, want 3,000", r.Window.Samples)
		}
	})
}

func TestValuesThatAreNoneAreRaisedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*sample)
		want   []string
	}{
		{"NaN", func(s *sample) { s.row[0] = math.NaN() }, []string{"a nan"}},
		{"infinite", func(s *sample) { s.row[1] = math.Inf(-1) }, []string{"b infinite"}},
		{"far outside", func(s *sample) { s.row[2] = 99 }, []string{"c outside"}},
		{"unknown answers", func(s *sample) { s.answer = "perhaps" }, []string{"output.y outside"}},
		{"no answers", func(s *sample) { s.answer = "" }, []string{"output.y absent"}},
		{"a column less", func(s *sample) { s.row = s.row[:2] }, []string{"c absent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, 1, nil)
				rng := rand.New(rand.NewPCG(10, 0))
				g.put(normal(t, 11, 5000))
				g.all[0].Watch(key, settings(), "")
				toWindow(window)
				g.send(rng, 600, window/12, func(s *sample) {
					if rng.Float64() < 0.05 {
						tt.change(s)
					}
				})
				time.Sleep(time.Minute)
				if got := g.raised(); !slices.Equal(got, tt.want) {
					t.Errorf("alarms %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestFirstSamplesAreLearntIfThereIsNoReference(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 2, nil)
		s := settings()
		s.Learn = 1000
		watch := func() (v []*drift.Version) {
			for _, m := range g.all {
				v = append(v, m.Watch(key, s, "dvc:1"))
			}
			return v
		}
		versions := watch()
		rng := rand.New(rand.NewPCG(12, 0))
		feed := func(n int, shift float64) {
			for i := range n {
				versions[i%2].Offer(uint64(i), &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64() + shift, rng.NormFloat64()}, answer: answerOf(rng)})
				time.Sleep(window / time.Duration(n))
			}
		}
		feed(2000, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, m := range g.all {
			r := m.Reports(key.Model)[0]
			if r.Reference == nil || r.Reference.GetSource() != "first 1000 samples" || r.Reference.GetData() != "dvc:1" {
				t.Fatalf("gateway %d compares with %v, want what the first to have 1,000 samples has learnt", i, r.Reference)
			}
		}
		toWindow(window)
		feed(4000, 0)
		feed(4000, 1)
		feed(4000, 1)
		time.Sleep(time.Minute)
		got := slices.DeleteFunc(g.raised(), func(a string) bool { return a == "b outside" }) // it may be so, too
		if want := []string{"b distribution", "b distribution"}; !slices.Equal(got, want) {
			t.Errorf("alarms %v, want %v, one of each gateway", got, want)
		}
	})
}

func TestAVersionCanBeComparedWithAnothersTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		m := g.all[0]
		g.put(normal(t, 13, 5000))
		m.Watch(key, settings(), "")
		canary := drift.Key{Model: key.Model, Version: "v2"}
		if _, err := m.FromTraffic(canary, "v1"); err == nil {
			t.Error("a reference was made of no traffic")
		}
		toWindow(window)
		g.send(rand.New(rand.NewPCG(14, 0)), 2000, window, func(s *sample) { s.row[0] += 2 })
		time.Sleep(time.Minute)
		synctest.Wait()
		doc, err := m.FromTraffic(canary, "v1")
		if err != nil {
			t.Fatal(err)
		}
		g.put(doc)
		v := m.Watch(canary, settings(), "")
		toWindow(window)
		rng := rand.New(rand.NewPCG(15, 0))
		for i := range 2000 {
			v.Offer(uint64(i), &sample{row: []float64{rng.NormFloat64() + 2, rng.NormFloat64(), rng.NormFloat64()}, answer: answerOf(rng)})
			time.Sleep(window / 2000)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, f := range m.Reports(key.Model)[1].Findings {
			if f.State != drift.OK {
				t.Errorf("%s is %v against traffic that is the same: %+v", f.Feature, f.State, f)
			}
		}
	})
}

func TestTooFewValuesAreInsufficientAndNotOK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		g.put(normal(t, 16, 5000))
		g.all[0].Watch(key, settings(), "")
		toWindow(window)
		g.send(rand.New(rand.NewPCG(17, 0)), 499, window, func(s *sample) { s.row[0] += 3 })
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, f := range g.all[0].Reports(key.Model)[0].Findings {
			if f.State != drift.Insufficient || !math.IsNaN(f.PSI.Value) {
				t.Errorf("%s of 499 values is %v with PSI %v, want insufficient", f.Feature, f.State, f.PSI.Value)
			}
		}
	})
}

// The queue takes 256 while nobody works; every sample is released exactly once.
func TestAFullQueueDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		v := g.all[0].Watch(key, settings(), "")
		var released atomic.Int64
		wait := make(chan struct{})
		v.Offer(0, &sample{released: &released, wait: wait})
		synctest.Wait()
		for i := range 1000 {
			v.Offer(uint64(i), &sample{row: []float64{1}, released: &released})
		}
		if n := g.all[0].Dropped(); n != 1000-256 {
			t.Errorf("%d were dropped, want %d", n, 1000-256)
		}
		close(wait)
		synctest.Wait()
		if n := released.Load(); n != 1001 {
			t.Errorf("%d were released, want 1,001", n)
		}
	})
}

func TestUnreadableCallsAreCountedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		v := g.all[0].Watch(key, settings(), "")
		v.Offer(1, &sample{err: errors.New("no tensor at all")})
		synctest.Wait()
		if r := g.all[0].Reports(key.Model)[0]; r.Unreadable != 1 || r.Sampled != 0 {
			t.Errorf("%d unreadable and %d sampled, want 1 and 0", r.Unreadable, r.Sampled)
		}
	})
}

func TestSamplingKeepsToItsRateAndPicksTheSameCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		s := settings()
		s.PerSecond = 50
		few := g.all[0].Watch(key, s, "")
		s.PerSecond = 200
		many := g.all[0].Watch(drift.Key{Model: "m", Version: "v2"}, s, "")
		rng := rand.New(rand.NewPCG(18, 0))
		time.Sleep(500 * time.Millisecond)
		var a, b, both int
		for second := range 21 {
			for range 5000 {
				id := rng.Uint64()
				x, y := few.Wants(id), many.Wants(id)
				if second == 0 {
					continue // nothing is known of the rate of calls yet
				}
				if x {
					a++
					if id > math.MaxUint64/100*2 {
						t.Fatalf("call %#x is picked, of which one in a hundred is: want the lowest ids, as everybody else picks them", id)
					}
				}
				if y {
					b++
				}
				if x && y {
					both++
				}
			}
			time.Sleep(time.Second)
		}
		if a > 50*20 || a < 40*20 || b > 200*20 || b < 180*20 {
			t.Errorf("%d and %d of 20 seconds, want nearly 50 and 200 a second", a, b)
		}
		if both < a*9/10 {
			t.Errorf("%d of the %d that the one picks are picked by the other, want nearly all", both, a)
		}
	})
}

// An operator takes the traffic away from a canary that has drifted: what is known of it then is nothing.
func TestAVersionThatIsNotCalledHasNotDrifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		rng := rand.New(rand.NewPCG(71, 0))
		g.put(normal(t, 72, 5000))
		g.all[0].Watch(key, settings(), "")
		toWindow(window)
		for range 2 {
			g.send(rng, 1000, window, func(s *sample) { s.row[0] += 1 })
		}
		time.Sleep(time.Minute)
		first := func() drift.Finding { return g.all[0].Reports(key.Model)[0].Findings[0] }
		if f := first(); f.State != drift.Drift {
			t.Fatalf("%s is %v, want drift", f.Feature, f.State)
		}
		time.Sleep(window + time.Minute)
		for _, f := range g.all[0].Reports(key.Model)[0].Findings {
			if f.State != drift.Insufficient || !math.IsNaN(f.PSI.Value) || f.Values != 0 {
				t.Errorf("after a window without calls, %s is %v with PSI %v of %d values, want insufficient", f.Feature, f.State, f.PSI.Value, f.Values)
			}
		}
		if w := g.all[0].Reports(key.Model)[0].Window; w.Samples != 0 || time.Since(w.To) > 10*time.Minute {
			t.Errorf("window %+v, want the last one, without samples", w)
		}
		// It comes back as it was, and that is told of once.
		toWindow(window)
		g.send(rng, 1000, window, func(s *sample) { s.row[0] += 1 })
		time.Sleep(time.Minute)
		if f := first(); f.State != drift.Drift {
			t.Errorf("back again, %s is %v, want drift", f.Feature, f.State)
		}
		if got := slices.DeleteFunc(g.raised(), func(a string) bool { return a == "a outside" }); !slices.Equal(got, []string{"a distribution"}) {
			t.Errorf("alarms %v, want one", got)
		}
	})
}

// What one of several gateways has left on the shelf is no tally; the others' counts are added up all the same.
func TestWhatStrangersLeaveIsSweptAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 2, nil)
		g.put(normal(t, 73, 5000))
		for _, m := range g.all {
			m.Watch(key, settings(), "")
		}
		toWindow(window)
		shelf := func(slot int) drift.Shelf { return g.store.Shelf(fmt.Sprintf("drift-slot-%02d", slot)) }
		for slot := range 13 {
			if err := shelf(slot).Put(t.Context(), "m v1 stranger", []byte("no tally")); err != nil {
				t.Fatal(err)
			}
			// Of a version that is gone, long ago, and of one that another gateway watches.
			now := time.Now().UnixNano() / int64(window/12)
			for name, at := range map[string]int64{"m gone old": now - 36, "m other new": now + 12} {
				data, err := proto.Marshal(&driftv1.Tally{Slot: at, Period: int64(window / 12), Samples: 1})
				if err != nil {
					t.Fatal(err)
				}
				if err := shelf(slot).Put(t.Context(), name, data); err != nil {
					t.Fatal(err)
				}
			}
		}
		g.send(rand.New(rand.NewPCG(74, 0)), 1000, window, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, m := range g.all {
			if r := m.Reports(key.Model)[0]; r.Window.Samples != 1000 {
				t.Errorf("gateway %d shows %d samples, want all 1,000", i, r.Window.Samples)
			}
		}
		var left, gone, others int
		for slot := range 13 {
			all, err := shelf(slot).All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for name, n := range map[string]*int{"m v1 stranger": &left, "m gone old": &gone, "m other new": &others} {
				if all[name] != nil {
					*n++
				}
			}
		}
		if left > 1 || gone > 1 || others != 13 { // the slot under way has not been swept
			t.Errorf("what nobody can read is still there in %d slots, what is of a version that is gone in %d, want 1 at most; what others need in %d of 13", left, gone, others)
		}
	})
}

// raw is a call as it was read.
type raw struct{ in, out []tensor.Tensor }

func (r raw) Tensors() (in, out []tensor.Tensor, err error) { return r.in, r.out, nil }
func (r raw) Release()                                      {}

// Triton answers one client with scores and another, who asks for a classification, with strings of the same name and width.
func TestATensorMayChangeItsDatatype(t *testing.T) {
	numbers := func(name string, width int) tensor.Tensor {
		all, err := tensor.Inputs(&inference.ModelInferRequest{Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: name, Datatype: "FP64", Shape: []int64{1, int64(width)}, Contents: &inference.InferTensorContents{Fp64Contents: make([]float64, width)},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	texts := func(name string, width int) tensor.Tensor {
		all, err := tensor.Inputs(&inference.ModelInferRequest{Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: name, Datatype: "BYTES", Shape: []int64{1, int64(width)}, Contents: &inference.InferTensorContents{BytesContents: make([][]byte, width)},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	for _, width := range []int{1, 2, 3, 5, 64, 65, 2000} {
		for _, calls := range [][]raw{
			{{in: []tensor.Tensor{texts("x", width)}}, {in: []tensor.Tensor{numbers("x", width)}}},
			{{in: []tensor.Tensor{numbers("x", width), texts("x", width), numbers("x", width)}}},
			{{out: []tensor.Tensor{texts("x", width)}}, {out: []tensor.Tensor{numbers("x", width)}}},
			{{out: []tensor.Tensor{numbers("x", width)}}, {out: []tensor.Tensor{texts("x", width)}}},
		} {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, 1, nil)
				v := g.all[0].Watch(key, settings(), "")
				for i, c := range calls {
					v.Offer(uint64(i), c)
				}
				synctest.Wait()
				if r := g.all[0].Reports(key.Model)[0]; r.Sampled != uint64(len(calls)) || r.Unreadable != 0 {
					t.Errorf("%d columns: %d sampled and %d unreadable of %d calls", width, r.Sampled, r.Unreadable, len(calls))
				}
			})
		}
	}
}

// broken is a call that cannot even be read.
type broken struct{ *sample }

func (broken) Tensors() (in, out []tensor.Tensor, err error) { panic("a mistake") }

// Whatever goes wrong while a stranger's tensors are read, the gateway stays.
func TestAMistakeLosesASampleAndNotTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		v := g.all[0].Watch(key, settings(), "")
		var released atomic.Int64
		for i := range 3 {
			v.Offer(uint64(i), broken{&sample{released: &released}})
		}
		v.Offer(4, &sample{row: []float64{1, 2, 3}, released: &released})
		synctest.Wait()
		if r := g.all[0].Reports(key.Model)[0]; r.Unreadable != 3 || r.Sampled != 1 || released.Load() != 4 {
			t.Errorf("%d unreadable, %d sampled, %d released, want 3, 1 and 4", r.Unreadable, r.Sampled, released.Load())
		}
	})
}
