package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/bench/load"
	"sluice/bench/rawcodec"
)

// startAnswering starts a gateway before a model server that answers every call with a
// message of ten bytes.
func startAnswering(t *testing.T) *served {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawcodec.Codec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&rawcodec.Message{}); err != nil {
			return err
		}
		return stream.SendMsg(&rawcodec.Message{Body: make([]byte, 10)})
	}))
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	t.Chdir(t.TempDir())
	write(t, "routes.yaml", fmt.Sprintf("routes:\n  - model: fraud\n    versions:\n      - name: a\n        endpoints: [%q]\n    weights: {a: 1}\n", ln.Addr()))
	return startServe(t, "--routes", "routes.yaml")
}

func TestBenchMeasuresAGateway(t *testing.T) {
	gateway := startAnswering(t)
	for _, rate := range []string{"0", "500"} {
		var out, progress bytes.Buffer
		err := run(t.Context(), []string{"bench", gateway.data, "--model", "fraud", "--requests", "200", "--rate", rate, "-o", "json"}, &out, &progress)
		if err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		var got benchResult
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.OK != 200 || got.Calls != 200 || got.AnswerMessages != 200 || got.AnswerBytes != 200*15 || got.Latency.P50 <= 0 || got.Latency.Max < got.Latency.P99 || got.PerSecond <= 0 {
			t.Errorf("rate %s: %+v, want 200 calls, all answered", rate, got)
		}
	}
}

func TestBenchFailsWhenCallsDo(t *testing.T) {
	gateway := startAnswering(t)
	arguments := []string{"bench", gateway.data, "--model", "nobody", "--requests", "20"}
	var out bytes.Buffer
	err := run(t.Context(), arguments, &out, &out)
	if exitCode(err) != exitFailure || !strings.Contains(err.Error(), `20 of 20 calls failed; they were for model "nobody", try --model`) || !strings.Contains(out.String(), "20 NOT_FOUND") {
		t.Errorf("a model that is not there: %v\n%s", err, &out)
	}
	if err := run(t.Context(), append(arguments, "--allow-failures", "1"), &out, &out); err != nil {
		t.Errorf("with failures allowed: %v", err)
	}
	dead := deadAddress(t)
	if err := run(t.Context(), []string{"bench", dead}, &out, &out); exitCode(err) != exitFailure || !strings.Contains(err.Error(), dead) {
		t.Errorf("nobody listens: %v, want an error that says where", err)
	}
}

func TestLatenciesAreWrittenAsFarAsTheyAreKnown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234 * time.Microsecond: "1.23ms", 119 * time.Second: "1m59s", load.Longest: ">2m", time.Hour: ">2m",
	} {
		if got := rounded(d); got != want {
			t.Errorf("rounded(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for _, test := range []struct{ arguments, want string }{
		{"", "got no arguments, want ADDRESS"},
		{"a:1 -o yaml", `--output: got "yaml"`},
		{"a:1 --size 4KB", "want 64 to 64MiB"},
		{"a:1 --arrivals bursts", "want poisson or constant"},
		{"a:1 --allow-failures 2", "--allow-failures: got 2"},
		{"a:1 --method /a/B --stream", "--method and --stream"},
		{"a:1 --message /no/such/file", "--message: "},
		{"a:1 --ca-file /dev/null", "--ca-file: no certificate"},
		{"a:1 -m x", "x"},
		{"a:1 --warm-up -1s", "--warm-up: got -1s"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"bench"}, strings.Fields(test.arguments)...), &out, &out)
		if exitCode(err) != exitUsage || !strings.Contains(err.Error(), test.want) {
			t.Errorf("bench %s: exit code %d, %v, want 2 and %q", test.arguments, exitCode(err), err, test.want)
		}
	}
}
