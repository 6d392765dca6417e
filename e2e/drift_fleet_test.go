package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/routing/storetest"
	"sluice/sample"
	"sluice/telemetry/drift"
)

// TestGatewaysJudgeTheSumOfWhatTheyCount with a real Redis: one of two gateways is asked for light penguins alone and the other
// for heavy ones, and both show both. With Redis hung, no call notices, and each judges what it has counted itself,
// which is a drift, and says so in its log.
func TestGatewaysJudgeTheSumOfWhatTheyCount(t *testing.T) {
	t.Parallel()
	redis := storetest.StartRedis(t)
	v1 := startBackend(t, "v1")
	routes := routeTo(v1.addr) + fmt.Sprintf(`
    drift: {per_second: 1000, window: 6s, learn: 0, columns: [{tensor: %s, names: [a, b, c, mass]}]}
`, sample.InputName)
	gateways := []*shared{startShared(t, redis.URL(), routes), startShared(t, redis.URL(), "")}
	gateways[1].awaitV1(1)
	clients := make([]adminv1connect.DriftServiceClient, 2)
	for i, g := range gateways {
		clients[i] = adminv1connect.NewDriftServiceClient(g.http, g.admin)
	}
	const light, heavy = 3000, 6000
	var mass drift.Column
	for range 1000 {
		mass.Number(light)
		mass.Number(heavy)
	}
	f, _ := mass.Feature("mass")
	_, err := clients[0].SetReference(t.Context(), &adminv1.SetReferenceRequest{Source: &adminv1.SetReferenceRequest_Reference{
		Reference: &driftv1.Reference{Model: model, Version: "v1", Source: "a test", Features: []*driftv1.Feature{f}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	calls := newMassCalls(t, dial(t, gateways[0].data), light, dial(t, gateways[1].data), heavy)
	defer calls.stop()

	both := func() error {
		a, b := windowOf(t, clients[0]), windowOf(t, clients[1])
		if !a.GetWindow().GetTo().AsTime().Equal(b.GetWindow().GetTo().AsTime()) {
			return errors.New("they are at different windows")
		}
		lightA, heavyA := masses(a)
		if !(lightA >= 0.1) || !(heavyA >= 0.1) || a.GetWindow().GetSamples() != b.GetWindow().GetSamples() ||
			!slices.Equal(a.GetFeatures()[0].GetCurrent(), b.GetFeatures()[0].GetCurrent()) {
			return fmt.Errorf("one shows %v, the other %v", a, b)
		}
		return nil
	}
	eventually(t, 90*time.Second, "both show the sum", both)

	redis.Hang()
	eventually(t, 90*time.Second, "each shows what it has counted itself", func() error {
		light0, heavy0 := masses(windowOf(t, clients[0]))
		light1, heavy1 := masses(windowOf(t, clients[1]))
		if !(light0 >= 0.99) || !(heavy1 >= 0.99) {
			return fmt.Errorf("one has %.2f light and %.2f heavy ones, the other %.2f and %.2f", light0, heavy0, light1, heavy1)
		}
		return nil
	})
	gateways[0].await(t, `level=WARN msg=drift .*feature=mass reason=distribution samples=\d+ .*PSI`)
	redis.Resume()
	eventually(t, 90*time.Second, "both show the sum again", both)
}

// windowOf is what a gateway shows of v1.
func windowOf(t *testing.T, c adminv1connect.DriftServiceClient) *adminv1.VersionDrift {
	t.Helper()
	resp, err := c.GetDrift(t.Context(), &adminv1.GetDriftRequest{Model: model})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetVersions()[0]
}

// masses are the shares of light and of heavy penguins in a window; NaN if there is none.
func masses(v *adminv1.VersionDrift) (light, heavy float64) {
	if len(v.GetFeatures()) != 1 || len(v.GetFeatures()[0].GetCurrent()) != 2 {
		return math.NaN(), math.NaN()
	}
	c := v.GetFeatures()[0].GetCurrent()
	return c[0], c[1]
}

// massCalls ask two gateways for penguins, each for its own kind, some 400 times a second.
type massCalls struct{ stop func() }

func newMassCalls(t *testing.T, a grpc.ClientConnInterface, light float64, b grpc.ClientConnInterface, heavy float64) massCalls {
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	call := func(cc grpc.ClientConnInterface, mass float64) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		x := heldBack()[0].Measurements
		x[3] = mass
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			limited, done := context.WithTimeout(ctx, patience)
			if a := infer(limited, cc, sample.NewRequest(model, x)); a.err != nil && ctx.Err() == nil {
				t.Error(a.err)
				cancel()
			}
			done()
		}
	}
	for range 4 {
		workers.Go(func() { call(a, light) })
		workers.Go(func() { call(b, heavy) })
	}
	return massCalls{sync.OnceFunc(func() { cancel(); workers.Wait() })}
}
