package labels_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/routing/memstore"
	"sluice/telemetry/labels"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var classes = []string{"honest", "fraud"}

// settings are of two classes, in windows of an hour.
func settings() labels.Settings {
	return labels.Settings{
		Predicts: labels.Class, Classes: classes, GoodFrom: 0.5, MaxAge: 7 * 24 * time.Hour, Window: time.Hour,
		Detector: "esr", ExpectedRun: 100_000, Learn: 1000,
	}
}

// gateways are monitors that share keys and one store.
type gateways struct {
	t      *testing.T
	signer *labels.Signer
	store  *memstore.Store
	all    []*labels.Monitor
	alarms chan labels.Alarm
	rng    *rand.Rand
	now    labels.Settings
	marks  *marker // nil: gateways do not know of each other's labels
	stop   func()
}

// start runs n gateways that take labels for versions v1 and v2, until the test ends.
func start(t *testing.T, n int, s labels.Settings, wrap func(labels.Shelf) labels.Shelf) *gateways {
	t.Helper()
	g := &gateways{
		t: t, signer: labels.NewSigner(), store: memstore.New(memstore.Config{}), alarms: make(chan labels.Alarm, 1000), rng: rand.New(rand.NewPCG(1, 2)),
	}
	g.begin(n, s, wrap)
	return g
}

// begin starts gateways, again if they were stopped.
func (g *gateways) begin(n int, s labels.Settings, wrap func(labels.Shelf) labels.Shelf) {
	g.t.Helper()
	g.all, g.now = nil, s
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error)
	for range n {
		var marks labels.Marker
		if g.marks != nil {
			marks = g.marks
		}
		m := labels.New(labels.Config{
			Marker: marks, Signer: g.signer, Logger: slog.New(slog.DiscardHandler), Alarmed: func(a labels.Alarm) { g.alarms <- a },
			Shelf: func(name string) labels.Shelf {
				if wrap != nil {
					return wrap(g.store.Shelf(name))
				}
				return g.store.Shelf(name)
			},
		})
		m.Watch(v1, s)
		m.Watch(v2, s)
		g.all = append(g.all, m)
		go func() { done <- m.Run(ctx) }()
	}
	stopped := false
	g.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range n {
			if err := <-done; err != nil {
				g.t.Error(err)
			}
		}
	}
	g.t.Cleanup(g.stop)
}

var v1, v2 = labels.Key{Model: "m", Version: "v1"}, labels.Key{Model: "m", Version: "v2"}

// predict makes the id of a prediction of a class, with its probability.
func (g *gateways) predict(from *labels.Monitor, key labels.Key, fraud float64) string {
	from.Watch(key, g.now).Predicted(1)
	return string(g.signer.Append(nil, &labels.Identity{
		Nonce: g.rng.Uint64(), At: time.Now(), Model: key.Model, Version: key.Version, Arm: key.Version,
		Prediction: labels.OfProbabilities(labels.Fingerprint(classes), []float64{1 - fraud, fraud}),
	}))
}

// take reports one label.
func take(to *labels.Monitor, l labels.Label) (duplicate bool, refused *labels.Refusal) {
	o := to.Take(context.Background(), []labels.Label{l})[0]
	return o.Duplicate, o.Refused
}

// tell reports a class and wants it counted.
func tell(t *testing.T, to *labels.Monitor, id, class string) {
	t.Helper()
	if duplicate, refused := take(to, labels.Label{ID: id, Truth: labels.TrueClass, Class: class}); duplicate || refused != nil {
		t.Fatalf("duplicate %v, refused %v, want the label counted", duplicate, refused)
	}
}

// outcome predicts and tells the truth, which is an error with some probability.
func (g *gateways) outcome(from, to *labels.Monitor, key labels.Key, errors float64) {
	g.t.Helper()
	fraud, class := g.rng.Float64(), 0
	if fraud > 0.5 {
		class = 1
	}
	if g.rng.Float64() < errors {
		class = 1 - class
	}
	tell(g.t, to, g.predict(from, key, fraud), classes[class])
}

// of returns the report of a version.
func of(m *labels.Monitor, key labels.Key) labels.Report {
	for _, r := range m.Reports(key.Model) {
		if r.Key == key {
			return r
		}
	}
	return labels.Report{}
}
