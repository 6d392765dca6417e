package shadow

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/shadow/client"
	"sluice/shadow/compare"
)

// answer makes a server's handler that reads the whole request and sends messages.
func answer(messages ...[]byte) grpc.StreamHandler {
	return func(_ any, s grpc.ServerStream) error {
		for {
			if err := s.RecvMsg(new(bytesOf)); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
		}
		for _, m := range messages {
			if err := s.SendMsg(message(m)); err != nil {
				return err
			}
		}
		return nil
	}
}

// message is one as a server sends it.
func message(b []byte) *bytesOf { return &bytesOf{b} }

func fails(code codes.Code) grpc.StreamHandler {
	return func(any, grpc.ServerStream) error { return status.Error(code, "no") }
}

func hangs(_ any, s grpc.ServerStream) error {
	<-s.Context().Done()
	return s.Context().Err()
}

func TestTheSameAnswerAndAnother(t *testing.T) {
	r := newRig(t, serve(t, answer(marshal(t, scores(1, 2, 3)))), Limits{}, Settings{})
	request := []byte("request")
	r.offer(Copy{RequestID: "same", Latency: time.Millisecond}, request, marshal(t, scores(1, 2, 3)))
	r.offer(Copy{RequestID: "near", Latency: time.Millisecond}, request, marshal(t, scores(1, 2, 3.000001)))
	r.offer(Copy{RequestID: "off", Version: "v7", Latency: time.Millisecond}, request, marshal(t, scores(1, 2, 4)))
	r.offer(Copy{RequestID: "failed", Code: 3}, request, nil)
	s := r.idle()
	if s.Answered != 4 || s.Compared != 4 || s.Mismatched != 2 || s.Differences[compare.Values] != 1 || s.Differences[compare.Codes] != 1 {
		t.Errorf("status %+v", s)
	}
	if len(s.Outputs) != 1 || s.Outputs[0].Name != "scores" || s.Outputs[0].Compared != 3 || s.Outputs[0].Mismatched != 1 || s.Outputs[0].MaxAbs != 1 {
		t.Errorf("outputs %+v", s.Outputs)
	}
	if s.Slower.N != 3 || s.Caller.P50 > 1100*time.Microsecond || s.Shadow.N != 3 {
		t.Errorf("latencies %+v %+v %+v", s.Caller, s.Shadow, s.Slower)
	}
	if len(s.Worst) != 2 || s.Worst[0].RequestID != "failed" || s.Worst[1].RequestID != "off" || s.Worst[1].Version != "v7" ||
		s.Worst[1].Output != "scores" || s.Worst[1].Differing != 1 {
		t.Errorf("worst %+v", s.Worst)
	}
}

