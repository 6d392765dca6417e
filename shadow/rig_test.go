package shadow

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/shadow/compare"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

const modelInfer = inference.GRPCInferenceService_ModelInfer_FullMethodName

// serve starts a real gRPC server whose every call goes to handle.
func serve(t testing.TB, handle grpc.StreamHandler, options ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.ForceServerCodecV2(serverCodec{}), grpc.UnknownServiceHandler(handle))...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return ln.Addr().String()
}

// serveZipped starts a server that answers every call with a body as it stands, of which it
// says that it is compressed.
func serveZipped(t testing.TB, body []byte) string {
	t.Helper()
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Encoding", "gzip")
		_, _ = w.Write(body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
}

// serveHTTP starts a server that knows nothing of gRPC.
func serveHTTP(t testing.TB, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// bytesOf is a message of a server.
type bytesOf struct{ b []byte }

// serverCodec leaves messages as bytes.
type serverCodec struct{}

func (serverCodec) Name() string { return "proto" }

func (serverCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*bytesOf).b)}, nil
}

func (serverCodec) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*bytesOf).b = data.Materialize()
	return nil
}

// payload is a call's messages, as a test makes them.
type payload struct {
	request, answer []byte
	encoding        string
	held            atomic.Int32
}

func (p *payload) RequestBytes() int               { return len(p.request) }
func (p *payload) AnswerBytes() int                { return len(p.answer) }
func (p *payload) AppendRequest(dst []byte) []byte { return append(dst, p.request...) }
func (p *payload) AppendAnswer(dst []byte) []byte  { return append(dst, p.answer...) }
func (p *payload) AnswerEncoding() string          { return p.encoding }
func (p *payload) Memory() int                     { return len(p.request) + len(p.answer) }

// Release takes the messages away, as a pool does.
func (p *payload) Release() {
	if p.held.Add(-1) == 0 {
		p.request, p.answer = nil, nil
	}
}

// frame puts prefixes in front of messages.
func frame(compressed byte, messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(b, compressed)
		b = binary.BigEndian.AppendUint32(b, uint32(len(m)))
		b = append(b, m...)
	}
	return b
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scores is an answer with one output of numbers.
func scores(v ...float32) *inference.ModelInferResponse {
	return &inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{{
		Name: "scores", Datatype: "FP32", Shape: []int64{int64(len(v))}, Contents: &inference.InferTensorContents{Fp32Contents: v},
	}}}
}

// rig is a mirror under test.
type rig struct {
	*Mirror
	t        testing.TB
	addr     string
	tls      func() (*tls.Config, error)
	notReady atomic.Bool
	refuses  atomic.Bool
	settled  atomic.Int32 // attempts admitted and not settled
	hold     sync.Mutex   // by which the worker is kept from working
	renaming func()       // called by the worker, if set, with every copy

	mu       sync.Mutex
	attempts []Attempt
	followed []ending
	payloads []*payload
}

func newRig(t testing.TB, addr string, l Limits, s Settings) *rig {
	t.Helper()
	if l.Deadline == 0 {
		l.Deadline = patience // on a busy machine, too
	}
	r := &rig{t: t, addr: addr}
	r.Mirror = New(version{r}, l, s)
	t.Cleanup(func() {
		r.Close()
		r.whole()
	})
	return r
}

// parent is what spans of copies are known by.
const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// ending is what the span of a copy was told.
type ending struct {
	Attempt
	failed Reason
	differ compare.Difference
}

// follower is a copy's span.
type follower struct{ *rig }

func (f follower) Traceparent() string { return parent }

func (f follower) End(a Attempt, failed Reason, d compare.Difference) {
	f.rig.mu.Lock()
	defer f.rig.mu.Unlock()
	f.followed = append(f.followed, ending{a, failed, d})
}

// version is the rig as the mirror's target.
type version struct{ *rig }

func (v version) Ready(time.Time) bool { return !v.notReady.Load() }

func (v version) Admit(time.Time) (func(Attempt), bool) {
	if v.refuses.Load() {
		return nil, false
	}
	v.settled.Add(1)
	return func(a Attempt) {
		v.settled.Add(-1)
		v.rig.mu.Lock()
		v.attempts = append(v.attempts, a)
		v.rig.mu.Unlock()
	}, true
}

func (v version) Pick(time.Time) (Endpoint, bool) {
	v.hold.Lock()
	defer v.hold.Unlock()
	return Endpoint{Addr: v.addr, TLS: v.tls}, v.addr != ""
}

func (v version) Trace(c *Copy, _ Endpoint, _ time.Time) Span {
	if c.Traceparent == "" {
		return nil
	}
	return follower(v)
}

func (v version) Rewrite(path string, dst, body []byte) ([]byte, bool) {
	if v.renaming != nil {
		v.renaming()
	}
	return append(dst, body...), path != "/no/rename"
}

// offer offers a call with its request and answer, of one message each.
func (r *rig) offer(c Copy, request, answer []byte) {
	if r.Mirror.Admit(time.Now()) {
		r.offerBody(c, frame(0, request), frame(0, answer))
	}
}

func (r *rig) offerBody(c Copy, request, answer []byte) {
	r.offerPayload(c, &payload{request: request, answer: answer})
}

// offerZipped offers a call with its request and answer as they stand, of which the answer is
// said to be compressed.
func (r *rig) offerZipped(c Copy, request, answer []byte) {
	if r.Mirror.Admit(time.Now()) {
		r.offerPayload(c, &payload{request: request, answer: answer, encoding: "gzip"})
	}
}

func (r *rig) offerPayload(c Copy, p *payload) {
	p.held.Store(1)
	r.mu.Lock()
	r.payloads = append(r.payloads, p)
	r.mu.Unlock()
	c.Payload = p
	if c.Path == "" {
		c.Path = modelInfer
	}
	r.Offer(&c)
}

// idle waits until every copy has come to an end, and returns the status then.
func (r *rig) idle() Status {
	r.t.Helper()
	waitFor(r.t, "copies to end", func() bool { return r.counts.read().Pending() == 0 })
	waitFor(r.t, "memory to be given back", func() bool { return r.Status().Bytes == 0 })
	return r.Status()
}

// whole checks that nothing is held any more, and that the counts add up.
func (r *rig) whole() {
	r.t.Helper()
	s := r.idle()
	if n := s.Pending(); n != 0 {
		r.t.Errorf("%d copies were lost: %+v", n, s.Counts)
	}
	if s.Queued != 0 || r.answers != 0 || r.inFlight != 0 || len(r.over) != 0 {
		r.t.Errorf("%d copies wait, %d bytes of answers are allowed, %d are under way, %d over, want none", s.Queued, r.answers, r.inFlight, len(r.over))
	}
	if n := r.settled.Load(); n != 0 {
		r.t.Errorf("%d attempts were settled too often or never", n)
	}
	for _, p := range r.payloads {
		if n := p.held.Load(); n != 0 {
			r.t.Fatalf("a payload is held %d times", n)
		}
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
