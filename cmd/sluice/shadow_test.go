package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/proto/inference"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/sample"
)

// startSample serves a shipped version of the sample model.
func startSample(t *testing.T, version string) (*sample.Model, string) {
	t.Helper()
	model, err := sample.Load(version)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, served := sample.NewServer(model, nil), make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		<-served
	})
	return model, ln.Addr().String()
}

// TestShadowOnRealData: a version that was trained differently gets copies of all
// penguins, and the command shows exactly where the two models disagree.
func TestShadowOnRealData(t *testing.T) {
	t.Chdir(t.TempDir())
	v2, addr2 := startSample(t, "v2")
	v3, addr3 := startSample(t, "v3")
	routes := fmt.Sprintf(`
routes:
  - model: penguins
    versions: [{name: v2, endpoints: [%q]}, {name: v3, endpoints: [%q]}]
    weights: {v2: 1}
    shadow: [{version: v3, percent: 100}]
`, addr2, addr3)
	if err := os.WriteFile("routes.yaml", []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := startServe(t, "--routes", "routes.yaml")
	cc, err := grpc.NewClient(gateway.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := inference.NewGRPCInferenceServiceClient(cc)
	calls, disagreements := 0, 0
	for _, row := range sample.Penguins() {
		if !row.Complete() {
			continue
		}
		if _, err := client.ModelInfer(t.Context(), sample.NewRequest("penguins", row.Measurements)); err != nil {
			t.Fatal(err)
		}
		calls++
		if species(v2, row) != species(v3, row) {
			disagreements++
		}
	}
	if disagreements == 0 || disagreements == calls {
		t.Fatalf("the models disagree on %d of %d penguins: there is nothing to find", disagreements, calls)
	}
	var report struct {
		Shadows []struct {
			Compared string
			Outputs  []struct{ Name, Mismatched, Flips string }
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := json.Unmarshal([]byte(gateway.must(t, "shadow", "penguins", "-o", "json")), &report); err != nil {
			t.Fatal(err)
		}
		if report.Shadows[0].Compared == fmt.Sprint(calls) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %d calls were compared", report.Shadows[0].Compared, calls)
		}
	}
	found := 0
	for _, o := range report.Shadows[0].Outputs {
		switch o.Name {
		case sample.OutputSpecies:
			found++
			if o.Mismatched != fmt.Sprint(disagreements) {
				t.Errorf("the species differ in %s calls, want %d", o.Mismatched, disagreements)
			}
		case sample.OutputProbability:
			found++
			if o.Flips != fmt.Sprint(disagreements) {
				t.Errorf("%s rows have another largest probability, want %d", o.Flips, disagreements)
			}
		}
	}
	if found != 2 {
		t.Errorf("outputs %+v", report.Shadows[0].Outputs)
	}
	table := gateway.must(t, "shadow")
	for _, want := range []string{
		fmt.Sprintf(`(?m)^penguins +v3 +100%% +%[1]d +\d+ +\S+%% +\S+ - \S+ +\S+ +%[1]d +%[1]d +0 +0 *$`, calls),
		fmt.Sprintf(`(?m)^species +%d +%d +\d+\.\d\d%% `, calls, disagreements),
		`(?m)^slower by `, `(?m)^WORST CALLS `,
	} {
		if !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("the table has no %s:\n%s", want, table)
		}
	}
	if out, code := gateway.sluice("shadow", "pinguins"); code != 1 || !strings.Contains(out, "pinguins") {
		t.Errorf("an unknown model: exit code %d\n%s", code, out)
	}
	ctx, stop := context.WithCancel(t.Context())
	out, ended := new(buffer), make(chan error, 1)
	go func() { ended <- run(ctx, []string{"shadow", "--watch", "--admin", gateway.admin}, out, out) }()
	out.await(t, `(?s)MODEL +SHADOW.*MODEL +SHADOW`) // a second time
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the watch ended with %v", err)
	}
}