// What a shadow does, every copy ends in one count of the right kind.
func TestWhateverAShadowDoesIsCounted(t *testing.T) {
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	go func() {
		for {
			nc, err := closing.Accept()
			if err != nil {
				return
			}
			_ = nc.Close()
		}
	}()
	long := marshal(t, scores(make([]float32, 100_000)...))
	good := marshal(t, scores(1))
	for name, c := range map[string]struct {
		addr   string
		want   Reason // 0: answered
		differ compare.Difference
		kind   AttemptKind
	}{
		"answers the same":                {addr: serve(t, answer(good))},
		"fails":                           {addr: serve(t, fails(codes.Internal)), differ: compare.Codes},
		"says itself that it is not here": {addr: serve(t, fails(codes.Unavailable)), differ: compare.Codes},
		"says itself that time is over":   {addr: serve(t, fails(codes.DeadlineExceeded)), differ: compare.Codes},
		"says itself that it is full":     {addr: serve(t, fails(codes.ResourceExhausted)), differ: compare.Codes},
		"fails after a message": {addr: serve(t, func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(message(good)); err != nil {
				return err
			}
			return status.Error(codes.Internal, "and then")
		}), differ: compare.Codes},
		"answers garbage":          {addr: serve(t, answer([]byte{0xff, 0xff})), differ: compare.Unreadable},
		"answers nothing":          {addr: serve(t, answer()), differ: compare.Messages},
		"answers twice":            {addr: serve(t, answer(good, good)), differ: compare.Messages},
		"hangs":                    {addr: serve(t, hangs), want: Deadline, kind: TimedOut},
		"answers one long message": {addr: serve(t, answer(long)), differ: compare.Sizes, kind: Oversized},
		"answers many messages": {addr: serve(t, func(_ any, s grpc.ServerStream) error {
			for {
				if err := s.SendMsg(message(make([]byte, 10_000))); err != nil {
					return err
				}
			}
		}), differ: compare.Sizes, kind: Oversized},
		"closes connections": {addr: closing.Addr().String(), want: Unreachable, kind: NotReached},
		"is not there":       {addr: "127.0.0.1:1", want: Unreachable, kind: NotReached},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var limits Limits // those that have to be answered have time
			if c.want != 0 {
				limits.Deadline = 1500 * time.Millisecond
			}
			r := newRig(t, c.addr, limits, Settings{})
			r.offer(Copy{Traceparent: parent}, []byte("request"), good)
			s := r.idle()
			failed := uint64(0)
			if c.want != 0 {
				failed = 1
			}
			if s.Failed[c.want] != failed || s.Answered != 1-failed || s.Compared != s.Answered || len(s.Dropped) != 0 {
				t.Errorf("counts %+v, want %v", s.Counts, c.want)
			}
			if c.differ != compare.None && s.Differences[c.differ] != 1 || c.differ == compare.None && s.Mismatched != 0 {
				t.Errorf("differences %v, want %v", s.Differences, c.differ)
			}
			if len(r.attempts) != 1 || r.attempts[0].Kind != c.kind || r.attempts[0].Ended.IsZero() {
				t.Errorf("attempts %+v, want one of kind %v", r.attempts, c.kind)
			}
			if want := (ending{r.attempts[0], c.want, c.differ}); len(r.followed) != 1 || r.followed[0] != want {
				t.Errorf("its span was told %+v, want %+v", r.followed, want)
			}
		})
	}
}

func TestCopiesThatAreNotSentAreCounted(t *testing.T) {
	sequence := marshal(t, &inference.ModelInferRequest{ModelName: "m", Parameters: map[string]*inference.InferParameter{
		"sequence_id": {ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: 1}}}})
	addr := serve(t, answer())
	offer := func(c Copy, request []byte) func(*rig) {
		return func(r *rig) {
			if r.Mirror.Admit(time.Now()) {
				r.offerBody(c, request, nil)
			}
		}
	}
	good := frame(0, []byte("request"))
	for name, c := range map[string]struct {
		want  Reason
		limit Limits
		do    func(*rig)
	}{
		"shared memory, asked":  {SharedMemory, Limits{}, offer(Copy{}, frame(0, sharing(t, true)))},
		"shared memory, given":  {SharedMemory, Limits{}, offer(Copy{}, frame(0, sharing(t, false)))},
		"a sequence":            {Sequence, Limits{}, offer(Copy{}, frame(0, sequence))},
		"not to be renamed":     {Rename, Limits{}, offer(Copy{Path: "/no/rename"}, good)},
		"an unknown encoding":   {Encoding, Limits{}, offer(Copy{Encoding: "snappy"}, frame(1, []byte("x")))},
		"not gzip":              {Encoding, Limits{}, offer(Copy{Encoding: "gzip"}, frame(1, []byte("x")))},
		"cut off":               {Encoding, Limits{}, offer(Copy{}, good[:8])},
		"no endpoint":           {NoEndpoint, Limits{}, func(r *rig) { r.addr = ""; offer(Copy{}, good)(r) }},
		"breaker open":          {BreakerOpen, Limits{}, func(r *rig) { r.notReady.Store(true); offer(Copy{}, good)(r) }},
		"breaker open at last":  {BreakerOpen, Limits{}, func(r *rig) { r.refuses.Store(true); offer(Copy{}, good)(r) }},
		"too large altogether":  {QueueBytes, Limits{Bytes: 20}, offer(Copy{}, good)},
		"closed":                {Closed, Limits{}, func(r *rig) { r.Close(); offer(Copy{}, good)(r) }},
		"withdrawn":             {Ended, Limits{}, func(r *rig) { r.Mirror.Admit(time.Now()); r.Withdraw(Ended) }},
		"declined":              {Shedding, Limits{}, func(r *rig) { r.Decline(Shedding) }},
		"more than the rate":    {RateLimit, Limits{}, func(r *rig) { r.Update(Settings{Rate: 1e-9}); r.rate.take(time.Now(), 1); offer(Copy{}, good)(r) }},
		"a bomb of compression": {TooLarge, Limits{}, offer(Copy{Encoding: "gzip"}, frame(1, zipped(t, make([]byte, 10<<20))))},
		"a bomb for an answer":  {TooLarge, Limits{}, func(r *rig) { r.offerZipped(Copy{}, good, frame(1, zipped(t, make([]byte, 10<<20)))) }},
		"no room uncompressed":  {QueueBytes, Limits{Bytes: 1 << 20}, offer(Copy{Encoding: "gzip"}, frame(1, zipped(t, make([]byte, 2<<20))))},
		"an unknown answer":     {Encoding, Limits{}, func(r *rig) { r.offerZipped(Copy{}, good, frame(1, []byte("x"))) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, addr, c.limit, Settings{})
			c.do(r)
			s := r.idle()
			if s.Offered != 1 || s.Dropped[c.want] != 1 || s.Answered != 0 {
				t.Errorf("counts %+v, want one dropped by %v", s.Counts, c.want)
			}
		})
	}
}

