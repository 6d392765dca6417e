package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/bench/counters"
	"sluice/bench/payload"
	"sluice/bench/rawcodec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the backend for one test and returns a client and its addresses.
func serve(t *testing.T) (*grpc.ClientConn, counters.Addresses) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, nil, writer)
		writer.Close()
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run = %v", err)
		}
	})
	var addresses counters.Addresses
	if err := json.NewDecoder(reader).Decode(&addresses); err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient("passthrough:///"+addresses.Data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection, addresses
}

func bounded5s(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAnyMethodGetsTheFixedAnswerAndIsCounted(t *testing.T) {
	connection, addresses := serve(t)
	ctx := bounded5s(t)
	want, err := payload.Answer(payload.AnswerSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{payload.InferMethod, payload.InferMethod, "/any.Service/Method"} {
		var answer = rawcodec.Message{Keep: true}
		err := connection.Invoke(ctx, method, &rawcodec.Message{Body: make([]byte, 1000)}, &answer, grpc.ForceCodecV2(rawcodec.Codec{}))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(answer.Body, payload.Message(want)) {
			t.Errorf("%s: the answer is %x, want %x", method, answer.Body, payload.Message(want))
		}
	}
	got, err := counters.Fetch(ctx, addresses.Report)
	if err != nil {
		t.Fatal(err)
	}
	if want := (counters.Totals{Begun: 2, Answered: 2, RequestBytes: 2000}); got[payload.InferMethod] != want {
		t.Errorf("counters of %s = %+v, want %+v", payload.InferMethod, got[payload.InferMethod], want)
	}
	if want := (counters.Totals{Begun: 1, Answered: 1, RequestBytes: 1000}); got["/any.Service/Method"] != want {
		t.Errorf("counters of the other method = %+v, want %+v", got["/any.Service/Method"], want)
	}
}

func TestMetadataAsksForManyLargeAnswers(t *testing.T) {
	connection, _ := serve(t)
	ctx := metadata.AppendToOutgoingContext(bounded5s(t), payload.AnswerSizeKey, "100000", payload.AnswerCountKey, "3")
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, payload.StreamMethod, grpc.ForceCodecV2(rawcodec.Codec{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&rawcodec.Message{Body: []byte{}}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		var answer rawcodec.Message
		if err := stream.RecvMsg(&answer); err != nil || answer.Length != 100000 {
			t.Fatalf("answer %d: %d bytes, %v, want 100000", i+1, answer.Length, err)
		}
	}
	if err := stream.RecvMsg(&rawcodec.Message{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, want io.EOF", err)
	}
}

func TestMetadataOutOfBoundsIsRefused(t *testing.T) {
	connection, addresses := serve(t)
	for _, pair := range [][2]string{{payload.AnswerSizeKey, "0"}, {payload.AnswerSizeKey, "16777217"}, {payload.AnswerCountKey, "-1"}, {payload.AnswerCountKey, "many"}} {
		ctx := metadata.AppendToOutgoingContext(bounded5s(t), pair[0], pair[1])
		err := connection.Invoke(ctx, payload.InferMethod, &rawcodec.Message{}, &rawcodec.Message{}, grpc.ForceCodecV2(rawcodec.Codec{}))
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %s: %v, want INVALID_ARGUMENT", pair[0], pair[1], err)
		}
	}
	got, err := counters.Fetch(bounded5s(t), addresses.Report)
	if err != nil {
		t.Fatal(err)
	}
	if n := got[payload.InferMethod].Answered; n != 0 {
		t.Errorf("%d refused calls count as answered", n)
	}
}

func TestHealthIsServing(t *testing.T) {
	connection, _ := serve(t)
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(bounded5s(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("Check = %v, %v, want SERVING", answer, err)
	}
}
