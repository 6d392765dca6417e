package shadow

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/shadow/compare"
)

// worker sends one copy after the other. It keeps its working memory.
type worker struct {
	m        *Mirror
	comparer compare.Comparer
	answer   []byte // of the caller
	request  []byte // before it is renamed
}

// largeScratch is the working memory that a worker keeps at most, in bytes.
const largeScratch = 1 << 20

func newWorker(m *Mirror) *worker { return &worker{m: m} }

// handle sends a copy, counts what comes of it once, and compares the answer.
func (w *worker) handle(j job) {
	m, c := w.m, j.Copy
	l := newLease(m, j.size)
	var call call
	defer func() { l.end(call.conn, call.endings) }()
	defer c.Payload.Release()
	now := time.Now()
	body, messages, reason := w.prepare(c)
	if body == nil {
		m.Withdraw(reason)
		return
	}
	shared := l.buffer(body)
	defer shared.Free()
	endpoint, ok := m.target.Pick(now)
	if !ok {
		m.Withdraw(NoEndpoint)
		return
	}
	settle, ok := m.target.Admit(now)
	if !ok {
		m.Withdraw(BreakerOpen)
		return
	}
	call.c, call.limit = c, j.allowance
	at := 0
	for _, n := range messages {
		call.request = append(call.request, outgoing{shared, at + prefixSize, at + prefixSize + n})
		at += prefixSize + n
	}
	span := m.target.Trace(c, endpoint, now)
	call.send(m, endpoint, span, now)
	settle(call.attempt)
	difference := compare.None
	if call.failed == 0 {
		difference = w.judge(c, &call)
	}
	if span != nil {
		span.End(call.attempt, call.failed, difference)
	}
	if call.failed != 0 {
		m.counts.by[call.failed].Add(1)
		return
	}
	m.counts.answered.Add(1)
}

// prepare makes the body that is sent, and returns the lengths of its messages. If
// there is none, it says why.
func (w *worker) prepare(c *Copy) (body *[]byte, lengths []int, why Reason) {
	w.request = c.Payload.AppendRequest(w.request[:0])
	defer func() {
		if cap(w.request) > largeScratch {
			w.request = nil
		}
	}()
	plain, err := expand(w.request, c.Encoding, 4*len(w.request)+answerSpare)
	if err != nil {
		return nil, nil, Encoding
	}
	asked, _, err := split(plain)
	if err != nil {
		return nil, nil, Encoding
	}
	if !w.m.settings.Load().Sequences {
		for _, message := range asked {
			if inSequence(c.Path, message) {
				return nil, nil, Sequence
			}
		}
	}
	body = buffers.Get().(*[]byte)
	renamed, ok := w.m.target.Rewrite(c.Path, (*body)[:0], plain)
	*body = renamed
	if !ok {
		buffers.Put(body)
		return nil, nil, Rename
	}
	sent, _, err := split(renamed)
	if err != nil {
		buffers.Put(body)
		return nil, nil, Rename
	}
	for _, message := range sent {
		lengths = append(lengths, len(message))
	}
	return body, lengths, 0
}

// judge compares the answers, and says how they differ.
func (w *worker) judge(c *Copy, s *call) compare.Difference {
	w.answer = c.Payload.AppendAnswer(w.answer[:0])
	var r compare.Result
	caller, err := expand(w.answer, c.Payload.AnswerEncoding(), 4*len(w.answer)+answerSpare)
	if err != nil {
		r = compare.Result{Difference: compare.Unreadable, Why: "the caller's answer: " + err.Error()}
	} else {
		a := compare.Answer{Code: c.Code}
		if a.Messages, _, err = split(caller); err == nil {
			r = w.comparer.Compare(compare.FormatOf(c.Path), &w.m.settings.Load().Rules, a,
				compare.Answer{Code: s.attempt.Code, Messages: s.answer})
		} else {
			r = compare.Result{Difference: compare.Unreadable, Why: "the caller's answer: " + err.Error()}
		}
	}
	w.m.verdict.add(c, s.attempt, &r)
	if cap(w.answer) > largeScratch {
		w.answer = nil
	}
	return r.Difference
}

// call is one call of a shadow.
type call struct {
	c       *Copy
	request []outgoing
	limit   int // bytes of the answer that are read

	answer  [][]byte
	attempt Attempt
	failed  Reason // 0: it has been answered

	conn    *conn  // over which it went; nil if it did not
	endings uint64 // of connections there, when it began
}

