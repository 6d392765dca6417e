package health

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// quick are settings for tests: what takes seconds takes moments.
var quick = Settings{Interval: 20 * time.Millisecond, Timeout: time.Second, FailAfter: 2}

// answer is what a server says to one question; the zero value is an empty message.
type answer struct {
	body []byte
	code codes.Code
	hang bool
}

// modelServer is a gRPC server that answers the questions it is told to, and knows no
// others.
type modelServer struct {
	addr     string
	accepted atomic.Int64 // connections

	mu      sync.Mutex
	answers map[question]answer
	asked   []asked
}

// asked is a question as it arrived.
type asked struct {
	method question
	body   string
}

func startServer(t testing.TB, answers map[question]answer) *modelServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &modelServer{addr: ln.Addr().String(), answers: answers}
	gs := grpc.NewServer(grpc.UnknownServiceHandler(s.handle))
	var serving sync.WaitGroup
	serving.Go(func() { _ = gs.Serve(counting{ln, &s.accepted}) }) // until it is stopped
	t.Cleanup(func() {
		gs.Stop()
		serving.Wait()
	})
	return s
}

func (s *modelServer) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	m := new(emptypb.Empty) // keeps what it does not know
	if err := stream.RecvMsg(m); err != nil {
		return err
	}
	s.mu.Lock()
	s.asked = append(s.asked, asked{question(method), string(m.ProtoReflect().GetUnknown())})
	a, known := s.answers[question(method)]
	s.mu.Unlock()
	switch {
	case !known:
		return status.Error(codes.Unimplemented, "unknown")
	case a.hang:
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	case a.code != codes.OK:
		return status.Error(a.code, "made so")
	}
	return stream.SendMsg(raw(a.body))
}

// turn replaces the answers.
func (s *modelServer) turn(answers map[question]answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = answers
}

// questions counts the questions so far.
func (s *modelServer) questions() map[question]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := make(map[question]int)
	for _, a := range s.asked {
		n[a.method]++
	}
	return n
}

// kinds returns the questions so far, each once, sorted.
func (s *modelServer) kinds() []question {
	return slices.Sorted(maps.Keys(s.questions()))
}

// counting counts the connections of a listener.
type counting struct {
	net.Listener
	n *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

// startChecker runs a checker until the test ends.
func startChecker(t testing.TB) *Checker {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return New(ctx, running.Go)
}

// watched is a watch, and what it was told.
type watched struct {
	*Watch
	told chan Status
}

func watch(c *Checker, t Target, s Settings) watched {
	told := make(chan Status, 100)
	return watched{c.Watch(t, s, func(s Status) { told <- s }), told}
}

// next waits for the next change.
func (w watched) next(t testing.TB) Status {
	t.Helper()
	select {
	case s := <-w.told:
		return s
	case <-time.After(patience):
		t.Fatalf("no change; the state is %+v", w.Status())
		return Status{}
	}
}

// until waits for something to become true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// rounds waits until a target has been asked n more times.
func (w watched) rounds(t testing.TB, n int) {
	t.Helper()
	last := w.Status().Asked
	for range n {
		until(t, "another round", func() bool { return w.Status().Asked.After(last) })
		last = w.Status().Asked
	}
}