// TestReplayOnRealData: calls that were kept are made again of a version that was trained
// differently, and the command finds where the two models disagree.
func TestReplayOnRealData(t *testing.T) {
	t.Chdir(t.TempDir())
	v2, addr2 := startSample(t, "v2")
	v3, addr3 := startSample(t, "v3")
	routes := fmt.Sprintf(`
routes:
  - model: penguins
    versions: [{name: v2, endpoints: [%q]}, {name: v3, endpoints: [%q]}]
    weights: {v2: 1}
    capture: {percent: 100}
`, addr2, addr3)
	if err := os.WriteFile("routes.yaml", []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := startServe(t, "--routes", "routes.yaml", "--capture-dir", "kept")
	if out, code := gateway.sluice("replay", "penguins", "v3"); code != 1 || !strings.Contains(out, "no call was kept") {
		t.Errorf("nothing was kept: exit code %d\n%s", code, out)
	}
	cc, err := grpc.NewClient(gateway.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := inference.NewGRPCInferenceServiceClient(cc)
	calls, disagreements := 0, 0
	for _, row := range sample.Penguins() {
		if !row.Complete() {
			continue
		}
		if _, err := client.ModelInfer(t.Context(), sample.NewRequest("penguins", row.Measurements)); err != nil {
			t.Fatal(err)
		}
		calls++
		if species(v2, row) != species(v3, row) {
			disagreements++
		}
	}
	var result struct {
		Read   string
		Report struct {
			Compared string
			Outputs  []struct{ Name, Mismatched string }
		}
	}
	replay := func() { // what is written last may not be there yet
		out := gateway.must(t, "replay", "penguins", "v3", "--rate", "20000", "-o", "json")
		_, text, _ := strings.Cut(out, "{")
		if err := json.Unmarshal([]byte("{"+text), &result); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); result.Report.Compared != fmt.Sprint(calls); replay() {
		if time.Now().After(deadline) {
			t.Fatalf("%+v, want %d calls", result, calls)
		}
	}
	found := false
	for _, o := range result.Report.Outputs {
		if o.Name == sample.OutputSpecies {
			found = o.Mismatched == fmt.Sprint(disagreements)
		}
	}
	if !found || disagreements == 0 {
		t.Errorf("%+v, want %d species that differ", result, disagreements)
	}
	table := gateway.must(t, "replay", "penguins", "v2", "--rate", "20000", "--at-most", "0.05")
	if want := fmt.Sprintf(`(?m)^penguins +v2 +kept +%[1]d +0 +0.00%% +\S+ - \S+ +\S+ +%[1]d +%[1]d +0 +0 *$`, calls); !regexp.MustCompile(want).MatchString(table) {
		t.Errorf("the table has no %s:\n%s", want, table)
	}
	for want, args := range map[string][]string{
		"--at-most says":           {"v3", "--rate", "20000", "--at-most", "0.0001"},
		"one of the route's":       {"v4"},
		"no such file":             {"v3", "--from", "x.jsonl"},
		"want the name of a file":  {"v3", "--from", "../x.jsonl"},
		"calls per second above 0": {"v3", "--rate", "0"},
	} {
		if out, code := gateway.sluice(append([]string{"replay", "penguins"}, args...)...); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d, want %q\n%s", args, code, want, out)
		}
	}
}

// Calls that brought nothing to compare count against a version, as if they differed.
func TestReplayIsJudgedByTheCallsThatBroughtNothing(t *testing.T) {
	for _, c := range []struct {
		compared, mismatched, failed, dropped uint64
		atMost                                float64
		passes                                bool
	}{
		{compared: 3000, atMost: 0.0013, passes: true}, // 0.12 %
		{compared: 3000, atMost: 0.0012},
		{compared: 3000, mismatched: 30, atMost: 0.0143, passes: true}, // 1.42 %
		{compared: 3000, mismatched: 30, atMost: 0.0141},
		{compared: 40, failed: 110, atMost: 0.1},
		{compared: 40, dropped: 110, atMost: 0.1},
		{compared: 2970, failed: 20, dropped: 10, atMost: 0.0143, passes: true},
		{compared: 2970, failed: 20, dropped: 10, atMost: 0.0141},
		{compared: 1, mismatched: 1, failed: 9, atMost: 1, passes: true}, // nobody has asked
	} {
		o := replayOptions{atMost: c.atMost}
		err := o.judge(&adminv1.ShadowReport{
			Compared: c.compared, Mismatched: c.mismatched,
			Failed: map[string]uint64{"deadline": c.failed}, Dropped: map[string]uint64{"sequence": c.dropped},
		})
		if (err == nil) != c.passes {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// species is what a model says of a penguin.
func species(m *sample.Model, row sample.Row) string {
	best := 0
	p := m.Predict(row.Measurements)
	for i, v := range p {
		if v > p[best] {
			best = i
		}
	}
	return m.Classes[best]
}