// authoritySuffix marks the calls of shadows, as Envoy's shadow requests are.
const authoritySuffix = "-shadow"

// send makes the call and notes how it ended.
func (s *call) send(m *Mirror, e Endpoint, span Span, now time.Time) {
	s.attempt = Attempt{Had: m.limits.Deadline}
	ctx, cancel := context.WithTimeout(context.Background(), m.limits.Deadline)
	defer cancel()
	md := passedOn(s.c.Metadata, m.settings.Load().Metadata)
	if s.c.RequestID != "" {
		md["x-request-id"] = []string{s.c.RequestID}
	}
	if span != nil {
		md["traceparent"] = []string{span.Traceparent()}
	}
	cc, err := m.conns.to(e, now)
	var stream grpc.ClientStream
	var started time.Time
	if err == nil {
		s.conn, s.endings = cc, cc.endings()
		options := []grpc.CallOption{grpc.MaxCallRecvMsgSize(s.limit), grpc.MaxRetryRPCBufferSize(0)}
		if s.c.Authority != "" {
			options = append(options, grpc.CallAuthority(s.c.Authority+authoritySuffix))
		}
		desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: len(s.request) != 1}
		stream, err = cc.NewStream(metadata.NewOutgoingContext(ctx, md), desc, s.c.Path, options...)
		started = time.Now()
	}
	if err == nil {
		err = s.exchange(stream, started, cancel)
	}
	s.attempt.Ended = time.Now()
	if s.attempt.Latency == 0 && stream != nil {
		s.attempt.Latency = s.attempt.Ended.Sub(started)
	}
	s.conclude(ctx, stream, err)
}

// exchange sends the request and reads the answer at the same time: neither side may
// have to wait for the other to read.
func (s *call) exchange(stream grpc.ClientStream, started time.Time, cancel func()) error {
	// The first message is sent before anything is read: once it is, grpc-go keeps no
	// message for a repetition, and none is left behind when both happen at once.
	going := len(s.request) > 0 && stream.SendMsg(&s.request[0]) == nil
	if len(s.request) != 1 {
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := 1; i < len(s.request) && going; i++ {
				going = stream.SendMsg(&s.request[i]) == nil // if not, the answer says why
			}
			_ = stream.CloseSend() // it returns nil
		}()
		defer func() { <-sent }() // at the latest when the call has ended
	}
	total := 0
	for {
		var in incoming
		err := stream.RecvMsg(&in)
		if s.attempt.Latency == 0 {
			s.attempt.Latency = max(1, time.Since(started))
		}
		if err != nil {
			return err
		}
		if total += len(in.bytes); total > s.limit {
			cancel()
			return errAnswerSize
		}
		s.answer = append(s.answer, in.bytes)
	}
}

var errAnswerSize = errors.New("more of an answer than is read")

// conclude says how the call ended, from the error with which reading did.
func (s *call) conclude(ctx context.Context, stream grpc.ClientStream, err error) {
	st, _ := status.FromError(err)
	begun, alone := false, false
	if stream != nil {
		header, _ := stream.Header() // it does not block: the call is over
		begun, alone = len(header) > 0, len(stream.Trailer()) > 0
	}
	switch {
	case errors.Is(err, io.EOF):
	case errors.Is(err, errAnswerSize):
		s.attempt.Kind, s.failed = Oversized, AnswerSize
	case alone:
		s.attempt.Code = uint32(st.Code()) // trailers without headers: they have a content-type
	case ctx.Err() != nil || st.Code() == codes.DeadlineExceeded:
		s.attempt.Kind, s.attempt.Code, s.failed = TimedOut, uint32(codes.DeadlineExceeded), Deadline
	case st.Code() == codes.ResourceExhausted && strings.HasPrefix(st.Message(), tooLong):
		s.attempt.Kind, s.failed = Oversized, AnswerSize
	case begun && st.Code() != codes.Unavailable:
		s.attempt.Code = uint32(st.Code())
	default:
		s.attempt.Kind, s.attempt.Code, s.failed = NotReached, uint32(codes.Unavailable), Unreachable
	}
}

// tooLong is how grpc-go begins to say that it does not read a message.
const tooLong = "grpc: received message larger than max"