// sharing is a request whose input, or answer, is in memory of the caller's.
func sharing(t testing.TB, answer bool) []byte {
	where := map[string]*inference.InferParameter{"shared_memory_region": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: "mine"}}}
	if answer {
		return marshal(t, &inference.ModelInferRequest{Outputs: []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: where}}})
	}
	return marshal(t, &inference.ModelInferRequest{Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Parameters: where}}})
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// recorded keeps what a server is asked.
type recorded struct {
	mu       sync.Mutex
	method   string
	md       metadata.MD
	messages []string
}

func (c *recorded) handle(_ any, s grpc.ServerStream) error {
	var all []string
	for {
		var in bytesOf
		err := s.RecvMsg(&in)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		all = append(all, string(in.b))
		if err := s.SendMsg(message(in.b)); err != nil { // an echo, as it comes
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages = all
	c.method, _ = grpc.MethodFromServerStream(s)
	c.md, _ = metadata.FromIncomingContext(s.Context())
	return nil
}

func TestShadowGetsTheCallWithoutItsCredentials(t *testing.T) {
	var got recorded
	r := newRig(t, serve(t, got.handle), Limits{}, Settings{Metadata: []string{"x-api-key"}})
	r.offer(Copy{Path: "/shop.Checkout/Price", Authority: "models.example:8001", RequestID: "r-1", Metadata: []string{
		"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go", "grpc-timeout", "1S",
		"authorization", "Bearer secret", "cookie", "secret", "x-api-key", "allowed", "sluice-version", "v7", "x-request-id", "theirs",
		"x-tenant", "a", "x-tenant", "b", "trace-bin", "AQI",
		"traceparent", "theirs", "tracestate", "theirs=1", "baggage", "user=7",
	}, Traceparent: parent}, []byte("request"), []byte("request"))
	s := r.idle()
	if s.Answered != 1 || s.Mismatched != 0 {
		t.Fatalf("status %+v", s)
	}
	one := func(key string) string { return strings.Join(got.md[key], "|") }
	for key, want := range map[string]string{
		":authority": "models.example:8001-shadow", "x-api-key": "allowed", "x-tenant": "a|b", "x-request-id": "r-1", "trace-bin": "\x01\x02",
		"traceparent": parent, "tracestate": "", "baggage": "user=7",
		"authorization": "", "cookie": "", "sluice-version": "", "content-type": "application/grpc",
	} {
		if one(key) != want {
			t.Errorf("%s is %q, want %q", key, one(key), want)
		}
	}
	if got.method != "/shop.Checkout/Price" || strings.Join(got.messages, "|") != "request" {
		t.Errorf("%s with %q", got.method, got.messages)
	}
	if !strings.HasPrefix(one("user-agent"), "sluice-shadow") {
		t.Errorf("user-agent %q", one("user-agent"))
	}
}

// Many fields carry what shows who a caller is. What does not is passed on.
func TestCredentialsAreKnownByTheirNames(t *testing.T) {
	for _, name := range []string{
		"authorization", "authorization-bin", "proxy-authorization", "x-forwarded-authorization", "cookie", "set-cookie", "x-api-key", "api-key",
		"apikey", "x-goog-api-key", "x-api-token", "x-auth-token", "x-access-token", "access-token", "private-token", "x-vault-token", "x-csrf-token",
		"x-amz-security-token", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion",
		"cf-access-client-secret", "ocp-apim-subscription-key", "x-ms-token-aad-id-token", "x-auth-request-access-token", "x-jwt", "x-client-cert",
		"x-forwarded-client-cert", "x-goog-iam-authorization-token", "x-serverless-authorization", "x_api_key",
	} {
		if !IsCredential(name) {
			t.Errorf("%s is passed on", name)
		}
	}
	for _, name := range []string{"x-user-id", "x-tenant", "x-request-id", "baggage", "content-type", "x-max-tokens", "sticky-key", "x-author", "x-key", "trace-bin", "x-secretary", "accept-language"} {
		if IsCredential(name) {
			t.Errorf("%s is not passed on", name)
		}
	}
}

// A server that says something else than that time is over, once it is, has not answered
// either: otherwise it were chance what counts.
func TestStatusAfterTheDeadlineIsNoAnswer(t *testing.T) {
	for code, late := range map[codes.Code]Reason{codes.Aborted: Deadline, codes.Internal: Deadline, codes.OK: 0} {
		now := time.Now()
		f := &flight{until: now}
		f.End, f.Code, f.Ended = client.Answered, uint32(code), now
		if _, failed := f.attempt(time.Second); failed != late {
			t.Errorf("%v at the deadline: %v, want %v", code, failed, late)
		}
		f.until = now.Add(1)
		if _, failed := f.attempt(time.Second); failed != 0 {
			t.Errorf("%v before it: %v", code, failed)
		}
	}
}

// Calls of which nobody knows who has waited for whom are in no distribution.
func TestLatencyThatSaysNothingIsLeftOut(t *testing.T) {
	r := newRig(t, serve(t, answer(marshal(t, scores(1)))), Limits{}, Settings{})
	r.offer(Copy{}, []byte("request"), marshal(t, scores(1)))
	r.offer(Copy{Latency: time.Hour}, []byte("request"), marshal(t, scores(1)))
	if s := r.idle(); s.Compared != 2 || s.Slower.N != 1 || s.Caller.N != 1 || s.Slower.Max > -time.Minute {
		t.Errorf("status %+v", s)
	}
}

// A stream's messages are sent at once, and read at the same time: an echo of more
// than any window does not lock up.
func TestStreamsAreReplayedWhole(t *testing.T) {
	var got recorded
	r := newRig(t, serve(t, got.handle), Limits{}, Settings{})
	var messages [][]byte
	for i := range 200 {
		messages = append(messages, bytes.Repeat([]byte{byte(i)}, 10_000))
	}
	body := frame(0, messages...)
	if r.Mirror.Admit(time.Now()) {
		r.offerBody(Copy{Path: "/shop.Checkout/Watch"}, body, body)
	}
	if s := r.idle(); s.Answered != 1 || s.Mismatched != 0 || len(got.messages) != 200 {
		t.Errorf("%d messages; status %+v", len(got.messages), s)
	}
}

func TestCompressedMessagesAreComparedByWhatTheyHold(t *testing.T) {
	var got recorded
	r := newRig(t, serve(t, got.handle), Limits{}, Settings{})
	request := append(frame(1, zipped(t, []byte("one"))), frame(0, []byte("two"))...)
	r.offerZipped(Copy{Path: "/shop.Checkout/Price", Encoding: "gzip"}, request, append(frame(0, []byte("one")), frame(1, zipped(t, []byte("two")))...))
	s := r.idle()
	if s.Answered != 1 || s.Mismatched != 0 || strings.Join(got.messages, "|") != "one|two" {
		t.Errorf("%q; status %+v", got.messages, s)
	}
}

// A caller's answer that was compressed, however much, is the same as the shadow's that is
// not, and the other way round.
func TestCompressedAnswersAreNoLongerOrShorter(t *testing.T) {
	noise := make([]float32, 50_000)
	for i := range noise {
		noise[i] = float32(i%7 + i%1000/5)
	}
	for name, values := range map[string][]float32{"five times": noise, "a thousand times": make([]float32, 50_000)} {
		t.Run(name, func(t *testing.T) {
			plain := marshal(t, scores(values...))
			r := newRig(t, serve(t, answer(plain)), Limits{}, Settings{})
			r.offerZipped(Copy{}, frame(0, []byte("request")), frame(1, zipped(t, plain)))
			if s := r.idle(); s.Compared != 1 || s.Mismatched != 0 || len(r.attempts) != 1 || r.attempts[0].Kind != Answered {
				t.Errorf("status %+v, attempts %+v", s, r.attempts)
			}
			shadow := newRig(t, serveZipped(t, frame(1, zipped(t, plain))), Limits{}, Settings{})
			shadow.offer(Copy{}, []byte("request"), plain)
			if s := shadow.idle(); s.Compared != 1 || s.Mismatched != 0 {
				t.Errorf("the shadow's compressed: status %+v", s)
			}
		})
	}
	bomb := newRig(t, serveZipped(t, frame(1, zipped(t, make([]byte, 10<<20)))), Limits{}, Settings{})
	bomb.offer(Copy{}, []byte("request"), []byte("answer"))
	if s := bomb.idle(); s.Compared != 1 || s.Differences[compare.Sizes] != 1 {
		t.Errorf("a bomb: %+v", s)
	}
}

// The same answer may take ten times as many bytes: it is no longer for that.
func TestTheSameAnswerMayTakeTenTimesAsMuch(t *testing.T) {
	const n = 100_000
	below := make([]int32, n)
	for i := range below {
		below[i] = -1
	}
	out := func(c *inference.InferTensorContents) *inference.ModelInferResponse {
		return &inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "INT8", Shape: []int64{n}, Contents: c}}}
	}
	raw := out(nil)
	raw.RawOutputContents = [][]byte{bytes.Repeat([]byte{0xff}, n)}
	r := newRig(t, serve(t, answer(marshal(t, out(&inference.InferTensorContents{IntContents: below})))), Limits{}, Settings{})
	r.offer(Copy{}, []byte("request"), marshal(t, raw))
	if s := r.idle(); s.Compared != 1 || s.Mismatched != 0 {
		t.Errorf("status %+v", s)
	}
}

