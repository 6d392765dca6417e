package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/gateway"
	pb "sluice/proto/inference"
	"sluice/routing/memstore"
	"sluice/sample"
	"sluice/telemetry"
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
      window: 6s
      expected_run: 10000h
      learn: 1500
      columns: [{tensor: measurements, names: [bill_length_mm, bill_depth_mm, flipper_length_mm, body_mass_g]}]
`
	g := startGateway(t, routes, func(c *gateway.Config) { c.Drift = monitor })
	var grown atomic.Bool
	stop := feedPenguins(t, dial(t, g.addr), &grown)
	defer stop()

	report := func() drift.Report { return monitor.Reports(model)[0] }
	eventually(t, 120*time.Second, "two windows of what was learnt, in which nothing moves", func() error {
		r := report()
		settled := len(r.Findings) > 0 && time.Since(r.Reference.GetMade().AsTime()) > 18*time.Second
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
	deadline := time.After(120 * time.Second)
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

// wideModel answers with one number whatever it is asked.
type wideModel struct {
	pb.UnimplementedGRPCInferenceServiceServer
}

func (wideModel) ModelInfer(_ context.Context, req *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	return &pb.ModelInferResponse{ModelName: req.GetModelName(), Outputs: []*pb.ModelInferResponse_InferOutputTensor{{
		Name: "y", Datatype: "FP32", Shape: []int64{1, 1}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{1}},
	}}}, nil
}

// Of two embeddings of a request, one moves up in half of its columns and down in the others, so that its mean stays: its rows have
// drifted, by what is shown, by the alarm and by metrics, and those of the other have not.
func TestAnEmbeddingThatMovesIsRaisedThroughARealGateway(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterGRPCInferenceServiceServer(server, wideModel{})
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)
	alarms := make(chan drift.Alarm, 100)
	store := memstore.New(memstore.Config{})
	monitor := drift.New(drift.Config{
		Shelf:  func(name string) drift.Shelf { return store.Shelf(name) },
		Logger: slog.New(slog.DiscardHandler), Alarmed: func(a drift.Alarm) { alarms <- a },
	})
	g := startGateway(t, routeTo(lis.Addr().String())+`
    drift:
      per_second: 1000
      window: 6s
      expected_run: 10000h
      learn: 1000
      columns: [{tensor: moving, names: [first]}, {tensor: still, names: [one]}]
`, func(c *gateway.Config) {
		c.Drift, c.Admin = monitor, "127.0.0.1:0"
		c.Telemetry = telemetry.New(telemetry.Config{Version: "e2e", Logger: c.Logger})
	})

	var moved atomic.Bool
	stop := feedEmbeddings(t, dial(t, g.addr), &moved)
	defer stop()

	state := func(name string) drift.State {
		for _, f := range monitor.Reports(model)[0].Findings {
			if f.Feature == name {
				return f.State
			}
		}
		return drift.Insufficient
	}
	eventually(t, 120*time.Second, "a window in which nothing moves", func() error {
		if a, b := state("moving.embedding"), state("still.embedding"); a != drift.OK || b != drift.OK {
			return fmt.Errorf("states %v and %v", a, b)
		}
		return nil
	})
	moved.Store(true)
	deadline := time.After(120 * time.Second)
	for found := false; !found; {
		select {
		case a := <-alarms:
			if strings.HasPrefix(a.Feature, "still.") {
				t.Errorf("raised %s: %s, which has not moved", a.Feature, a.Text)
			}
			found = a.Feature == "moving.embedding" && a.Reason == "distribution"
			if found && !strings.HasPrefix(a.Text, "MMD 0.") {
				t.Errorf("text %q, want its MMD", a.Text)
			}
		case <-deadline:
			t.Fatalf("no alarm; last findings %+v", monitor.Reports(model)[0].Findings)
		}
	}
	if s := state("still.embedding"); s != drift.OK {
		t.Errorf("what has not moved is %v", s)
	}
	resp, err := http.Get("http://" + g.AdminAddr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{
		`sluice_drift_state\{feature="moving.mean",model="penguins",version="v1"\} 1`,
		`sluice_drift_mmd\{feature="moving.embedding",model="penguins",version="v1"\} 0\.[2-9]`,
		`sluice_drift_mmd\{feature="still.embedding",model="penguins",version="v1"\} (0|0\.0\d*|\d\S*e-\d+)\n`,
		`sluice_drift_state\{feature="moving.embedding",model="penguins",version="v1"\} 3`,
		`sluice_drift_state\{feature="still.embedding",model="penguins",version="v1"\} 1`,
		`sluice_drift_psi\{feature="still.norm",model="penguins",version="v1"\} 0\.\d`,
		`sluice_drift_samples_total\{model="penguins",version="v1"\} \d{4}`,
		`sluice_drift_alarms_total\{model="penguins",version="v1"\} [1-9]`,
		`sluice_drift_unreadable_total\{model="penguins",version="v1"\} 0`,
		`sluice_drift_dropped_total \d`,
	} {
		if !regexp.MustCompile("(?m)^" + series).Match(body) {
			t.Errorf("no series like %s", series)
		}
	}
	if regexp.MustCompile(`sluice_drift_psi\{.*feature="\w+.embedding"`).Match(body) {
		t.Error("an embedding has a population stability index")
	}
}

// feedEmbeddings sends two rows of 128 normal columns, some 400 times a second, until it is stopped.
func feedEmbeddings(t *testing.T, cc grpc.ClientConnInterface, moved *atomic.Bool) (stop func()) {
	return feed(t, func(ctx context.Context, rng *rand.Rand) error {
		row := func(by float32) *pb.InferTensorContents {
			values := make([]float32, 128)
			for i := range values {
				values[i] = float32(rng.NormFloat64()) + by
				by = -by
			}
			return &pb.InferTensorContents{Fp32Contents: values}
		}
		req := &pb.ModelInferRequest{ModelName: model, Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "moving", Datatype: "FP32", Shape: []int64{1, 128}, Contents: row(0)},
			{Name: "still", Datatype: "FP32", Shape: []int64{1, 128}, Contents: row(0)},
		}}
		if moved.Load() {
			req.Inputs[0].Contents = row(0.35)
		}
		return infer(ctx, cc, req).err
	})
}

// feedPenguins sends penguins drawn at random, some 400 a second, until it is stopped.
func feedPenguins(t *testing.T, cc grpc.ClientConnInterface, grown *atomic.Bool) (stop func()) {
	train, held := sample.Split()
	rows := slices.Concat(train, held)
	return feed(t, func(ctx context.Context, rng *rand.Rand) error {
		x := rows[rng.IntN(len(rows))].Measurements
		if grown.Load() {
			x[2] += 20
		}
		return infer(ctx, cc, sample.NewRequest(model, x)).err
	})
}

// feed calls some 400 times a second, until it is stopped.
func feed(t *testing.T, call func(ctx context.Context, rng *rand.Rand) error) (stop func()) {
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
				if err := call(ctx, rng); err != nil && ctx.Err() == nil {
					t.Error(err)
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
