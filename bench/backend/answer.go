package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/bench/counters"
	"sluice/bench/payload"
	"sluice/bench/rawcodec"
)

const (
	// maxAnswerSize and maxAnswers bound what one call can make the backend
	// send, in bytes per message and in messages.
	maxAnswerSize = 16 << 20
	maxAnswers    = 1 << 20
)

// answerer answers any method. It is safe for concurrent use.
type answerer struct {
	fixed []byte
	zeros []byte // what answers of other sizes are cut from, so that thousands cost nothing
	seen  *counters.Counters
}

func newAnswerer(seen *counters.Counters) (*answerer, error) {
	framed, err := payload.Answer(payload.AnswerSize)
	if err != nil {
		return nil, err
	}
	return &answerer{fixed: payload.Message(framed), zeros: make([]byte, maxAnswerSize), seen: seen}, nil
}

// serve reads one message and answers with the fixed message, or with as many
// messages of the size that the call's metadata asks for. The call counts as
// answered once everything has been handed to the transport.
func (a *answerer) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	count := a.seen.Of(method)
	count.Begun.Add(1)

	var request rawcodec.Message
	if err := stream.RecvMsg(&request); err != nil {
		if errors.Is(err, io.EOF) {
			return status.Error(codes.InvalidArgument, "the call ended without a message")
		}
		return err
	}
	count.RequestBytes.Add(uint64(request.Length))

	answer, times, err := a.wanted(stream)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for range times {
		if err := stream.SendMsg(&rawcodec.Message{Body: answer}); err != nil {
			return err
		}
	}
	count.Answered.Add(1)
	return nil
}

// wanted returns the message to answer with and how often to send it.
func (a *answerer) wanted(stream grpc.ServerStream) (message []byte, times int, err error) {
	md, _ := metadata.FromIncomingContext(stream.Context())
	sizes, counts := md.Get(payload.AnswerSizeKey), md.Get(payload.AnswerCountKey)
	if len(sizes) == 0 && len(counts) == 0 {
		return a.fixed, 1, nil
	}
	size, err := bounded(payload.AnswerSizeKey, sizes, len(a.fixed), maxAnswerSize)
	if err != nil {
		return nil, 0, err
	}
	times, err = bounded(payload.AnswerCountKey, counts, 1, maxAnswers)
	if err != nil {
		return nil, 0, err
	}
	return a.zeros[:size], times, nil
}

// bounded reads a metadata value as a number from 1 to limit.
func bounded(key string, values []string, absent, limit int) (int, error) {
	if len(values) == 0 {
		return absent, nil
	}
	n, err := strconv.Atoi(values[0])
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("%s: got %q, want a number from 1 to %d", key, values[0], limit)
	}
	return n, nil
}