// Other rules, or another server, begin another verdict, and counts go on.
func TestVerdictsAreOfOneServerByOneSetOfRules(t *testing.T) {
	r := newRig(t, serve(t, answer(marshal(t, scores(1)))), Limits{}, Settings{})
	found := func(s Settings) Status {
		t.Helper()
		r.Update(s)
		r.offer(Copy{}, []byte("request"), marshal(t, scores(2)))
		return r.idle()
	}
	found(Settings{})
	if s := found(Settings{Rate: 1000}); s.Compared != 2 || s.Mismatched != 2 || s.ComparedSince != s.Since {
		t.Errorf("another rate has made it %+v", s)
	}
	wide := Settings{Rules: compare.Rules{Outputs: map[string]compare.Rule{"scores": {Tolerance: &compare.Tolerance{Abs: 2}}}}}
	if s := found(wide); s.Compared != 1 || s.Mismatched != 0 || len(s.Worst) != 0 || s.Answered != 3 || !s.ComparedSince.After(s.Since) {
		t.Errorf("other rules have made it %+v", s)
	}
	same := Settings{Rules: compare.Rules{Outputs: map[string]compare.Rule{"scores": {Tolerance: &compare.Tolerance{Abs: 2}}}}}
	if s := found(same); s.Compared != 2 {
		t.Errorf("the same rules have made it %+v", s)
	}
	r.Forget()
	if s := r.Status(); s.Compared != 0 || s.Answered != 4 {
		t.Errorf("forgotten, it is %+v", s)
	}
}

