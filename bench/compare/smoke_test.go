package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	for _, command := range started(t, folder) {
		t.Errorf("left running: %s", command)
	}
	left, globErr := filepath.Glob(filepath.Join(folder, "sluice-bench-*"))
	if globErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, globErr)
	}
	return out.String(), progress.String(), err
}

// started returns the processes that have a folder in their command, by what they are below /proc.
func started(t *testing.T, folder string) map[string]string {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, file := range commands {
		// A process that ends meanwhile cannot be read and is no trouble.
		if command, _ := os.ReadFile(file); bytes.Contains(command, []byte(folder)) {
			out[file] = string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		}
	}
	return out
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
	var wanted []scenario // kind by kind, each with one round
	for i := 0; i < len(got.Samples); i += len(got.Peers) {
		if len(wanted) == 0 {
			wanted = shuffled(got.Sessions[0].Scenarios, order)
		}
		if s := got.Samples[i].Scenario; s != wanted[0] {
			t.Errorf("sample %d is of %v, want %v by the seed", i, s, wanted[0])
		}
		wanted = wanted[1:]
		var peers []peer.Peer
		for _, p := range got.Peers {
			peers = append(peers, known(p.Name))
		}
		for turn, want := range shuffled(peers, order) {
			if got := got.Samples[i+turn]; got.Peer != want.Name() {
				t.Errorf("%v: %s came as number %d, want %s by the seed", got.Scenario, got.Peer, turn, want.Name())
			}
		}
	}
	for _, s := range got.Scenarios {
		for _, row := range s.Rows {
			if row.PerSecond == nil || row.P50 == nil || row.HalfBeside.Calls == 0 {
				t.Errorf("%v: %s lacks figures: %+v", s.scenario, row.Peer, row)
			}
			if reference := row.Peer == got.Reference; reference != (row.RateRatio == nil) || reference != (row.P50Ratio == nil) {
				t.Errorf("%v: %s: ratios %v and %v, want both, or of the reference itself none", s.scenario, row.Peer, row.RateRatio, row.P50Ratio)
			}
			if proxy := row.Peer != "direct"; !proxy && row.CPU != nil {
				t.Errorf("%v: %s: CPU time = %v, want none without a proxy", s.scenario, row.Peer, row.CPU)
			}
		}
	}

	// What is there is not measured again.
	_, stderr, err = runIn(t.Context(), t, arguments)
	if err != nil || strings.Contains(stderr, "round ") {
		t.Errorf("the same run again = %v:\n%s\nwant nothing measured", err, stderr)
	}
	if got.Scenarios[0].Name != "4KiB:2x4" || got.Scenarios[1].Name != "1KiB:2x2:tls:stream" {
		t.Errorf("the report begins with %s, want the order of the command line whatever order was drawn", got.Scenarios[0].Name)
	}
	stdout, _, err = runIn(t.Context(), t, "-o markdown -from "+file)
	if err != nil || !strings.Contains(stdout, "| 1 KiB, 2 x 2, TLS, streamed |") {
		t.Errorf("report from the file = %v:\n%s", err, stdout)
	}
}

// each calls a function for every write.
type each func(text string)

func (f each) Write(text []byte) (int, error) { f(string(text)); return len(text), nil }

// What differs from start to start must be in the spread between rounds, and nothing else be between those who are compared.
func TestEveryRoundHasProcessesOfItsOwn(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	o, err := parse(strings.Fields("-peers relay,direct -reference relay -rounds 2 -seconds 0.1 -warm-up 0.1s -scenarios 4KiB:1x1,4KiB:2x2"), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string][]string) // by kind and round
	progress := each(func(line string) {
		words := strings.Fields(line) // saturated round 1/2 ...
		if len(words) < 3 || words[1] != "round" {
			return
		}
		round := words[0] + " " + words[2]
		now := slices.Sorted(maps.Keys(started(t, folder)))
		if before, ok := seen[round]; ok && !slices.Equal(now, before) {
			t.Errorf("%s: %v became %v, want the same all the time", round, before, now)
		}
		seen[round] = now
	})
	if err := o.run(t.Context(), new(bytes.Buffer), progress); err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(slices.Collect(maps.Values(seen))...)
	slices.Sort(all)
	// The backend and the relay, in two rounds of two kinds.
	if distinct := len(slices.Compact(slices.Clone(all))); len(seen) != 4 || len(all) != 8 || distinct != 8 {
		t.Errorf("processes by round: %v, want two in each of four rounds, others each time", seen)
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
