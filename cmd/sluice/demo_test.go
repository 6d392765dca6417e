package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/storetest"
)

// demoCommand is sluice demo with arguments and its standard output.
func demoCommand(args ...string) (*cobra.Command, *bytes.Buffer) {
	cmd, out := newDemoCommand(), new(bytes.Buffer)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return cmd, out
}

// TestDemoRollsOutThroughTheGateway runs the whole thing: model servers,
// gateway, traffic. The demo itself fails if a call does, if an answer does not
// say where it came from, or if it came from a version without weight.
func TestDemoRollsOutThroughTheGateway(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cmd, out := demoCommand("--for", "3s", "--rate", "200", "--listen", "127.0.0.1:0")
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^\d+ calls in \d+\.\d s, 0 failed$`,
		`(?m)^ *90/10 +v1 +90 % +[89]\d\.\d %`,
		`(?m)^ *90/10 +v2 +10 % +[12]?\d\.\d %`,
		`(?m)^ *50/50 +v1 +50 % +[3456]\d\.\d %`,
		`(?m)^ *50/50 +v2 +50 % +[3456]\d\.\d %`,
		`(?m)^ *0/100 +v1 +0 % +0\.0 % +0 +0 +- +- +-$`,
		`(?m)^ *0/100 +v2 +100 % +100\.0 %`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("output lacks %s:\n%s", want, out)
		}
	}
}

// TestDemoKeepsItsRoutesInAStore: what it did is there when it has ended.
func TestDemoKeepsItsRoutesInAStore(t *testing.T) {
	dir := t.TempDir()
	cmd, out := demoCommand("--for", "1s", "--rate", "50", "--listen", "127.0.0.1:0", "--store", "file:"+dir)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	store, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	changes := storetest.History(t, store, routing.HistoryQuery{})
	if len(changes) < 4 || changes[1].GetRoutes()[0].GetAfter().GetWeights()["v2"] != 100 {
		t.Errorf("%d changes, the last one %v: want the whole rollout", len(changes), changes)
	}
}

// TestDemoShowsAFailingCanary: while it fails, no caller sees it, and few calls reach
// it; then it gets its calls back. The demo itself fails if a call does, if the canary
// is never cut off, and if it never comes back.
func TestDemoShowsAFailingCanary(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cmd, out := demoCommand("--scenario", "canary-fails", "--for", "6s", "--rate", "300", "--listen", "127.0.0.1:0")
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	counts := make(map[string][]int) // by phase: calls, failed, by v1, by v2, fell back after a failure, at once, v2's servers got
	for _, m := range regexp.MustCompile(`(?m)^ *(healthy|failing|healed)  ([\d ]+) [\d.]+ ms`).FindAllStringSubmatch(out.String(), -1) {
		for _, n := range strings.Fields(m[2]) {
			v, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			counts[m[1]] = append(counts[m[1]], v)
		}
	}
	for _, phase := range []string{"healthy", "failing", "healed"} {
		if len(counts[phase]) != 7 {
			t.Fatalf("no line of phase %s:\n%s", phase, out)
		}
		c := counts[phase]
		if c[1] != 0 || c[0] != c[2]+c[3]+c[4]+c[5] {
			t.Errorf("%s: %v, want no failures and every call accounted for", phase, c)
		}
	}
	const threshold, clients = 5, 16
	const probes = 10 // one per open period of half a second at least, in 2.4 s
	healthy, failing, healed := counts["healthy"], counts["failing"], counts["healed"]
	if healthy[3] == 0 || healthy[4]+healthy[5] > clients { // under way when the canary begins to fail
		t.Errorf("healthy: %v, want calls of the canary and hardly any that fell back", healthy)
	}
	if failing[5] == 0 || failing[4] > threshold+clients+probes || failing[6] > threshold+clients+probes {
		t.Errorf("failing: %v, want it cut off after at most %d calls", failing, threshold+clients+probes)
	}
	if healed[3] == 0 {
		t.Errorf("healed: %v, want calls of the canary", healed)
	}
}

// TestDemoShowsAFeatureThatMoves through a real gateway, from what its operators' service tells: the demo itself fails
// if the feature is not raised or if another one is.
func TestDemoShowsAFeatureThatMoves(t *testing.T) {
	t.Parallel()
	cmd, out := demoCommand("--scenario", "drift", "--for", "4m", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^ *[\d.]+ s  v1, +\d+ samples, PSI: bill_depth_mm 0\.[01]\d\d, bill_length_mm 0\.[01]\d\d, body_mass_g 0\.[01]\d\d, flipper_length_mm 0\.[01]\d\d$`,
		`(?m)^ *[\d.]+ s  from now on, bill_depth_mm of every penguin is 2 more$`,
		`(?m)^ *[\d.]+ s  v2, +\d+ samples, PSI: bill_depth_mm [\d.]+ drift, `,
		`(?m)^ *bill_depth_mm +drift +\d+ +[\d.]+ +<1e-12 +[\d.]+ +[▁▂▃▄▅▆▇█ ]+`,
		`(?m)^ *flipper_length_mm +ok +`,
		`(?m)^v2 against v1: the world has moved, for both in bill_depth_mm`,
		`(?m)bill_depth_mm +distribution +PSI [\d.]+ >= 0\.2, P `,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("output lacks %s:\n%s", want, out)
		}
	}
}