// The deadline of one call holds, though the worker finds something to do whenever it looks.
func TestDeadlineHoldsUnderLoad(t *testing.T) {
	release := make(chan struct{})
	addr := serveHTTP(t, func(http.ResponseWriter, *http.Request) { <-release }) // gRPC's own servers look at the clock themselves
	t.Cleanup(func() { close(release) })
	r := newRig(t, addr, Limits{Deadline: 300 * time.Millisecond}, Settings{})
	r.renaming = func() { // in the worker, which thus has never done everything
		if r.Totals().Failed[Deadline] == 0 {
			r.offer(Copy{Path: "/no/rename"}, []byte("x"), nil)
		}
	}
	r.offer(Copy{Path: "/a/b"}, []byte("x"), nil)
	waitFor(t, "the deadline", func() bool { return r.Totals().Failed[Deadline] == 1 })
	if s := r.idle(); s.Dropped[Rename] == 0 {
		t.Errorf("there was nothing to do: %+v", s.Counts)
	}
}

// A call that a server has not looked at, because it was just going, is made once more.
func TestCallThatWasNotLookedAtIsMadeAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leaving := leavingListener{Listener: ln, left: new(atomic.Int32)}
	s := grpc.NewServer(grpc.ForceServerCodecV2(serverCodec{}), grpc.UnknownServiceHandler(answer([]byte("x"))))
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(leaving) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	r := newRig(t, ln.Addr().String(), Limits{}, Settings{})
	r.offer(Copy{Path: "/a/b"}, []byte("x"), []byte("x"))
	if s := r.idle(); s.Answered != 1 || s.Mismatched != 0 || len(r.attempts) != 1 || leaving.left.Load() != 1 {
		t.Errorf("%d servers left; %+v", leaving.left.Load(), s.Counts)
	}
}

