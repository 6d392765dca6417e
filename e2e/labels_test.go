package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	feedbackv1 "sluice/proto/sluice/feedback/v1"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
	"sluice/sample"
	"sluice/telemetry/labels"
)

const labelled = `
    labels: {predicts: class, output: probabilities, classes: [Adelie, Chinstrap, Gentoo], learn: 50}
`

// confused is a model that has learnt the names of two species the wrong way round, as when somebody sorts a list.
func confused(t *testing.T) *sample.Model {
	t.Helper()
	m, err := sample.Load("v2")
	if err != nil {
		t.Fatal(err)
	}
	m.Classes = slices.Clone(m.Classes)
	a, b := slices.Index(m.Classes, "Adelie"), slices.Index(m.Classes, "Gentoo")
	m.Classes[a], m.Classes[b] = m.Classes[b], m.Classes[a]
	return m
}

// observed is a prediction, and what turned out to be true.
type observed struct{ id, version, truth, predicted string }

func (o observed) label() *feedbackv1.Label {
	return &feedbackv1.Label{PredictionId: o.id, Truth: &feedbackv1.Label_Class{Class: o.truth}, Time: timestamppb.Now()}
}

// observe asks about n penguins, and looks at what they really are.
func observe(t *testing.T, cc grpc.ClientConnInterface, n int) (all []observed) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	penguins, _ := sample.Split()
	for range n {
		p := penguins[rng.IntN(len(penguins))]
		a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, p.Measurements))
		if a.err != nil {
			t.Fatal(a.err)
		}
		species, err := sample.ReadSpecies(a.ModelInferResponse)
		if err != nil {
			t.Fatal(err)
		}
		if ids := a.header.Get("sluice-prediction-id"); ids != nil {
			t.Fatalf("the id stands in the header, too: %q", ids)
		}
		all = append(all, observed{one(t, a.trailer, "sluice-prediction-id"), one(t, a.header, "sluice-version"), p.Species, species[0]})
	}
	return all
}

