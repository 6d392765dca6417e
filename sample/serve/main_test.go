package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sluice/proto/inference"
	"sluice/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServesUntilInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-version", "v2", "-listen", "127.0.0.1:0", "-error-rate", "1", "-error-code", "DATA_LOSS"}, stdout, io.Discard)
		stdout.Close()
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	told, addr, ok := strings.Cut(lines.Text(), " on ")
	if !ok || told != `model "penguins", version v2,` {
		t.Fatalf("first line = %q", lines.Text())
	}

	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := inference.NewGRPCInferenceServiceClient(conn)
	_, err = client.ModelInfer(t.Context(), sample.NewRequest(sample.ModelName, sample.Measurements{39.1, 18.7, 181, 3750}))
	if status.Code(err) != codes.DataLoss {
		t.Errorf("call = %v, want DATA_LOSS as told", err)
	}
	interrupt()
	lines.Scan()
	if want := "1 calls: 0 answered, 1 failed, 0 cancelled"; lines.Text() != want {
		t.Errorf("last line = %q, want %q", lines.Text(), want)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("run() = %v, want nil", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still serving 5 s after the interrupt")
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-version", "v9"}, `got "v9", want one of ["v1" "v2" "v3"]`},
		{[]string{"-error-rate", "2"}, "ErrorRate: got 2, want 0 to 1"},
		{[]string{"-error-code", "OOPS"}, "invalid code"},
		{[]string{"-delay", "-1s"}, "Delay: got -1s"},
		{[]string{"-nope"}, "not defined: -nope"},
		{[]string{"v1"}, `arguments: got ["v1"], want none`},
	} {
		err := run(t.Context(), test.args, io.Discard, io.Discard)
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("run(%q) = %v, want a usage error with %q", test.args, err, test.want)
		}
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("run(-h) = %v, want %v", err, flag.ErrHelp)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	err = run(t.Context(), []string{"-listen", lis.Addr().String()}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("run() = %v, want address already in use", err)
	}
}
