package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/gateway"
	"sluice/routing/memstore"
	"sluice/sample"
	"sluice/telemetry/drift"
)

// Real penguins are learnt, then the flippers of those that come grow by 20 mm, as if somebody measured otherwise.
func TestAFeatureThatShiftsIsRaisedThroughARealGateway(t *testing.T) {
	t.Parallel()
	v1 := startBackend(t, "v1")
	alarms := make(chan drift.Alarm, 100)
	store := memstore.New(memstore.Config{})
	monitor := drift.New(drift.Config{
		Shelf:  func(name string) drift.Shelf { return store.Shelf(name) },
		Logger: slog.New(slog.DiscardHandler), Alarmed: func(a drift.Alarm) { alarms <- a },
	})
	routes := routeTo(v1.addr) + `
    drift:
      per_second: 1000
      window: 4s
      learn: 1500
      columns: [{tensor: measurements, names: [bill_length_mm, bill_depth_mm, flipper_length_mm, body_mass_g]}]
`
	g := startGateway(t, routes, func(c *gateway.Config) { c.Drift = monitor })
	var grown atomic.Bool
	stop := feedPenguins(t, dial(t, g.addr), &grown)
	defer stop()

	report := func() drift.Report { return monitor.Reports(model)[0] }
	eventually(t, 60*time.Second, "two windows of what was learnt, in which nothing moves", func() error {
		r := report()
		settled := len(r.Findings) > 0 && time.Since(r.Reference.GetMade().AsTime()) > 12*time.Second
		if !settled || slices.ContainsFunc(r.Findings, func(f drift.Finding) bool { return f.State == drift.Insufficient }) {
			return fmt.Errorf("%d of %d samples, window %+v", r.Learnt, r.ToLearn, r.Window)
		}
		return nil
	})
	for _, f := range report().Findings {
		if f.State != drift.OK {
			t.Errorf("before anything has moved, %s is %v: PSI %.3f, P %.2g", f.Feature, f.State, f.PSI.Value, f.Adjusted)
		}
	}
	for len(alarms) > 0 {
		t.Errorf("alarm before anything has moved: %+v", <-alarms)
	}

	grown.Store(true)
	deadline := time.After(60 * time.Second)
	for found := false; !found; {
		select {
		case a := <-alarms:
			output := strings.HasPrefix(a.Feature, "output.") // what a model makes of strange flippers
			if !output && a.Feature != "flipper_length_mm" {
				t.Errorf("raised %s: %s, want the flippers alone among what is asked", a.Feature, a.Text)
			}
			found = a.Feature == "flipper_length_mm" && a.Reason == "distribution"
			if found && a.Finding.PSI.Value < 0.2 {
				t.Errorf("raised with %+v, want a PSI of at least 0.2", a.Finding)
			}
		case <-deadline:
			t.Fatalf("no alarm; last findings %+v", report().Findings)
		}
	}
	for _, f := range report().Findings {
		switch f.Feature {
		case "bill_length_mm", "bill_depth_mm", "body_mass_g":
			if f.State != drift.OK {
				t.Errorf("%s has not moved and is %v: PSI %.3f, P %.2g", f.Feature, f.State, f.PSI.Value, f.Adjusted)
			}
		}
	}
	if r := report(); r.Unreadable > 0 {
		t.Errorf("%d calls were not understood", r.Unreadable)
	}
}

// feedPenguins sends penguins drawn at random, some 400 a second, until it is stopped.
func feedPenguins(t *testing.T, cc grpc.ClientConnInterface, grown *atomic.Bool) (stop func()) {
	train, held := sample.Split()
	rows := slices.Concat(train, held)
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				x := rows[rng.IntN(len(rows))].Measurements
				if grown.Load() {
					x[2] += 20
				}
				if a := infer(ctx, cc, sample.NewRequest(model, x)); a.err != nil && ctx.Err() == nil {
					t.Error(a.err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		workers.Wait()
	}
}
