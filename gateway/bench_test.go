package gateway

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"sluice/gateway/relay"
	pb "sluice/proto/inference"
	"sluice/telemetry/labels"
)

// captor is a policy that keeps the first call for the benchmark and lets it wait.
type captor struct {
	*director
	calls chan *relay.Call
}

func (p *captor) Opened(c *relay.Call) relay.Verdict {
	p.calls <- c
	return relay.Wait()
}

func (p *captor) Body(_ *relay.Call, b []byte, _ bool) ([]byte, relay.Verdict) {
	return b, relay.Wait()
}

func (p *captor) Over(*relay.Call, relay.Outcome) {}

// capture returns a call of a real client that stays open until the benchmark ends.
func capture(b *testing.B, fields ...string) *relay.Call {
	b.Helper()
	p := &captor{&director{}, make(chan *relay.Call, 1)}
	p.snapshot.Store(new(snapshot))
	r := relay.New(relay.Config{}, p)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ln) }()
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+ln.Addr().String()+modelInfer, body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header = http.Header{
		"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {"5M"}, "Grpc-Accept-Encoding": {"identity,deflate,gzip"},
		"User-Agent": {"grpc-go/1.80.0"}, "Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	client := newClient(b)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	b.Cleanup(func() {
		_ = w.Close()
		r.Close()
		<-ended
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return <-p.calls
}

// BenchmarkDirector is all that the director does for a call of 4 KiB: it reads the
// metadata and the message, picks a version and an endpoint, gives the prediction an id if its label is taken, and settles.
func BenchmarkDirector(b *testing.B) {
	request, err := io.ReadAll(message(&pb.ModelInferRequest{
		ModelName: "fraud", Id: "1", RawInputContents: [][]byte{make([]byte, 4<<10)},
	}))
	if err != nil {
		b.Fatal(err)
	}
	const two = `
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: ["192.0.2.1:1", "192.0.2.2:1"], rename: {model: fraud_xgb, version: "7"}}
      - {name: v8, endpoints: ["192.0.2.3:1", "192.0.2.4:1"], rename: {model: fraud_xgb, version: "8"}}
    weights: {v7: 95, v8: 5}
    sticky: {metadata: x-user-id}
`
	taking := func(settings string) string { return routeTo("", "192.0.2.1:1") + "    labels: " + settings + "\n" }
	answer := framed(b, &pb.ModelInferResponse{
		ModelName: "fraud", Id: "1", Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: "p", Datatype: "FP32", Shape: []int64{1, 2}}},
		RawOutputContents: [][]byte{{0, 0, 0x80, 0x3e, 0, 0, 0x40, 0x3f}}, // 0.25 and 0.75
	})
	for _, c := range []struct {
		name, routes string
		fields       []string
	}{
		{"plain", routeTo("", "192.0.2.1:1"), nil},
		{"split", two, nil},
		{"sticky", two, []string{"X-User-Id", "user-4711"}},
		{"request-id", two, []string{"X-Request-Id", "0f1e2d3c"}},
		{"labels", taking("{}"), nil},
		{"labels-read", taking("{predicts: class, classes: [honest, fraud]}"), nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := start(b, c.routes, labelled(labels.NewSigner()))
			rc, d := capture(b, c.fields...), r.director
			out := make([]byte, 0, 2*len(request))
			var trailers []hpack.HeaderField
			b.ReportAllocs()
			for b.Loop() {
				d.Opened(rc)
				p, _ := d.Body(rc, request, true)
				s := rc.Data.(*call)
				if s.endpoint == nil {
					b.Fatal("the call was not sent anywhere")
				}
				if s.dispatch.Rewrite != nil {
					out = s.dispatch.Rewrite.Append(out[:0], p)
				}
				now := time.Now()
				if s.dispatch.Watch != nil {
					s.dispatch.Watch.AnswerData(now, answer)
				}
				if s.dispatch.Trailers != nil {
					trailers = s.dispatch.Trailers.AppendTrailers(trailers[:0])
				}
				d.Over(rc, relay.Outcome{Kind: relay.Answered, Code: uint32(codes.OK), Started: now, FirstByte: now, Ended: now})
			}
		})
	}
}
