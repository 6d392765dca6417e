package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice/routing"
	"sluice/telemetry"
)

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// rig is a gateway under test. Its clients and servers are those of net/http, which
// show every header field and every byte of a message as it travels.
type rig struct {
	*Gateway
	t      testing.TB
	router *routing.Router
	log    *logBuffer
	client *http.Client
	stop   context.CancelFunc
	ended  chan error
}

// start runs a gateway with routes until the test ends.
func start(t testing.TB, routes string, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, router: routing.NewRouter(), log: new(logBuffer), ended: make(chan error, 1)}
	cfg := Config{
		Listen: "127.0.0.1:0", Admin: "off", Version: "test",
		DrainDelay: -1, DrainTimeout: 20 * ms, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		askNobody: true, // what servers see is to be what clients send
	}
	cfg.Telemetry = telemetry.New(telemetry.Config{Version: "test", Logger: cfg.Logger})
	for _, c := range change {
		c(&cfg)
	}
	if routes != "" {
		r.publish(1, routes)
	}
	var err error
	if r.Gateway, err = New(cfg, r.router); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx) }()
	select {
	case <-r.Ready():
	case err := <-r.ended:
		stop()
		t.Fatalf("Run: %v", err)
	}
	r.client = newClient(t)
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		if err := <-r.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, e := range r.director.snapshot.Load().endpoints() {
			if n := e.inFlight.Load(); n != 0 {
				t.Errorf("endpoint %s: %d calls were never given back", e.addr, n)
			}
		}
		for v, tg := range r.director.snapshot.Load().targets.all() {
			if n := tg.guard.InFlight(); n != 0 {
				t.Errorf("version %s: %d permits were never given back", v.ID, n)
			}
		}
	})
	return r
}

// endpoints returns all endpoints of all versions.
func (s *snapshot) endpoints() []*endpoint {
	var all []*endpoint
	for _, t := range s.targets.all() {
		all = append(all, *t.group.list.Load()...)
	}
	return all
}

// publish makes a document the current routes.
func (r *rig) publish(revision uint64, routes string) {
	r.t.Helper()
	r.router.Publish(table(r.t, revision, routes))
}

// table builds a table of a document.
func table(t testing.TB, revision uint64, routes string) *routing.Table {
	t.Helper()
	doc, err := routing.Parse("routes.yaml", []byte(routes))
	if err != nil {
		t.Fatal(err)
	}
	table, err := routing.Build(doc, revision)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newClient returns an HTTP/2 client with a connection of its own.
func newClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// --- calls

const (
	modelInfer       = "/inference.GRPCInferenceService/ModelInfer"
	modelStreamInfer = "/inference.GRPCInferenceService/ModelStreamInfer"
)

// fields are header fields by their names, as they travel: in lower case.
type fields map[string][]string

func fieldsOf(h http.Header) fields {
	f := make(fields, len(h))
	for name, values := range h {
		f[strings.ToLower(name)] = values
	}
	return f
}

// one returns the only value of a field; none is "".
func (f fields) one(name string) string {
	switch v := f[name]; len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	default:
		return fmt.Sprintf("%d values: %q", len(v), v)
	}
}

// answer is what came back of a call.
type answer struct {
	header, trailer fields
	code            codes.Code
	message         string
	details         *spb.Status
	body            []byte
}

// one returns the only value of a field of the first HEADERS block.
func (a *answer) one(name string) string { return a.header.one(name) }

// info returns the ErrorInfo in the details.
func (a *answer) info() *errdetails.ErrorInfo {
	for _, d := range a.details.GetDetails() {
		var info errdetails.ErrorInfo
		if d.UnmarshalTo(&info) == nil {
			return &info
		}
	}
	return nil
}

// retryInfo reports whether the details say when to come again.
func (a *answer) retryInfo() bool {
	return slices.ContainsFunc(a.details.GetDetails(), func(d *anypb.Any) bool {
		return d.MessageIs(&errdetails.RetryInfo{})
	})
}

// call sends one request and reads its whole answer. extra are further fields, in pairs.
func (r *rig) call(path string, body io.Reader, extra ...string) *answer {
	r.t.Helper()
	a, err := r.try(context.Background(), path, body, extra...)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return a
}

