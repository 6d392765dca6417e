package drift_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/routing/memstore"
	"sluice/telemetry/drift"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is a call with one row of numbers and, unless empty, an answer of one string.
type sample struct {
	row      []float64
	name     string // of a second input, a number; none if empty
	answer   string
	err      error
	released *atomic.Int64
	wait     chan struct{} // nil, or what Tensors waits for
}

func (s *sample) Tensors() (in, out []tensor.Tensor, err error) {
	if s.wait != nil {
		<-s.wait
	}
	if s.err != nil {
		return nil, nil, s.err
	}
	inputs := []*inference.ModelInferRequest_InferInputTensor{{
		Name: "x", Datatype: "FP64", Shape: []int64{1, int64(len(s.row))}, Contents: &inference.InferTensorContents{Fp64Contents: s.row},
	}}
	if s.name != "" {
		inputs = append(inputs, &inference.ModelInferRequest_InferInputTensor{
			Name: s.name, Datatype: "FP64", Shape: []int64{1, 1}, Contents: &inference.InferTensorContents{Fp64Contents: s.row[:1]},
		})
	}
	in, err = tensor.Inputs(&inference.ModelInferRequest{Inputs: inputs})
	if err != nil || s.answer == "" {
		return in, nil, err
	}
	out, err = tensor.Outputs(&inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{{
		Name: "y", Datatype: "BYTES", Shape: []int64{1}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte(strings.TrimPrefix(s.answer, emptyAnswer))}},
	}}})
	return in, out, err
}

// emptyAnswer is the answer of an empty string.
const emptyAnswer = "\x00"

func (s *sample) Release() {
	if s.released != nil {
		s.released.Add(1)
	}
}

// gateways are monitors that share one store.
type gateways struct {
	t      *testing.T
	store  *memstore.Store
	all    []*drift.Monitor
	alarms chan drift.Alarm
	log    lines
	nextID uint64
}

var key = drift.Key{Model: "m", Version: "v1"}

func start(t *testing.T, n int, wrap func(drift.Shelf) drift.Shelf) *gateways {
	t.Helper()
	g := &gateways{t: t, store: memstore.New(memstore.Config{}), alarms: make(chan drift.Alarm, 1000)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	for range n {
		m := drift.New(drift.Config{
			Shelf: func(name string) drift.Shelf {
				if wrap != nil {
					return wrap(g.store.Shelf(name))
				}
				return g.store.Shelf(name)
			},
			Shared: n > 1, Logger: slog.New(slog.NewJSONHandler(&g.log, nil)),
			Alarmed: func(a drift.Alarm) { g.alarms <- a },
		})
		m.Draw(200)
		g.all = append(g.all, m)
		go func() { done <- m.Run(ctx) }()
	}
	t.Cleanup(func() {
		stop()
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return g
}

// settings are of windows of 20 minutes and, where nothing moves, a false alarm a month.
func settings() drift.Settings {
	return drift.Settings{
		PerSecond: 1000,
		Policy:    drift.Policy{Window: 20 * time.Minute, ExpectedRun: 30 * 24 * time.Hour, Effect: 0.2},
		Columns:   map[string][]string{"x": {"a", "b", "c"}},
	}
}

// normal is a reference of n rows of three standard normal columns, and of two answers.
func normal(t *testing.T, seed uint64, n int) *driftv1.Reference {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	columns := make([]drift.Column, 4)
	for range n {
		for i := range 3 {
			columns[i].Number(rng.NormFloat64())
		}
		columns[3].Category(answerOf(rng))
	}
	doc := &driftv1.Reference{Model: key.Model, Version: key.Version, Source: "a test"}
	for i, name := range []string{"a", "b", "c", "output.y"} {
		f, ok := columns[i].Feature(name)
		if !ok {
			t.Fatalf("nothing learnt of %s", name)
		}
		doc.Features = append(doc.Features, f)
	}
	return doc
}

func answerOf(rng *rand.Rand) string {
	if rng.Float64() < 0.3 {
		return "yes"
	}
	return "no"
}

func (g *gateways) put(doc *driftv1.Reference) {
	g.t.Helper()
	if err := g.all[0].Put(g.t.Context(), doc); err != nil {
		g.t.Fatal(err)
	}
}

// toWindow sleeps until a window begins, and a moment longer: references have been read by then.
func toWindow(window time.Duration) {
	now := time.Now()
	time.Sleep(now.Truncate(window).Add(window).Sub(now))
}

// send spreads n samples over a span and the gateways; change alters rows.
func (g *gateways) send(rng *rand.Rand, n int, over time.Duration, change func(*sample)) {
	began := time.Now()
	for i := range n {
		s := &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64()}, answer: answerOf(rng)}
		if change != nil {
			change(s)
		}
		m := g.all[i%len(g.all)]
		g.nextID++
		m.Watch(key, settings(), "").Offer(g.nextID, s)
		time.Sleep(time.Until(began.Add(over * time.Duration(i+1) / time.Duration(n))))
	}
}

// lines is a log, a JSON object a line.
type lines struct {
	mu  sync.Mutex
	all [][]byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, bytes.Clone(p))
	return len(p), nil
}

// alarms are the lines that tell of one.
func (l *lines) alarms(t *testing.T) (all []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.all {
		var line map[string]any
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if line["msg"] == "drift" {
			all = append(all, line)
		}
	}
	return all
}

// raised returns the alarms so far, as "feature reason".
func (g *gateways) raised() []string {
	synctest.Wait()
	var all []string
	for len(g.alarms) > 0 {
		a := <-g.alarms
		all = append(all, a.Feature+" "+a.Reason)
	}
	slices.Sort(all)
	return all
}

// hangs is a shelf of a store that answers nobody while hung.
type hangs struct {
	drift.Shelf
	hung *atomic.Bool
}

var errHung = errors.New("the store has not answered")

func (h hangs) wait(ctx context.Context) error {
	if !h.hung.Load() {
		return nil
	}
	<-ctx.Done()
	return errHung
}

func (h hangs) All(ctx context.Context) (map[string][]byte, error) {
	if err := h.wait(ctx); err != nil {
		return nil, err
	}
	return h.Shelf.All(ctx)
}

func (h hangs) Put(ctx context.Context, key string, value []byte) error {
	if err := h.wait(ctx); err != nil {
		return err
	}
	return h.Shelf.Put(ctx, key, value)
}
