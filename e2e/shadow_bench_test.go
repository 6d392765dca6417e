package e2e

import (
	"flag"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	generator "sluice/bench/load"
	"sluice/bench/payload"
	"sluice/bench/procfs"
	"sluice/bench/rawcodec"
	"sluice/bench/stats"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/shadow"
)

// echoRole answers every call with the same prediction until it is killed. It prints
// its address.
func echoRole() error {
	framed, err := payload.Answer(payload.AnswerSize)
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := &rawcodec.Message{Body: payload.Message(framed)}
	fmt.Println("listening on", lis.Addr())
	return grpc.NewServer(grpc.ForceServerCodecV2(rawcodec.Codec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(new(rawcodec.Message)); err != nil {
			return status.Convert(err).Err()
		}
		return s.SendMsg(answer)
	})).Serve(lis)
}

// shadowed is a gateway with two models that are served alike, one of which has a shadow.
type shadowed struct {
	*shared
	shadow  *process
	reports adminv1connect.ShadowServiceClient
}

// startShadowed starts it. Settings are further ones of the route with the shadow.
func startShadowed(b *testing.B, percent int, settings string) *shadowed {
	b.Helper()
	primary, second := startRole(b, "echo"), startRole(b, "echo")
	addr, copies := primary.await(b, `listening on (\S+)`)[1], second.await(b, `listening on (\S+)`)[1]
	s := &shadowed{shadow: second, shared: startShared(b, "memory", fmt.Sprintf(`
routes:
  - {model: plain, versions: [{name: a, endpoints: [%q]}], weights: {a: 1}}
  - model: shadowed
    versions: [{name: a, endpoints: [%q]}, {name: b, endpoints: [%q]}]
    weights: {a: 1}
    shadow: [{version: b, percent: %d}]
%s`, addr, addr, copies, percent, settings))}
	s.reports = adminv1connect.NewShadowServiceClient(s.http, s.admin)
	return s
}