func (r *rig) try(ctx context.Context, path string, body io.Reader, extra ...string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: r.Addr().String(), Path: path},
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
	}
	if body != nil {
		req.Body = io.NopCloser(body)
		req.ContentLength = -1
	}
	for pair := range slices.Chunk(extra, 2) {
		req.Header[pair[0]] = append(req.Header[pair[0]], pair[1])
	}
	resp, err := r.client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	a := &answer{header: fieldsOf(resp.Header)}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	a.trailer = fieldsOf(resp.Trailer)
	if err := a.readStatus(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *answer) readStatus() error {
	from := a.trailer
	if len(a.header["grpc-status"]) > 0 {
		from = a.header // trailers only
	}
	get := func(key string) string { return strings.Join(from[key], "|") }
	code, err := strconv.ParseUint(get("grpc-status"), 10, 32)
	if err != nil {
		return fmt.Errorf("grpc-status %q in %v", get("grpc-status"), from)
	}
	a.code = codes.Code(code)
	if a.message, err = url.PathUnescape(get("grpc-message")); err != nil {
		return err
	}
	bin, err := base64.RawStdEncoding.DecodeString(get("grpc-status-details-bin"))
	if err != nil {
		return err
	}
	a.details = new(spb.Status)
	return proto.Unmarshal(bin, a.details)
}

// message frames messages for the wire.
func message(all ...proto.Message) io.Reader {
	var b []byte
	for _, m := range all {
		p, err := proto.Marshal(m) // nil is the empty message
		if err != nil {
			panic(err)
		}
		b = append(b, frame(0, p)...)
	}
	return bytes.NewReader(b)
}

// frame puts the prefix in front of a message.
func frame(compressed byte, p []byte) []byte {
	b := append([]byte{compressed}, binary.BigEndian.AppendUint32(nil, uint32(len(p)))...)
	return append(b, p...)
}

// --- model servers

// server is an HTTP/2 server that keeps what it was asked.
type server struct {
	addr string

	mu   sync.Mutex
	seen []*seen
}

// seen is one request as it arrived.
type seen struct {
	path   string
	header fields
	body   []byte
}

func (s *seen) one(name string) string { return s.header.one(name) }

// message decodes the n-th message of the request.
func (s *seen) message(t testing.TB, n int, m proto.Message) {
	t.Helper()
	b := s.body
	for ; n > 0; n-- {
		b = b[5+binary.BigEndian.Uint32(b[1:]):]
	}
	if b[0] != 0 {
		t.Fatalf("message %d arrived compressed", n)
	}
	if err := proto.Unmarshal(b[5:][:binary.BigEndian.Uint32(b[1:])], m); err != nil {
		t.Fatal(err)
	}
}

// serve starts a server. answer is called once a request has been read; nil
// means an empty message and OK.
func serve(t testing.TB, answer http.HandlerFunc) *server {
	t.Helper()
	if answer == nil {
		answer = ok
	}
	s := new(server)
	s.addr = streams(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, &seen{r.URL.Path, fieldsOf(r.Header), body})
		s.mu.Unlock()
		answer(w, r)
	})
	return s
}

// streams starts a server that handles requests while they come in.
func streams(t testing.TB, handle http.HandlerFunc) (addr string) {
	t.Helper()
	addr, _ = mortal(t, handle)
	return addr
}

// mortal starts a server like streams does, which can be killed.
func mortal(t testing.TB, handle http.HandlerFunc) (addr string, kill func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: patience}
	hs.Protocols.SetUnencryptedHTTP2(true)
	hs.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		handle(w, r)
	})
	var serving sync.WaitGroup
	serving.Go(func() { _ = hs.Serve(ln) }) // until it is closed
	kill = func() {
		_ = hs.Close()
		serving.Wait()
	}
	t.Cleanup(kill)
	return ln.Addr().String(), kill
}

// ok answers with an empty message.
func ok(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write(frame(0, nil))
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

// fails answers with a status of the server's own, trailers only.
func fails(code codes.Code, msg string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Grpc-Status", strconv.Itoa(int(code)))
		w.Header().Set("Grpc-Message", msg)
	}
}

// calls returns the requests so far.
func (s *server) calls() []*seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// last returns the latest request.
func (s *server) last(t testing.TB) *seen {
	t.Helper()
	all := s.calls()
	if len(all) == 0 {
		t.Fatal("the server was not called")
	}
	return all[len(all)-1]
}
