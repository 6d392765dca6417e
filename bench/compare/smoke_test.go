package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/bench/h2load"
	"sluice/bench/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runIn runs the command with a temporary folder of its own and fails the test
// if a process that knows the folder is left, or the folder is not empty.
func runIn(ctx context.Context, t *testing.T, arguments string) (stdout, stderr string, err error) {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	o, err := parse(strings.Fields(arguments), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	err = o.run(ctx, &out, &progress)

	commands, globErr := filepath.Glob("/proc/[0-9]*/cmdline")
	if globErr != nil {
		t.Fatal(globErr)
	}
	for _, file := range commands {
		// A process that ends meanwhile cannot be read and is no trouble.
		if command, _ := os.ReadFile(file); bytes.Contains(command, []byte(folder)) {
			t.Errorf("left running: %s", bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		}
	}
	left, globErr := filepath.Glob(filepath.Join(folder, "sluice-bench-*"))
	if globErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, globErr)
	}
	return out.String(), progress.String(), err
}

// known is a peer of which only the name is known.
type known string

func (k known) Name() string                         { return string(k) }
func (known) Locate(context.Context) (string, error) { return "", nil }
func (known) Launch(peer.Site) peer.Launch           { return peer.Launch{} }

func TestRunWithWhateverPeersAreThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "samples.jsonl")
	arguments := "-peers relay,datapath,nghttpx,haproxy,envoy,nginx,grpc-go,haproxy-tcp,direct -reference grpc-go -rounds 1 -seconds 0.1 -warm-up 0.1s " +
		"-scenarios 4KiB:2x4,1KiB:2x2:tls:stream -seed 5 -o json -into " + file
	stdout, stderr, err := runIn(t.Context(), t, arguments)
	if err != nil {
		t.Fatalf("run = %v\n%s", err, stderr)
	}
	var got report
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.Peers) + len(got.Skipped); n != 9 || len(got.Scenarios) != 2 || len(got.Samples) != 2*2*len(got.Peers) {
		t.Fatalf("%d peers, %d scenarios, %d samples, want 9, 2 and a round of two kinds of each:\n%s", n, len(got.Scenarios), len(got.Samples), stderr)
	}
	if got.Sessions[0].Seed != 5 {
		t.Errorf("seed = %d, want it recorded", got.Sessions[0].Seed)
	}
	order := rand.New(rand.NewPCG(5, 0))
	for i, s := range got.Samples {
		if s.Turn != i%len(got.Peers) {
			t.Errorf("sample %d came as number %d of its round", i, s.Turn)
		}
	}
	for i := 0; i < len(got.Samples); i += len(got.Peers) {
		var started []*member
		for _, p := range got.Peers {
			started = append(started, &member{peer: known(p.Name)})
		}
		for turn, want := range shuffled(started, order) {
			if got := got.Samples[i+turn]; got.Peer != want.name() {
				t.Errorf("%v: %s came as number %d, want %s by the seed", got.Scenario, got.Peer, turn, want.name())
			}
		}
	}
	for _, s := range got.Scenarios {
		for _, row := range s.Rows {
			if row.PerSecond == nil || row.RateRatio == nil || row.P50 == nil || row.P999 == nil || row.P50Ratio == nil {
				t.Errorf("%v: %s lacks figures: %+v", s.scenario, row.Peer, row)
			}
			if proxy := row.Peer != "direct"; !proxy && row.CPU != nil {
				t.Errorf("%v: %s: CPU time = %v, want none without a proxy", s.scenario, row.Peer, row.CPU)
			}
		}
	}

	// What is there is not measured again.
	_, stderr, err = runIn(t.Context(), t, strings.Replace(arguments, "relay,nghttpx,haproxy,envoy,nginx,grpc-go,haproxy-tcp,direct", "direct", 1))
	if err != nil || strings.Contains(stderr, "round ") {
		t.Errorf("the same run again = %v:\n%s\nwant nothing measured", err, stderr)
	}
	stdout, _, err = runIn(t.Context(), t, "-o markdown -from "+file)
	if err != nil || !strings.Contains(stdout, "| 1 KiB, 2 x 2, TLS, streamed |") {
		t.Errorf("report from the file = %v:\n%s", err, stdout)
	}
}

func TestTheOtherGeneratorSeesTheSame(t *testing.T) {
	stdout, stderr, err := runIn(t.Context(), t,
		"-peers direct -generator h2load -latency=false -reference direct -rounds 1 -seconds 0.2 -warm-up 0.1s -scenarios 4KiB:2x4 -o json")
	if _, missing := exec.LookPath("h2load"); missing != nil {
		if !errors.Is(err, h2load.ErrMissing) {
			t.Errorf("run without h2load = %v, want %v", err, h2load.ErrMissing)
		}
		return
	}
	if err != nil {
		t.Fatalf("run = %v\n%s", err, stderr)
	}
	var got report
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Samples) != 1 || got.Samples[0].PerSecond <= 0 || got.Samples[0].Mean <= 0 {
		t.Errorf("samples = %+v, want one with figures", got.Samples)
	}
}

func TestMemoryModes(t *testing.T) {
	stdout, stderr, err := runIn(t.Context(), t,
		"-peers haproxy-tcp,direct -idle-memory 5 -never-read 3 -never-read-streams 4 -hold 200ms -settle 200ms -o json")
	if _, missing := exec.LookPath("haproxy"); missing != nil {
		// Nothing is left that has memory to read; the run must still be whole.
		if err != nil {
			t.Errorf("run without haproxy = %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("run = %v\n%s", err, stderr)
	}
	var got memoryReport
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Idle) != 1 || got.Idle[0].Connections != 5 || got.Idle[0].Before == 0 || got.Idle[0].Idle == 0 {
		t.Errorf("idle = %+v, want figures of one peer", got.Idle)
	}
	if len(got.NeverRead) != 1 || got.NeverRead[0].Arrived != 12 || !got.NeverRead[0].Served || got.NeverRead[0].Peak < got.NeverRead[0].Before {
		t.Errorf("never read = %+v, want all 12 calls at the backend and others served", got.NeverRead)
	}
}

func TestMemoryOfConnectionsWithTLS(t *testing.T) {
	stdout, stderr, err := runIn(t.Context(), t, "-peers relay -idle-memory 5 -never-read 3 -never-read-streams 4 -hold 200ms -settle 200ms -memory-tls -o json")
	if err != nil {
		t.Fatalf("run = %v\n%s", err, stderr)
	}
	var got memoryReport
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if !got.TLS || len(got.Idle) != 1 || len(got.NeverRead) != 1 || got.NeverRead[0].Arrived != 12 || !got.NeverRead[0].Served {
		t.Errorf("report = %+v, want one with TLS, all 12 calls at the backend and others served", got)
	}
}

func TestInterruptedRunLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	start := time.Now()
	_, _, err := runIn(ctx, t, "-peers nghttpx,haproxy,nginx,direct -scenarios standard -rounds 100")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run = %v, want the interruption", err)
	}
	// 2 s of patience with each process and a margin for a busy machine: what
	// matters is that the run does not go on for minutes.
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the run went on for %v", took)
	}
}

func TestShowConfigsStartsNothing(t *testing.T) {
	stdout, _, err := runIn(t.Context(), t, "-peers haproxy,grpc-go,direct -show-configs -workers 1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout, "GOMAXPROCS=1 ") {
		t.Errorf("configurations:\n%s\nwant the number of workers in them", stdout)
	}
	if !strings.Contains(stdout, "# direct (no proxy)\nnothing is started") {
		t.Errorf("configurations:\n%s\nwant direct among them", stdout)
	}
}