// report sends labels in one request.
func report(t *testing.T, cc grpc.ClientConnInterface, all []observed) *feedbackv1.SendResponse {
	t.Helper()
	req := new(feedbackv1.SendRequest)
	for _, o := range all {
		req.Labels = append(req.Labels, o.label())
	}
	resp, err := feedbackv1.NewFeedbackServiceClient(cc).Send(within(t, 10*time.Second), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A canary whose classes are mixed up answers as fast and as surely as stable does. Only labels show it.
func TestAWorseCanaryIsShownByItsLabels(t *testing.T) {
	t.Parallel()
	stable := startBackend(t, "v1")
	canary := startModel(t, confused(t))
	store := memstore.New(memstore.Config{})
	monitor := labels.New(labels.Config{
		Signer: labels.NewSigner(), Logger: slog.New(slog.DiscardHandler), Shelf: func(name string) labels.Shelf { return store.Shelf(name) },
	})
	routes := split(stable, canary, 60, 40) + strings.Replace(labelled, "probabilities", "species", 1)
	g := startGateway(t, routes, func(c *gateway.Config) { c.Labels = monitor })
	cc := dial(t, g.addr)
	all := observe(t, cc, 900)
	if resp := report(t, cc, all); resp.GetCounted() != 900 || len(resp.GetRefused()) > 0 {
		t.Fatalf("got %v, want all labels counted", resp)
	}
	right, n := map[string]int{}, map[string]int{}
	for _, o := range all {
		n[o.version]++
		if o.predicted == o.truth {
			right[o.version]++
		}
	}
	reports := monitor.Reports(model)
	if len(reports) != 2 {
		t.Fatalf("got %d reports, want one for each version", len(reports))
	}
	for _, r := range reports {
		want := float64(right[r.Version]) / float64(n[r.Version])
		if r.Current.Accuracy != want || r.Current.Labels != uint64(n[r.Version]) {
			t.Errorf("%s: accuracy %v of %d labels, want %v of %d", r.Version, r.Current.Accuracy, r.Current.Labels, want, n[r.Version])
		}
		if r.Labelled != uint64(n[r.Version]) || r.Predictions != r.Labelled || r.Unread > 0 {
			t.Errorf("%s: %d of %d predictions labelled, %d unread, want all of %d", r.Version, r.Labelled, r.Predictions, r.Unread, n[r.Version])
		}
	}
	c := labels.Compare(reports)
	if len(c) != 1 || c[0].Version != "v2" || c[0].With != "v1" || c[0].Interval.Low <= 0 {
		t.Errorf("comparison %+v, want v2 to be worse than v1", c)
	}
	// The same labels again, by somebody who is not sure that they arrived.
	if resp := report(t, cc, all); resp.GetCounted() != 0 || resp.GetDuplicates() != 900 {
		t.Errorf("sent again: %v, want them to be known", resp)
	}
}

// Whoever answers, whoever is told: gateways that share a store and keys count together.
func TestLabelsMayGoToAnotherGatewayThanTheCall(t *testing.T) {
	t.Parallel()
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	redis := storetest.StartRedis(t, durable...)
	keys := t.TempDir() + "/keys"
	writeFile(t, keys, strings.Repeat("4f", 32)+"\n")
	a := startShared(t, redis.URL(), split(v1, v2, 50, 50)+labelled, "--label-key-file", keys)
	b := startShared(t, redis.URL(), "", "--label-key-file", keys)
	c := startShared(t, redis.URL(), "") // it has a key of its own
	b.awaitV1(50)
	c.awaitV1(50)
	all := observe(t, dial(t, a.data), 120)

	resp := report(t, dial(t, b.data), all[:80])
	if resp.GetCounted() != 80 {
		t.Fatalf("the other gateway: got %v, want all labels counted", resp)
	}
	if resp := report(t, dial(t, a.data), all[80:]); resp.GetCounted() != 40 {
		t.Fatalf("the gateway that has answered: got %v, want all labels counted", resp)
	}
	if resp := report(t, dial(t, a.data), all[:100]); resp.GetDuplicates() != 100 {
		t.Errorf("sent again, to a gateway that has not taken them: got %v, want them to be known", resp)
	}
	resp = report(t, dial(t, c.data), all[:1])
	if len(resp.GetRefused()) != 1 || resp.GetRefused()[0].GetReason() != feedbackv1.Reason_REASON_UNKNOWN_KEY {
		t.Errorf("a gateway with another key: got %v, want it refused", resp)
	}
	forged, tail := all[0], len(all[0].id)-2
	other := "A"
	if forged.id[tail:tail+1] == other {
		other = "B"
	}
	forged.id = forged.id[:tail] + other + forged.id[tail+1:]
	resp = report(t, dial(t, b.data), []observed{forged})
	if len(resp.GetRefused()) != 1 || resp.GetRefused()[0].GetReason() != feedbackv1.Reason_REASON_BAD_SIGNATURE {
		t.Errorf("a forged id: got %v, want it refused", resp)
	}
	for name, g := range map[string]*shared{"a": a, "b": b, "c": c} {
		client := adminv1connect.NewLabelServiceClient(g.http, g.admin)
		eventually(t, 30*time.Second, "gateway "+name+" shows all labels and predictions", func() error {
			got, err := client.GetLabels(within(t, 10*time.Second), &adminv1.GetLabelsRequest{Model: model})
			if err != nil {
				return err
			}
			var n, predictions, labelled uint64
			for _, v := range got.GetVersions() {
				n += v.GetCurrent().GetLabels() + v.GetLast().GetLabels()
				predictions, labelled = predictions+v.GetPredictions(), labelled+v.GetLabelled()
			}
			if n != 120 || predictions != 120 || labelled != 120 {
				return fmt.Errorf("%d labels, %d of %d predictions labelled", n, labelled, predictions)
			}
			return nil
		})
	}
}

// Redis is stopped for a while, as by a disk or a hypervisor that hangs. Calls are answered with their ids as before, feedback is
// taken with what became of each label, and known to have been taken alone; what was counted meanwhile adds up once Redis is back.
func TestLabelsWhileRedisHangs(t *testing.T) {
	t.Parallel()
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	redis := storetest.StartRedis(t, durable...)
	keys := t.TempDir() + "/keys"
	writeFile(t, keys, strings.Repeat("4f", 32)+"\n")
	a := startShared(t, redis.URL(), split(v1, v2, 50, 50)+labelled, "--label-key-file", keys)
	b := startShared(t, redis.URL(), "", "--label-key-file", keys)
	b.awaitV1(50)
	toA, toB := dial(t, a.data), dial(t, b.data)
	before := observe(t, toA, 40)
	if resp := report(t, toA, before); resp.GetCounted() != 40 {
		t.Fatalf("before: got %v, want all labels counted", resp)
	}

	redis.Hang()
	calling, slowest := make(chan struct{}), make(chan time.Duration, 1)
	go func() { // calls while feedback waits for Redis
		var worst time.Duration
		penguins, _ := sample.Split()
		for {
			select {
			case <-calling:
				slowest <- worst
				return
			default:
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			began := time.Now()
			if c := infer(ctx, toA, sample.NewRequest(model, penguins[0].Measurements)); c.err != nil {
				t.Errorf("a call while Redis hangs: %v", c.err)
			} else if len(c.trailer.Get("sluice-prediction-id")) != 1 {
				t.Error("a call while Redis hangs has no id")
			}
			worst = max(worst, time.Since(began))
			cancel()
		}
	}()
	during := observe(t, toA, 60)
	if resp := report(t, toA, during[:30]); resp.GetCounted() != 30 || len(resp.GetRefused()) > 0 {
		t.Errorf("the gateway that has answered: got %v, want all labels counted", resp)
	}
	if resp := report(t, toB, during[30:]); resp.GetCounted() != 30 || len(resp.GetRefused()) > 0 {
		t.Errorf("the other gateway: got %v, want all labels counted", resp)
	}
	if resp := report(t, toA, append(during[:30:30], before...)); resp.GetDuplicates() != 70 {
		t.Errorf("sent again to the same gateway: got %v, want them to be known by itself", resp)
	}
	close(calling)
	if d := <-slowest; d > 5*time.Second { // a call that waited for Redis would have taken its 2 s for each of several looks
		t.Errorf("a call took %v while Redis hung", d)
	}
	if n := a.metric("sluice_labels_unshared_total"); n != 30 {
		t.Errorf("%v labels are known to have been taken alone, want 30", n)
	}

	redis.Resume()
	for name, g := range map[string]*shared{"a": a, "b": b} {
		client := adminv1connect.NewLabelServiceClient(g.http, g.admin)
		eventually(t, 60*time.Second, "gateway "+name+" shows the labels of both", func() error {
			got, err := client.GetLabels(within(t, 10*time.Second), &adminv1.GetLabelsRequest{Model: model})
			if err != nil {
				return err
			}
			var n uint64
			for _, v := range got.GetVersions() {
				n += v.GetCurrent().GetLabels() + v.GetLast().GetLabels()
			}
			if n != 100 {
				return fmt.Errorf("%d labels, want 100", n)
			}
			return nil
		})
	}
}