// leavingListener gives the first connection to a server that goes away with its first call.
type leavingListener struct {
	net.Listener
	left *atomic.Int32
}

func (l leavingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil || l.left.Add(1) > 1 {
		l.left.Store(1)
		return nc, err
	}
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil, err
	}
	f := http2.NewFramer(nc, nc)
	_ = f.WriteSettings()
	for {
		switch frame, err := f.ReadFrame(); frame.(type) {
		case *http2.HeadersFrame:
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		case *http2.DataFrame: // the request is over
			_, _ = io.Copy(io.Discard, nc) // until the client has seen it
			return l.Accept()
		default:
			if err != nil {
				return nil, err
			}
		}
	}
}

// Of the worst calls nothing is remembered unless that is allowed, and then nothing that
// is to be hidden.
func TestWorstCallsAreRememberedAsFarAsIsAllowed(t *testing.T) {
	asked := marshal(t, &inference.ModelInferRequest{Inputs: []*inference.ModelInferRequest_InferInputTensor{
		{Name: "name", Datatype: "BYTES", Shape: []int64{1}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte("Ada")}}},
		{Name: "age", Datatype: "INT32", Shape: []int64{1}, Contents: &inference.InferTensorContents{IntContents: []int32{36}}},
	}})
	r := newRig(t, serve(t, answer(marshal(t, scores(1, 2)))), Limits{}, Settings{})
	remembered := func() string {
		t.Helper()
		r.offer(Copy{RequestID: "r"}, asked, marshal(t, scores(1, 5)))
		b, err := json.Marshal(r.idle().Worst)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if all := remembered(); strings.Contains(all, "Ada") || strings.Contains(all, "age") || r.Status().Worst[0].Call != nil {
		t.Errorf("something was remembered: %s", all)
	}
	r.Update(Settings{Examples: redact.New([]string{"name"}, nil, nil)})
	all := remembered()
	for _, want := range []string{`"name":"age","datatype":"INT32","shape":[1],"data":[36]`, `"data":["` + redact.Hidden + `"]`,
		`"caller":[{"name":"scores","datatype":"FP32","shape":[2],"data":[1,5]}]`, `"shadow":[{"name":"scores","datatype":"FP32","shape":[2],"data":[1,2]}]`} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not remembered: %s", want, all)
		}
	}
	if strings.Contains(all, "Ada") {
		t.Errorf("what is to be hidden was remembered: %s", all)
	}
}

