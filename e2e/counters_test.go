package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	prom "github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// tally counts by what things are called. Safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[string]float64
}

func newTally() *tally { return &tally{n: make(map[string]float64)} }

func (c *tally) add(n float64, name ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[strings.Join(name, " ")] += n
}

// answers counts the inferences of a server by the status it answers with.
func (c *tally) answers(version string) grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		if info.FullMethod == pb.GRPCInferenceService_ModelInfer_FullMethodName {
			c.add(1, version, codeName(err))
		}
		return resp, err
	})
}

// codeName is the status of an error as metrics have it.
func codeName(err error) string {
	names := map[codes.Code]string{codes.OK: "OK", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE", codes.NotFound: "NOT_FOUND"}
	if name, ok := names[status.Code(err)]; ok {
		return name
	}
	return err.Error()
}

// sums returns what the series of a family count, of histograms how many values, summed up by some of their labels.
func (s *shared) sums(family string, labels ...string) (map[string]float64, error) {
	resp, err := s.http.Get(s.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s", resp.Status)
	}
	parser := expfmt.NewTextParser(prom.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, err
	}
	sums := make(map[string]float64)
	for _, m := range families[family].GetMetric() {
		name := make([]string, len(labels))
		for i, l := range labels {
			for _, p := range m.GetLabel() {
				if p.GetName() == l {
					name[i] = p.GetValue()
				}
			}
		}
		sums[strings.Join(name, " ")] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sums, nil
}

// TestCountersAgreeWithCallersAndServers: after many calls at once, of which some failed, fell back, were refused or
// were for a model that does not exist, the metrics say exactly what callers and model servers have counted.
func TestCountersAgreeWithCallersAndServers(t *testing.T) {
	t.Parallel()
	const callers, each = 8, 150
	asked := newTally() // model servers, by version and status
	v1, v2 := startBackend(t, "v1", asked.answers("v1")), startBackend(t, "v2", asked.answers("v2"))
	v2.turn(t, sample.Behaviour{ErrorRate: 0.4, ErrorCode: codes.Internal})
	s := startShared(t, "memory", fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, endpoints: [%q]}, {name: v2, endpoints: [%q]}]
    weights: {v1: 1, v2: 1}
    fallback: {to: [v1], on: [INTERNAL]}
    breaker: {consecutive: 5, failure_ratio: 0.9, open_for: 100ms, max_open_for: 100ms}
`, model, v1.addr, v2.addr))
	ended, attempts, fallbacks, refused := newTally(), newTally(), newTally(), newTally() // callers
	conns := []*grpc.ClientConn{dial(t, s.data), dial(t, s.data)}
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			for range each {
				name, ctx := model, within(t, 30*time.Second)
				switch rand.IntN(10) {
				case 0:
					name = "nobody's"
				case 1, 2:
					ctx = metadata.AppendToOutgoingContext(ctx, "sluice-version", "v2") // does not fall back
				}
				a := infer(ctx, conns[i%len(conns)], sample.NewRequest(name, heldBack()[0].Measurements))
				md := metadata.Join(a.header, a.trailer)
				get := func(key string) string { return strings.Join(md.Get(key), "|") }
				if name != model {
					ended.add(1, "_OTHER", "", codeName(a.err))
				} else {
					ended.add(1, model, get("sluice-version"), codeName(a.err))
				}
				if n, err := strconv.Atoi(get("sluice-attempts")); err == nil && n > 0 {
					attempts.add(float64(n), "all")
				}
				if from, reason, ok := strings.Cut(get("sluice-fallback"), " "); ok {
					fallbacks.add(1, from, get("sluice-version"), reason)
				}
				for _, d := range status.Convert(a.err).Details() {
					if i, ok := d.(interface{ GetReason() string }); ok {
						refused.add(1, i.GetReason())
					}
				}
			}
		})
	}
	group.Wait()

	byVersion := make(map[string]float64)
	for name, n := range asked.n {
		byVersion[name] = n
	}
	for _, c := range []struct {
		family string
		labels []string
		want   map[string]float64
	}{
		{"sluice_call_duration_seconds", []string{"model", "version", "code"}, ended.n},
		{"sluice_attempts_total", []string{"version", "reason"}, byVersion},
		{"sluice_fallbacks_total", []string{"from", "to", "reason"}, fallbacks.n},
		{"sluice_refused_calls_total", []string{"reason"}, refused.n},
	} {
		eventually(t, 10*time.Second, c.family+" agrees", func() error {
			got, err := s.sums(c.family, c.labels...)
			if err == nil && !maps.Equal(got, c.want) {
				err = fmt.Errorf("got %v, want %v", got, c.want)
			}
			return err
		})
	}
	servers := 0.0
	for _, n := range asked.n {
		servers += n
	}
	if attempts.n["all"] != servers {
		t.Errorf("callers were told of %v attempts, servers were asked %v times", attempts.n["all"], servers)
	}
	for name, n := range map[string]float64{
		"answers of v1": ended.n[model+" v1 OK"], "failures of v2": ended.n[model+" v2 INTERNAL"], "calls of nobody's": ended.n["_OTHER  NOT_FOUND"],
		"fallbacks after failures": fallbacks.n["v2 v1 INTERNAL"],
	} {
		if n == 0 {
			t.Errorf("there were no %s: %v, fallbacks %v, refusals %v", name, ended.n, fallbacks.n, refused.n)
		}
	}
}
