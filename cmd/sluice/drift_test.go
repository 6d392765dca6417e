package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/proto/inference"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/sample"
)

// penguinsFile writes the measurements of all penguins, three times: fewer than 500 rows are no reference.
func penguinsFile(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := csv.NewWriter(file)
	rows := [][]string{sample.Features}
	for range 3 {
		for _, p := range sample.Penguins() {
			var row []string
			for _, v := range p.Measurements {
				row = append(row, strconv.FormatFloat(v, 'g', -1, 64))
			}
			rows = append(rows, row)
		}
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
}

// TestDriftShowsWhatIsComparedWithWhat with real penguins, from a file to the table.
func TestDriftShowsWhatIsComparedWithWhat(t *testing.T) {
	people, err := filepath.Abs("../../telemetry/drift/testdata/people.parquet")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	train, dark := filepath.Join(dir, "train.csv"), filepath.Join(dir, "payloads")
	_, addr := startSample(t, "v1")
	penguinsFile(t, train)
	routes := `
routes:
  - model: penguins
    versions: [{name: v1, endpoints: [%[1]q], provenance: {data: "dvc:77"}}]
    weights: {v1: 1}
    drift:
      per_second: 1000
      window: 5s
      learn: 0
      columns: [{tensor: %[2]s, names: [%[3]s]}]
      payloads: {per_second: 100, redact: ["*"], keep: [body_mass_g]}
  - model: plain
    versions: [{name: v1, endpoints: [%[1]q]}]
    weights: {v1: 1}
`
	file := write(t, filepath.Join(dir, "routes.yaml"), fmt.Sprintf(routes, addr, sample.InputName, strings.Join(sample.Features, ", ")))
	g := startServe(t, "--routes", file, "--payload-dir", dark)

	if out := g.must(t, "drift", "plain"); !strings.Contains(out, "not watched") {
		t.Errorf("a model that is not watched: %s", out)
	}
	if out := g.must(t, "drift", "penguins"); !strings.Contains(out, "no reference (try: sluice drift reference --help)") {
		t.Errorf("without a reference: %s", out)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"penguins", "v1"}, 2, "got 0 of --from, --from-version and --remove, want one"},
		{[]string{"penguins", "v1", "--from", train, "--remove"}, 2, "got 2 of"},
		{[]string{"penguins", "v1", "--from", train, "--columns", "wing"}, 1, `file train.csv: header: no column "wing"`},
		{[]string{"penguins", "v1", "--from", people, "--columns", "tags"}, 1, `file people.parquet: no column "tags"`},
		{[]string{"penguins", "v9", "--from", train, "--columns", "body_mass_g"}, 1, `reference.version: got "v9"`},
		{[]string{"plain", "v1", "--from", train, "--columns", "body_mass_g"}, 1, "drift: {}"},
		{[]string{"penguins", "v1", "--from-version", "v1"}, 1, "no whole window"},
	} {
		if out, code := g.sluice(append([]string{"drift", "reference"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("sluice drift reference %q: exit code %d, %s; want %d and %q", tt.args, code, out, tt.code, tt.want)
		}
	}
	out := g.must(t, "drift", "reference", "penguins", "v1", "--from", people, "--columns", "score")
	if !strings.Contains(out, "penguins v1 is compared with file people.parquet: 1 feature, in windows of 5s") {
		t.Errorf("reference from Parquet: %s", out)
	}
	out = g.must(t, "drift", "reference", "penguins", "v1", "--from", train, "--columns", "body_mass_g")
	if !strings.Contains(out, "penguins v1 is compared with file train.csv: 1 feature, in windows of 5s") {
		t.Errorf("reference from a file: %s", out)
	}

	stop := askForPenguins(t, g.data)
	table := regexp.MustCompile(`(?m)^penguins v1: compared with file train\.csv, data dvc:77, window of 5s until .*, \d+ samples$`)
	row := regexp.MustCompile(`(?m)^body_mass_g +ok +\d{3,} +0\.\d+ +\d\.\d+ +0\.\d+ +[▁▂▃▄▅▆▇█]{10} +[▁▂▃▄▅▆▇█]{10}`)
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out = g.must(t, "drift", "penguins")
		if table.MatchString(out) && row.MatchString(out) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table lacks %v or %v:\n%s", table, row, out)
		}
	}
	stop()
	var resp struct {
		Versions []struct {
			Features []struct{ Feature, State, Label string }
		}
	}
	if err := json.Unmarshal([]byte(g.must(t, "drift", "penguins", "-o", "json")), &resp); err != nil {
		t.Fatal(err)
	}
	if f := resp.Versions[0].Features; len(f) != 1 || f[0].Feature != "body_mass_g" || f[0].Label != "body_mass_g" {
		t.Errorf("features in JSON %+v", f)
	}
	if out := g.must(t, "drift", "reference", "penguins", "v1", "--remove"); !strings.Contains(out, "compared with nothing any more") {
		t.Errorf("removed: %s", out)
	}
	checkPayloads(t, dark)
}