// The queue takes as many copies as it may, and as much memory, and the calls under
// way are as many as they may be.
func TestQueueIsBounded(t *testing.T) {
	var under, most atomic.Int32
	release := make(chan struct{})
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		n := under.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		defer under.Add(-1)
		<-release
		return s.SendMsg(message([]byte("x")))
	})
	r := newRig(t, addr, Limits{Queued: 10, InFlight: 3, Deadline: patience}, Settings{})
	for range 3 {
		r.offer(Copy{Path: "/a/b"}, []byte("x"), []byte("x"))
	}
	waitFor(t, "three calls", func() bool { return under.Load() == 3 })
	for range 30 {
		r.offer(Copy{Path: "/a/b"}, []byte("x"), []byte("x"))
	}
	time.Sleep(4 * linger) // the worker would take more, if it might
	if s := r.Status(); s.Queued != 10 || s.Dropped[QueueFull] != 20 || s.Bytes != 13*18 || s.Pending() != 13 {
		t.Errorf("%d wait, %d bytes, counts %+v; want 10, %d and 20 dropped", s.Queued, s.Bytes, s.Counts, 13*18)
	}
	close(release)
	if s := r.idle(); s.Answered != 13 || most.Load() != 3 {
		t.Errorf("%d answered, %d at once; want 13 and 3", s.Answered, most.Load())
	}

	bytesOnly := newRig(t, addr, Limits{Bytes: 5 * 18}, Settings{})
	bytesOnly.hold.Lock() // nobody works meanwhile
	for range 8 {
		bytesOnly.offer(Copy{Path: "/a/b"}, []byte("x"), []byte("x"))
	}
	s := bytesOnly.Status()
	bytesOnly.hold.Unlock()
	if s.Bytes != 5*18 || s.Dropped[QueueBytes] != 3 {
		t.Errorf("%d bytes, counts %+v; want %d and 3 dropped", s.Bytes, s.Counts, 5*18)
	}
}

// While there is no room, no copies are asked for; one that is too large for any room does
// not keep others out.
func TestNoCopyIsMadeForWhichThereIsNoRoom(t *testing.T) {
	r := newRig(t, serve(t, answer([]byte("x"))), Limits{Bytes: 30_000}, Settings{})
	r.hold.Lock()           // nobody works meanwhile
	const size = 2*1005 + 5 // the request twice, and an empty message for an answer
	for range 40 {
		r.offer(Copy{Path: "/a/b"}, make([]byte, 1000), nil)
	}
	made, held := len(r.payloads), r.Status()
	r.hold.Unlock()
	if made != 30_000/size || held.Bytes != made*size || held.Dropped[QueueBytes] != uint64(40-made) {
		t.Errorf("%d copies were made and %d dropped for %d bytes", made, held.Dropped[QueueBytes], held.Bytes)
	}
	r.idle()
	r.offer(Copy{Path: "/a/b"}, make([]byte, 100_000), nil)
	r.offer(Copy{Path: "/a/b"}, []byte("x"), []byte("x"))
	if s := r.idle(); s.Dropped[QueueBytes] != held.Dropped[QueueBytes]+1 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// As many calls are under way as may be, though one goroutine sends them.
func TestAsManyCallsAreUnderWayAsMayBe(t *testing.T) {
	var under atomic.Int32
	release := make(chan struct{})
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		under.Add(1)
		<-release
		return nil
	})
	r := newRig(t, addr, Limits{InFlight: 20, Deadline: patience}, Settings{})
	defer close(release)
	for range 20 {
		r.offer(Copy{Path: "/a/b"}, []byte("x"), nil)
	}
	waitFor(t, "all calls to be under way", func() bool { return under.Load() == 20 })
}