// calls makes calls of a model as planned, of which none may fail.
func (s *shadowed) calls(b *testing.B, model string, size int, plan generator.Plan) *generator.Result {
	b.Helper()
	message, err := payload.Request(model, size)
	if err != nil {
		b.Fatal(err)
	}
	streams := 8
	if plan.Rate > 0 {
		streams = 256 // calls that find none when they are due would not be made at all
	}
	c, err := generator.Dial(b.Context(), generator.Config{
		Address: s.data, Connections: 4, Streams: streams, Method: payload.InferMethod, Message: message, Timeout: 15 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r, err := c.Run(b.Context(), plan)
	if err != nil {
		b.Fatal(err)
	}
	if r.OK == 0 || len(r.Failures) > 0 {
		b.Fatalf("%s: %d calls were answered, and %v failed", model, r.OK, r.Failures)
	}
	return r
}

// report is what is known of the shadow.
func (s *shadowed) report(b *testing.B) *adminv1.ShadowReport {
	b.Helper()
	resp, err := s.reports.ListShadows(b.Context(), &adminv1.ListShadowsRequest{Model: "shadowed"})
	if err != nil {
		b.Fatal(err)
	}
	return resp.GetShadows()[0]
}

// cpu is what the gateway has used.
func (s *shadowed) cpu(b *testing.B) time.Duration {
	b.Helper()
	used, err := procfs.CPU(s.cmd.Process.Pid)
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// BenchmarkShadow compares a model of which a tenth of the calls is copied to a healthy
// shadow with one that has none: the gateway's CPU per call, and the callers' p99, at
// full load and at a fixed rate. Rounds change their order. Use -benchtime=1x: an
// iteration is all the rounds.
func BenchmarkShadow(b *testing.B) {
	for name, rate := range map[string]float64{"load=full": 0, "load=5000": 5000} {
		b.Run(name, func(b *testing.B) { shadowCost(b, rate) })
	}
}

func shadowCost(b *testing.B, rate float64) {
	const rounds = 9
	s := startShadowed(b, 10, "")
	plan := generator.Plan{For: 2 * time.Second, Rate: rate, Arrivals: generator.Poisson}
	cpu, p99 := map[string][]float64{}, map[string][]float64{}
	round := func(model string, keep bool) {
		before := s.cpu(b)
		r := s.calls(b, model, 4<<10, plan)
		if keep {
			cpu[model] = append(cpu[model], float64(s.cpu(b)-before)/float64(r.Calls())/1e3)
			p99[model] = append(p99[model], float64(r.Quantile(99))/1e6)
		}
	}
	for b.Loop() {
		round("plain", false)
		round("shadowed", false)
		for i := range rounds {
			if i%2 == 0 {
				round("plain", true)
				round("shadowed", true)
			} else {
				round("shadowed", true)
				round("plain", true)
			}
		}
	}
	for name, series := range map[string]map[string][]float64{"cpu": cpu, "p99": p99} {
		ratio, err := stats.Ratios(series["shadowed"], series["plain"])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(ratio.Median, name+"-ratio")
		b.Logf("%s: shadowed %.4g, plain %.4g; ratio %+v", name, series["shadowed"], series["plain"], ratio)
	}
	b.ReportMetric(stats.Summarize(cpu["plain"]).Median, "plain-us/call")
	b.ReportMetric(stats.Summarize(cpu["shadowed"]).Median, "shadowed-us/call")
	if r := s.report(b); r.GetCompared() == 0 || r.GetMismatched() > 0 {
		b.Errorf("compared %d, of which %d differ", r.GetCompared(), r.GetMismatched())
	}
}

// hungFor is how long the shadow of BenchmarkHungShadow hangs.
var hungFor = flag.Duration("hung-for", 10*time.Second, "how long a shadow hangs in BenchmarkHungShadow")

// BenchmarkHungShadow stops a shadow that gets a copy of every call, of 100 KiB and 200 per
// second, and compares what callers notice with what those of a model without a shadow
// do before and after, in the same run. With breaker=off the breaker only reports, so
// that copies go on being made. Use -benchtime=1x: an iteration is the whole time.
func BenchmarkHungShadow(b *testing.B) {
	b.Run("breaker=on", func(b *testing.B) { hungShadow(b, "") })
	b.Run("breaker=off", func(b *testing.B) { hungShadow(b, "    breaker: {dry_run: true}\n") })
}

func hungShadow(b *testing.B, settings string) {
	const (
		size  = 100 << 10
		slack = 64 << 20 // what the collector has not looked at yet, and buffers in use
	)
	s := startShadowed(b, 100, settings)
	plan := generator.Plan{Rate: 200, Arrivals: generator.Poisson}
	run := func(model string, length time.Duration) *generator.Result {
		plan.For = length
		return s.calls(b, model, size, plan)
	}
	for b.Loop() {
		run("plain", time.Second)
		warm := run("shadowed", time.Second)
		control := run("plain", *hungFor/2).Latency
		before := s.residentMemory(b)
		s.shadow.pause(b)
		var most int64
		var queued uint64
		plan.Progress = func(generator.Progress) {
			most = max(most, s.residentMemory(b))
			queued = max(queued, s.report(b).GetBytes())
		}
		hung := run("shadowed", *hungFor)
		plan.Progress = nil
		control.Merge(run("plain", *hungFor/2).Latency)

		var r *adminv1.ShadowReport
		pending := func() (n uint64) {
			n = r.GetOffered() - r.GetAnswered()
			for _, counts := range []map[string]uint64{r.GetDropped(), r.GetFailed()} {
				for _, c := range counts {
					n -= c
				}
			}
			return n
		}
		eventually(b, 30*time.Second, "every copy has come to an end", func() error {
			if r = s.report(b); pending() != 0 || r.GetBytes() != 0 {
				return fmt.Errorf("%d are under way, with %d bytes", pending(), r.GetBytes())
			}
			return nil
		})
		if asked := warm.OK + hung.OK; r.GetOffered() != asked || r.GetAnswered() < warm.OK/2 || r.GetFailed()["deadline"] == 0 {
			b.Errorf("of %d calls %d copies were asked for, %d answered, %v failed", asked, r.GetOffered(), r.GetAnswered(), r.GetFailed())
		}
		bound := int64(shadow.DefaultLimits().Bytes)
		if queued > uint64(bound) || most-before > bound+slack {
			b.Errorf("copies took %d MiB, the process %d MiB more than before; want at most %d and %d",
				queued>>20, (most-before)>>20, bound>>20, (bound+slack)>>20)
		}
		p99, quiet := hung.Quantile(99), time.Duration(control.ValueAtQuantile(99))*time.Microsecond
		b.Logf("p99 %v, control %v; copies took at most %d MiB, the process %d MiB more than %d MiB; offered %d = answered %d + dropped %v + failed %v",
			p99, quiet, queued>>20, (most-before)>>20, before>>20, r.GetOffered(), r.GetAnswered(), r.GetDropped(), r.GetFailed())
		b.ReportMetric(float64(p99)/float64(quiet), "p99-ratio")
		b.ReportMetric(float64(queued)/(1<<20), "copies-MiB")
		b.ReportMetric(float64(most-before)/(1<<20), "grown-MiB")
	}
}