// checkPayloads finds the one column that may be written, and none of the others.
func checkPayloads(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("payloads: %v, %v", files, err)
	}
	lines := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var l struct {
				Model, Version  string
				Inputs, Outputs []struct{ Data []any }
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			lines++
			in := l.Inputs[0].Data
			mass, isNumber := in[3].(float64)
			if l.Model != "penguins" || l.Version != "v1" || in[0] != "[redacted]" || in[1] != "[redacted]" || in[2] != "[redacted]" || !isNumber || mass < 2000 {
				t.Errorf("line %s, want the body mass and nothing else", line)
			}
			for _, o := range l.Outputs {
				for _, v := range o.Data {
					if v != "[redacted]" {
						t.Errorf("an answer is written: %s", line)
					}
				}
			}
		}
	}
	if lines == 0 {
		t.Error("no payload was written")
	}
}

// askForPenguins calls for all complete penguins, again and again, some 400 times a second, until it is stopped.
func askForPenguins(t *testing.T, addr string) (stop func()) {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client, rows := inference.NewGRPCInferenceServiceClient(cc), sample.Penguins()
	ended := make(chan struct{})
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := w; ; i += 4 {
				select {
				case <-ended:
					return
				case <-tick.C:
				}
				if p := rows[i%len(rows)]; p.Complete() {
					if _, err := client.ModelInfer(t.Context(), sample.NewRequest("penguins", p.Measurements)); err != nil && t.Context().Err() == nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(ended)
		workers.Wait()
		cc.Close()
	})
}

// TestVersionsThatAreNotCalledAreNotContrasted: dark ones would fill the screen.
func TestVersionsThatAreNotCalledAreNotContrasted(t *testing.T) {
	resp := &adminv1.GetDriftResponse{
		Versions:  []*adminv1.VersionDrift{{Version: "v1", Sampled: 9}, {Version: "v2", Sampled: 1}, {Version: "v3"}},
		Contrasts: []*adminv1.DriftContrast{{Base: "v1", Other: "v2", Verdict: "unknown"}, {Base: "v1", Other: "v3", Verdict: "unknown"}},
	}
	var b strings.Builder
	writeDrift(colours(&b), "m", resp)
	if got := b.String(); !strings.Contains(got, "\n\nv2 against v1: not known") || strings.Contains(got, "v3 against") {
		t.Errorf("output:\n%s", got)
	}
}

// TestUnevenReferencesAreSaidToBe: nobody would see otherwise why a large PSI is no drift.
func TestUnevenReferencesAreSaidToBe(t *testing.T) {
	resp := &adminv1.GetDriftResponse{Versions: []*adminv1.VersionDrift{{Version: "v1", Effect: 0.2, Features: []*adminv1.FeatureDrift{
		{Feature: "even", State: "ok", Effect: 0.2}, {Feature: "uneven", State: "ok", Effect: 0.731, Rates: []*adminv1.DriftRate{{Kind: "absent", Count: 9, Rows: 9}}},
	}}}}
	var b strings.Builder
	writeDrift(colours(&b), "m", resp)
	if got := b.String(); !strings.Contains(got, "uneven: 0.73 and more matter, not 0.2") || strings.Contains(got, "\neven: ") || !strings.Contains(got, "absent 100 %") {
		t.Errorf("output:\n%s", got)
	}
}

// TestWholeRowsHaveTheirOwnShift: MMD stands where others have Wasserstein's distance, and there is no PSI.
func TestWholeRowsHaveTheirOwnShift(t *testing.T) {
	p := 1e-6
	resp := &adminv1.GetDriftResponse{Versions: []*adminv1.VersionDrift{{Version: "v1", Features: []*adminv1.FeatureDrift{
		{Feature: "x.embedding", State: "drift", Values: 900, Mmd: &adminv1.DriftStatistic{Value: 0.31}, Adjusted: &p},
		{Feature: "x.mean", State: "ok", Values: 900, Psi: &adminv1.DriftStatistic{Value: 0.01}, Wasserstein: &adminv1.DriftStatistic{Value: 0.02}},
	}}}}
	var b strings.Builder
	writeDrift(colours(&b), "m", resp)
	for _, row := range []string{`x\.embedding +drift +900 +- +1e-06 +0\.31 +- +-`, `x\.mean +ok +900 +0\.010 +- +0\.02`} {
		if !regexp.MustCompile("(?m)^" + row).MatchString(b.String()) {
			t.Errorf("no line like %q in:\n%s", row, b.String())
		}
	}
}

// TestContrastsAreSaidInWords: one line for each verdict, which tells it from all others.
func TestContrastsAreSaidInWords(t *testing.T) {
	unlike := []*adminv1.UnlikeFeature{{Feature: "output.y", Psi: 0.41}}
	if got, want := someOf([]string{"a", "b", "c", "d", "e"}), "a, b, c and 2 more"; got != want {
		t.Errorf("of many: %q, want %q", got, want)
	}
	for verdict, want := range map[string]string{
		"unmoved":                       "nothing has moved in both, and they answer alike",
		"world moved":                   "the world has moved, for both in age; they answer alike",
		"models differ":                 "the models differ: asked alike, they answer differently in output.y (PSI 0.41)",
		"world moved and models differ": "the world has moved, for both in age, and the models differ, in output.y (PSI 0.41)",
		"traffic differs":               "they are asked different things, in output.y (PSI 0.41), so their answers say nothing about the models",
		"unknown":                       "not known: no window of both has values enough",
	} {
		c := &adminv1.DriftContrast{Base: "v1", Other: "v2", Verdict: verdict, Moved: []string{"age"}, Unlike: unlike}
		var b strings.Builder
		fmt.Fprint(colours(&b), contrastText(c))
		if b.String() != want {
			t.Errorf("%s: %q, want %q", verdict, b.String(), want)
		}
	}
}
