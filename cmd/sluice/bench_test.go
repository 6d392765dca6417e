package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
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
	if exitCode(err) != exitFailure || !strings.Contains(err.Error(), `20 of 20 calls failed; they were for model "nobody", try --model`) || !strings.Contains(out.String(), `20 NOT_FOUND, the first: `) {
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

// result is what a run of calls that each took a time gives.
func result(t *testing.T, calls int, took time.Duration, tooLong uint64) *load.Result {
	t.Helper()
	h := hdrhistogram.New(1, load.Longest.Microseconds(), 3)
	if err := h.RecordValues(took.Microseconds(), int64(calls)); err != nil {
		t.Fatal(err)
	}
	return &load.Result{OK: uint64(calls), Elapsed: time.Second, Latency: h, Lag: hdrhistogram.New(1, 10, 1), TooLong: tooLong}
}

func TestOnlyQuantilesThatStandAreWritten(t *testing.T) {
	o := benchOptions{output: "table"}
	for calls, want := range map[int]string{
		99:     "p50 2ms, max 2ms; no p90, p99, p99.9: of 99 calls fewer than ten lie beyond\n",
		100:    "p50 2ms, p90 2ms, max 2ms; no p99, p99.9: of 100 calls",
		1000:   "p50 2ms, p90 2ms, p99 2ms, max 2ms; no p99.9: of 1000 calls",
		10_000: "p50 2ms, p90 2ms, p99 2ms, p99.9 2ms, max 2ms\n",
	} {
		var out bytes.Buffer
		if err := o.write(&out, result(t, calls, 2*time.Millisecond, 0)); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%d calls: %v\n%s\nwant %s", calls, err, &out, want)
		}
	}
	if d := o.describe(result(t, 999, 2*time.Millisecond, 0)); d.Latency.P90 != 2000 || d.Latency.P99 != 0 || d.Latency.P999 != 0 {
		t.Errorf("of 999 calls %+v, want p90 and nothing beyond", d.Latency)
	}
}

func TestCallsThatTookTooLongAreInTheTable(t *testing.T) {
	var out bytes.Buffer
	o := benchOptions{output: "table"}
	if err := o.write(&out, result(t, 100, time.Second, 3)); err != nil || !strings.Contains(out.String(), "too long   3 calls took more than 2m0s and count as that\n") {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	if err := o.write(&out, result(t, 100, time.Second, 0)); err != nil || strings.Contains(out.String(), "too long") {
		t.Errorf("none took too long: %v\n%s", err, &out)
	}
}

// A key that is given twice is sent twice.
func TestBenchSendsAllMetadata(t *testing.T) {
	o := benchOptions{config: load.Config{Address: "a:1", Connections: 1, Streams: 1, Timeout: 1}, plan: load.Plan{For: 1}, size: 64,
		output: "table", metadata: []string{"B=1", "a=2", "b=3"}}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if want := [][2]string{{"b", "1"}, {"a", "2"}, {"b", "3"}}; !slices.Equal(o.config.Metadata, want) {
		t.Errorf("metadata %q, want %q", o.config.Metadata, want)
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
		{"a", `ADDRESS: got "a", want host:port`},
		{"http://a:1", "ADDRESS: got"},
		{"a:1 --rate -1", "--rate: got -1, want 0 to"},
		{"a:1 --for 2h", "--for: got 2h0m0s, want"},
		{"a:1 -c 0", "--connections: got 0, want 1 to"},
		{"a:1 --timeout 0s", "--timeout: got 0s, want"},
		{"a:1 -m :path=/x", `--metadata: got name ":path", want`},
		{"a:1 -m te=x", `--metadata: got name "te"`},
		{"a:1 -m x=\x01", `--metadata: got value "\x01" of x, want`},
		{"a:1 --size 64 --model " + strings.Repeat("m", 50), "--size with a --model of 50 bytes: message size: got 64, want more"},
		{"a:1 --warm-up -1s", "--warm-up: got -1s"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"bench"}, strings.Fields(test.arguments)...), &out, &out)
		if exitCode(err) != exitUsage || !strings.Contains(err.Error(), test.want) {
			t.Errorf("bench %s: exit code %d, %v, want 2 and %q", test.arguments, exitCode(err), err, test.want)
		}
	}
}