// Answers that calls under way may bring are bounded together; alone, any may come.
func TestAnswersUnderWayAreBounded(t *testing.T) {
	var under atomic.Int32
	release := make(chan struct{})
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		under.Add(1)
		defer under.Add(-1)
		<-release
		return nil
	})
	r := newRig(t, addr, Limits{Answers: 3 * answerSpare, Deadline: patience}, Settings{})
	for range 10 {
		r.offer(Copy{Path: "/a/b"}, []byte("x"), nil)
	}
	waitFor(t, "calls", func() bool { return under.Load() >= 2 })
	time.Sleep(20 * time.Millisecond)
	if n := under.Load(); n != 2 { // the empty message of the caller's answer takes a third one's place
		t.Errorf("%d calls at once, want 2", n)
	}
	close(release)
	if s := r.idle(); s.Answered != 10 {
		t.Errorf("counts %+v", s.Counts)
	}
	alone := newRig(t, addr, Limits{Answers: 1}, Settings{})
	alone.offer(Copy{Path: "/a/b"}, []byte("x"), nil)
	alone.offer(Copy{Path: "/a/b"}, []byte("x"), nil)
	if s := alone.idle(); s.Answered != 2 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// gate is a connection of a server that stops reading when it is shut.
type gate struct {
	net.Conn
	shut <-chan struct{}
	end  <-chan struct{}
}

func (g gate) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	select {
	case <-g.shut:
		<-g.end
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

type gatedListener struct {
	net.Listener
	shut, end chan struct{}
}

func (l gatedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return gate{nc, l.shut, l.end}, err
}

// A server that stops, and takes nothing more from its connection, costs no more than
// the configured memory, and that for no longer than the deadline.
func TestServerThatStopsReading(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gated := gatedListener{ln, make(chan struct{}), make(chan struct{})}
	server := grpc.NewServer(grpc.ForceServerCodecV2(serverCodec{}), grpc.UnknownServiceHandler(answer()),
		grpc.StaticStreamWindowSize(16<<20), grpc.StaticConnWindowSize(1<<30))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(gated) })
	defer func() {
		close(gated.end)
		server.Stop()
		serving.Wait()
	}()
	const limit = 8 << 20
	r := newRig(t, ln.Addr().String(), Limits{Bytes: limit, Deadline: 2 * time.Second}, Settings{})
	r.offer(Copy{}, []byte("the first"), nil)
	if s := r.idle(); s.Answered != 1 {
		t.Fatalf("counts %+v", s.Counts)
	}
	close(gated.shut)
	request := make([]byte, 100<<10)
	for range 500 {
		r.offer(Copy{}, request, nil)
		if n := r.Status().Bytes; n > limit {
			t.Fatalf("%d bytes are held, the limit is %d", n, limit)
		}
		time.Sleep(time.Millisecond)
	}
	if s := r.idle(); s.Answered != 1 || s.Dropped[QueueBytes] == 0 || s.Failed[Deadline] == 0 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// Closing in the middle of everything loses no count.
func TestClosingUnderLoad(t *testing.T) {
	r := newRig(t, serve(t, answer(marshal(t, scores(1)))), Limits{Queued: 50, InFlight: 8}, Settings{})
	var offering sync.WaitGroup
	for range 4 {
		offering.Go(func() {
			for range 500 {
				r.offer(Copy{}, []byte("request"), marshal(t, scores(2)))
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	r.Close()
	offering.Wait()
	if s := r.idle(); s.Offered != 2000 || s.Pending() != 0 {
		t.Errorf("counts %+v", s.Counts)
	}
}