// TestDemoShowsAShadow: callers notice nothing of a shadow, whatever it does, and its
// disagreement is what the two models say themselves. The demo itself fails if a call
// does, if the numbers do not agree, and if the shadow is never cut off or never comes back.
func TestDemoShowsAShadow(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cmd, out := demoCommand("--scenario", "shadow", "--for", "5s", "--rate", "200", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`(?m)^ *mirrored +(\d+) +0 +[\d.]+ ms +[\d.]+ ms +(\d+) +0 +(\d+) +0 +(\d+) +(\d+) *$`).FindStringSubmatch(out.String())
	if len(m) != 6 || m[1] != m[2] || m[1] != m[3] || m[4] != m[5] || m[4] == "0" {
		t.Errorf("mirrored %q, want every call compared, and the models' disagreements found\n%s", m, out)
	}
	for _, want := range []string{`(?m)^ *failing +\d+ +0 `, `(?m)^ *healed +\d+ +0 `, `(?m)^of \d+ calls, 0 failed$`} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("output lacks %s:\n%s", want, out)
		}
	}
}

func TestDemoEndsWhenInterrupted(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	cmd, out := demoCommand("--listen", "127.0.0.1:0")
	begin := time.Now()
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("took %v to end after 1.5s", took)
	}
	if !strings.Contains(out.String(), ", 0 failed\n") {
		t.Errorf("no summary:\n%s", out)
	}
}

func TestDemoRefusesATakenPort(t *testing.T) {
	lis, err := net.Listen("tcp", deadAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	cmd, _ := demoCommand("--for", "1s", "--listen", lis.Addr().String())
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("demo = %v, want address already in use", err)
	}
	if got := freeAddress(lis.Addr().String()); got != "127.0.0.1:0" {
		t.Errorf("freeAddress() of a taken port = %s, want 127.0.0.1:0", got)
	}
	lis.Close()
	if got := freeAddress(lis.Addr().String()); got != lis.Addr().String() {
		t.Errorf("freeAddress() of a free port = %s, want %s", got, lis.Addr())
	}
}

func TestDemoRefusesBadFlags(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--for", "10ms"}, "--for: got 10ms, want at least 1s"},
		{[]string{"--for", "-5s"}, "--for: got -5s, want at least 1s"},
		{[]string{"--scenario", "x"}, `--scenario: got "x", want one of canary-fails, drift, rollout, shadow`},
		{[]string{"--rate", "0"}, "--rate: got 0, want 1 to 1000000"},
		{[]string{"--rate", "1000001"}, "--rate: got 1000001"},
	} {
		cmd, _ := demoCommand(test.args...)
		err := cmd.ExecuteContext(t.Context())
		if !errors.As(err, new(*usageError)) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("demo %q = %v, want a usage error with %q", test.args, err, test.want)
		}
	}
}
