package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	fourByEight = scenario{Size: 4096, Connections: 4, Streams: 8}
	tenWide     = scenario{Size: 4096, Connections: 10, Streams: 100}
	thousand    = scenario{Size: 4096, Connections: 1000, Streams: 1}
)

// threePeers are three rounds: sluice, nginx at twice the CPU time and a third of the rate,
// and direct, which has no proxy to charge. The second round finds a machine half as fast.
func threePeers() *samples {
	s := &samples{have: make(map[key]bool)}
	s.keep(record{Session: &session{
		Machine: machine{CPU: "Test", Cores: 2, Kernel: "6", Go: "go1", Generator: "its own generator", LoadBefore: "0.1"},
		Peers:   []peerVersion{{"sluice", "1"}, {"nginx", "2"}, {"direct", "-"}},
		Skipped: []skippedPeer{{"nghttpx", "nghttpx: not installed"}},
		Seconds: 3, Seed: 7, Scenarios: []scenario{fourByEight, tenWide, thousand},
	}})
	series := func(sc scenario, k kind, peer string, cpu, rate, p50 float64) {
		for round, slow := range []float64{1, 2, 1} {
			s.keep(record{Sample: &sample{
				Scenario: sc, Kind: k, Peer: peer, Round: round, Calls: 10_000,
				CPUMicros: cpu * slow, PerSecond: rate / slow, P50: p50 * slow, P99: 2 * p50 * slow, P999: 3 * p50 * slow,
				GeneratorMicros: 2.5 * slow,
			}})
		}
	}
	series(fourByEight, saturated, "sluice", 10, 30000, 500)
	series(fourByEight, saturated, "nginx", 20, 10000, 900)
	series(fourByEight, saturated, "direct", 0, 60000, 200)
	series(fourByEight, half, "sluice", 12, 5000, 300)
	series(fourByEight, half, "nginx", 24, 5000, 400)
	series(fourByEight, half, "direct", 0, 5000, 100)
	series(tenWide, saturated, "sluice", 10, 30000, 500)
	series(thousand, saturated, "sluice", 15, 30000, 500)
	for i := range s.all {
		if s.all[i].Kind == half {
			s.all[i].Rate = 5000
			s.all[i].Waited, s.all[i].LagP50 = 0.25, 50
		}
	}
	return s
}

func TestEveryRatioIsOfItsOwnFigure(t *testing.T) {
	r, err := newReport(threePeers(), "sluice")
	if err != nil {
		t.Fatal(err)
	}
	nginx, direct := r.Scenarios[0].Rows[1], r.Scenarios[0].Rows[2]
	for name, test := range map[string]struct{ got, low, high, want float64 }{
		"CPU":       {nginx.CPU.Median, nginx.CPU.Low, nginx.CPU.High, 20},
		"CPU ratio": {nginx.CPURatio.Median, nginx.CPURatio.Low, nginx.CPURatio.High, 0.5},
		"rate":      {nginx.RateRatio.Median, nginx.RateRatio.Low, nginx.RateRatio.High, 3},
		"half CPU":  {nginx.HalfCPURatio.Median, nginx.HalfCPURatio.Low, nginx.HalfCPURatio.High, 0.5},
		"p50":       {nginx.P50Ratio.Median, nginx.P50Ratio.Low, nginx.P50Ratio.High, 0.75},
		"p99":       {nginx.P99Ratio.Median, nginx.P99Ratio.Low, nginx.P99Ratio.High, 0.75},
	} {
		if test.got != test.want {
			t.Errorf("%s: %g, want %g", name, test.got, test.want)
		}
		if name != "CPU" && (test.low != test.want || test.high != test.want) {
			t.Errorf("%s: %g to %g, want %g in every round", name, test.low, test.high, test.want)
		}
	}
	if direct.CPU != nil || direct.CPURatio != nil || direct.RateRatio.Median != 0.5 {
		t.Errorf("direct = %+v, want no CPU time and a rate ratio of 0.5", direct)
	}
	if len(r.Growth) != 1 || r.Growth[0].Peer != "sluice" || r.Growth[0].Ratio.Median != 1.5 {
		t.Errorf("growth = %+v, want 1.5 of sluice from 10 to 1000 connections", r.Growth)
	}
	if len(r.Warnings) != 0 {
		t.Errorf("warnings = %q, want none", r.Warnings)
	}
}

// Scenarios tell of growth if they have as many calls open on each connection or in all.
func TestWhichScenariosTellOfGrowth(t *testing.T) {
	s := &samples{have: make(map[key]bool)}
	for i, name := range []string{"4KiB:10x1", "4KiB:10x100", "4KiB:1000x1", "4KiB:20x50:tls", "64KiB:1000x100", "4KiB:4x8"} {
		sc, ok := parseScenario(name)
		if !ok {
			t.Fatal(name)
		}
		s.keep(record{Sample: &sample{Scenario: sc, Peer: "sluice", Kind: saturated, Calls: 1, CPUMicros: float64(10 * (i + 1))}})
	}
	got := map[string]float64{}
	for _, g := range growths(s, []peerVersion{{Name: "sluice"}}) {
		got[g.Between] = g.Ratio.Median
	}
	want := map[string]float64{"4KiB:10x1 and 4KiB:1000x1": 3, "4KiB:10x100 and 4KiB:1000x1": 1.5}
	if !maps.Equal(got, want) {
		t.Errorf("growth = %v, want %v", got, want)
	}
}

func TestOnlyRoundsThatBothHaveAreCompared(t *testing.T) {
	s := threePeers()
	s.all = slices.DeleteFunc(s.all, func(one sample) bool { return one.Peer == "nginx" && one.Round == 0 })
	r, err := newReport(s, "sluice")
	if err != nil {
		t.Fatal(err)
	}
	if nginx := r.Scenarios[0].Rows[1]; nginx.CPURatio.N != 2 || nginx.CPURatio.Min != 0.5 || nginx.CPURatio.Max != 0.5 {
		t.Errorf("CPU ratio = %+v, want 0.5 in the two rounds that are whole", nginx.CPURatio)
	}
}

func TestWithoutTheReferenceThereAreNoRatios(t *testing.T) {
	r, err := newReport(threePeers(), "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Scenarios[0].Rows {
		if row.CPURatio != nil || row.RateRatio != nil || row.P50Ratio != nil {
			t.Errorf("%s has ratios", row.Peer)
		}
	}
}

func TestAnInvalidSampleFailsTheRunAndShowsNoFigures(t *testing.T) {
	s := threePeers()
	i := slices.IndexFunc(s.all, func(one sample) bool { return one.Peer == "nginx" && one.Round == 1 })
	s.all[i].Invalid = "the backend saw 0 calls"
	r, err := newReport(s, "sluice")
	if err == nil || !strings.Contains(err.Error(), "1 of 24 measurements are invalid") {
		t.Errorf("newReport = %v, want one invalid measurement of 24", err)
	}
	if nginx := r.Scenarios[0].Rows[1]; nginx.CPU != nil || nginx.PerSecond != nil || nginx.RateRatio != nil || nginx.P50 != nil {
		t.Errorf("nginx has figures: %+v", nginx)
	}
	for format, want := range map[string]string{"table": "nginx             INVALID: the backend saw 0 calls", "markdown": "| invalid |"} {
		var text bytes.Buffer
		if err := r.write(&text, format); err != nil || !strings.Contains(text.String(), want) {
			t.Errorf("%s, %v: no %q in\n%s", format, err, want, &text)
		}
	}
}

func TestBusyStrangersAreWarnedOf(t *testing.T) {
	s := threePeers()
	s.all[0].OtherCores = 0.5
	r, err := newReport(s, "sluice")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "in 1 of 24 measurements") {
		t.Errorf("warnings = %q, want one that counts one measurement of 24", r.Warnings)
	}
}

func TestTable(t *testing.T) {
	s := threePeers()
	s.all[0].OtherCores = 0.5
	r, err := newReport(s, "sluice")
	if err != nil {
		t.Fatal(err)
	}
	r.Warnings = []string{"figures are made up"}
	r.Scenarios = r.Scenarios[:1]
	var got bytes.Buffer
	if err := r.write(&got, "table"); err != nil {
		t.Fatal(err)
	}
	const want = `2 cores (Test), Linux 6, go1, load by its own generator, load average 0.1 before
  sluice: 1
  nginx: 2
  direct: -
  nghttpx: skipped, nghttpx: not installed
  one worker each, Go's programs by default; order of the scenarios and peers drawn by seed 7
medians (and their bounds) over the rounds; ratios are sluice / peer, round by round
bounds enclose the true median with at least 95 % probability; of fewer than six rounds they are the range
-: not measured; p99 and p99.9 also where fewer than ten calls of a measurement lie beyond them

4 KiB requests, 4 connections x 8 streams
  all streams busy  CPU us/call       calls/s              CPU ratio         calls/s ratio     generator us      noisy
  sluice            10.0 (10.0-20.0)  30000 (15000-30000)  -                 -                 2.5               1 of 3
  nginx             20.0 (20.0-40.0)  10000 (5000-10000)   0.50 (0.50-0.50)  3.00 (3.00-3.00)  2.5               0 of 3
  direct            -                 60000 (30000-60000)  -                 0.50 (0.50-0.50)  2.5               0 of 3
  at 5000 calls/s   CPU us/call       p50 us               p99 us            p99.9 us          CPU ratio         p50 ratio         calls  waited  late us  generator us  noisy
  sluice            12.0 (12.0-24.0)  300 (300-600)        600 (600-1200)    900 (900-1800)    -                 -                 10000  25 %    50       2.5           0 of 3
  nginx             24.0 (24.0-48.0)  400 (400-800)        800 (800-1600)    1200 (1200-2400)  0.50 (0.50-0.50)  0.75 (0.75-0.75)  10000  25 %    50       2.5           0 of 3
  direct            -                 100 (100-200)        200 (200-400)     300 (300-600)     -                 3.00 (3.00-3.00)  10000  25 %    50       2.5           0 of 3

growth of CPU per call with the number of connections
  4KiB:10x100 to 4KiB:1000x1  sluice       1.50 (1.50-1.50)

warning: figures are made up
`
	if got.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", &got, want)
	}
}

func TestMarkdown(t *testing.T) {
	r, err := newReport(threePeers(), "sluice")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.write(&got, "markdown"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"The bounds enclose the true median with at least 95 % probability; of fewer than six rounds they are the range.\n",
		"A cell is empty where nothing was measured; p99 and p99.9 also where fewer than ten calls of a measurement lie beyond them.\n",
		"### CPU us per call, all streams busy\n\n| | sluice | nginx | direct |\n| --- | --- | --- | --- |\n" +
			"| 4 KiB, 4 x 8 | 10.0 | 20.0 (0.50, 0.50-0.50) |  |\n| 4 KiB, 10 x 100 | 10.0 |  |  |\n",
		"### p99.9 us at that rate\n\n| | sluice | nginx | direct |\n| --- | --- | --- | --- |\n| 4 KiB, 4 x 8 | 900 | 1200 | 300 |\n",
		"| 4 KiB, 4 x 8 | 10000 | 10000 | 10000 |\n",
		"| 4 KiB, 4 x 8 | 25 %, 50 | 25 %, 50 | 25 %, 50 |\n",
		"| 4 KiB, 4 x 8 | 2.5, 2.5 | 2.5, 2.5 | 2.5, 2.5 |\n| 4 KiB, 10 x 100 | 2.5 |  |  |\n",
		"| 4 KiB, 4 x 8 | 0 of 6 | 0 of 6 | 0 of 6 |\n| 4 KiB, 10 x 100 | 0 of 3 |  |  |\n",
		"| 4 KiB, 10 x 100 to 4 KiB, 1000 x 1 | sluice | 1.50 (1.50-1.50) |\n",
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("no\n%s\nin\n%s", want, &got)
		}
	}
}

// A quantile that one measurement was too short for is not that of the others.
func TestAQuantileThatIsMissingInARoundIsNotReported(t *testing.T) {
	s := threePeers()
	for i := range s.all {
		if s.all[i].Peer == "nginx" && s.all[i].Kind == half && s.all[i].Round == 1 {
			s.all[i].Calls, s.all[i].P999 = 5000, 0
		}
	}
	r, err := newReport(s, "sluice")
	if err != nil {
		t.Fatal(err)
	}
	sluice, nginx := r.Scenarios[0].Rows[0], r.Scenarios[0].Rows[1]
	if nginx.P999 != nil || nginx.P99 == nil || nginx.HalfBeside.Calls != 5000 || sluice.P999 == nil {
		t.Errorf("nginx = %+v, want p99 alone, and 5000 calls; sluice = %+v, want both", nginx, sluice)
	}
	text, err := json.Marshal(nginx)
	if err != nil || bytes.Contains(text, []byte("half_p99_9_us")) || !bytes.Contains(text, []byte("half_p99_us")) {
		t.Errorf("nginx = %s, %v, want p99 and no p99.9", text, err)
	}
}

func TestChartHasABarPerPeerAndScenario(t *testing.T) {
	r, err := newReport(threePeers(), "sluice")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.write(&got, "svg"); err != nil {
		t.Fatal(err)
	}
	bars, text := 0, ""
	for d := xml.NewDecoder(&got); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			text += string(e)
		}
	}
	if bars != 4 || !strings.Contains(text, "20.0 us (ratio 0.50)") || strings.Contains(text, "direct") || strings.Count(text, "Shorter is better") != 2 {
		t.Errorf("%d bars, want sluice and nginx, sluice, sluice, and what they are in the title and the picture; texts:\n%s", bars, text)
	}
}

func TestJSONHoldsEverySample(t *testing.T) {
	r, err := newReport(threePeers(), "sluice")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := r.write(&text, "json"); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Samples) != 24 || got.Scenarios[0].scenario != fourByEight || got.Scenarios[0].Rows[1].CPU.Median != 20 || got.Growth[0].Ratio.Median != 1.5 {
		t.Errorf("the report came back as %+v", got)
	}
}

func TestSamplesOutliveTheRun(t *testing.T) {
	name := filepath.Join(t.TempDir(), "samples.jsonl")
	first, err := openSamples(name)
	if err != nil {
		t.Fatal(err)
	}
	made := threePeers()
	if err := first.begin(made.sessions[0]); err != nil {
		t.Fatal(err)
	}
	for i := range made.all {
		if err := first.add(record{Sample: &made.all[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.end("0.7"), first.close()); err != nil {
		t.Fatal(err)
	}

	second, err := openSamples(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.close(); err != nil {
			t.Error(err)
		}
	})
	if !slices.Equal(second.all, made.all) || !second.have[key{fourByEight, half, "nginx", 2}] || second.have[key{fourByEight, half, "nginx", 3}] {
		t.Errorf("%d samples came back, want the %d of before", len(second.all), len(made.all))
	}
	if got := second.sessions[0].Machine.LoadAfter; len(second.sessions) != 1 || got != "0.7" {
		t.Errorf("load after the session = %q, want 0.7", got)
	}
	if rate := halfRate(second, fourByEight); rate != 5000 {
		t.Errorf("half rate = %g, want that of the samples there are", rate)
	}
	if err := second.begin(made.sessions[0]); err != nil {
		t.Errorf("the same peers again: %v", err)
	}
	other := made.sessions[0]
	other.Peers = []peerVersion{{"sluice", "2"}}
	if err := second.begin(other); err == nil || !strings.Contains(err.Error(), `figures of sluice "1", this is "2"`) {
		t.Errorf("another build of sluice: %v, want an error that names both", err)
	}
}

func TestFiguresOfDifferentNumbersOfWorkersAreNotMixed(t *testing.T) {
	made := threePeers()
	name := filepath.Join(t.TempDir(), "samples.jsonl")
	write := func(workers int) {
		t.Helper()
		s, err := openSamples(name)
		if err != nil {
			t.Fatal(err)
		}
		now, one := made.sessions[0], made.all[0]
		now.Workers, one.Workers = workers, workers
		// As if by hand, past begin.
		if err := errors.Join(s.add(record{Session: &now}), s.add(record{Sample: &one}), s.close()); err != nil {
			t.Fatal(err)
		}
	}
	write(2)
	s, err := openSamples(name)
	if err != nil {
		t.Fatal(err)
	}
	now := made.sessions[0]
	if err := s.begin(now); err == nil || !strings.Contains(err.Error(), "figures with 2 workers each") {
		t.Errorf("a session with one worker after one with two: %v, want an error", err)
	}
	now.Workers = 2
	if err := errors.Join(s.begin(now), s.close()); err != nil {
		t.Errorf("a session with two workers after one with two: %v", err)
	}
	write(1)
	if _, err := openSamples(name); err == nil || !strings.Contains(err.Error(), "cannot be mixed") {
		t.Errorf("a file that holds both: %v, want an error", err)
	}
}

func TestFiguresOfOtherTermsAreNotMixed(t *testing.T) {
	for want, change := range map[string]func(*session){
		`with -seconds 3 cannot be mixed with those with -seconds 0.5`: func(s *session) { s.Seconds = 0.5 },
		`with -sluice-env ["GOGC=50"]`:                                 func(s *session) { s.SluiceEnv = []string{"GOGC=50"} },
		`with -sluice-routes "routes: []"`:                             func(s *session) { s.Routes = "routes: []" },
		`with load by h2load 1`:                                        func(s *session) { s.Machine.Generator = "h2load 1" },
		``:                                                             func(s *session) { s.Seed, s.Machine.LoadBefore = 8, "9.9" },
	} {
		s := threePeers()
		now := s.sessions[0]
		change(&now)
		err := s.begin(now)
		if want == "" {
			if err != nil {
				t.Errorf("a session of another order: %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "use another file") {
			t.Errorf("begin = %v, want an error with %q", err, want)
		}
	}
}

func TestHalfRateIsOfTheSlowestProxy(t *testing.T) {
	s := threePeers()
	s.all = slices.DeleteFunc(s.all, func(one sample) bool { return one.Kind == half })
	for i := range s.all {
		if s.all[i].Peer == "direct" {
			s.all[i].PerSecond = 1 // a bound, and no proxy
		}
	}
	if rate := halfRate(s, fourByEight); rate != 5000 {
		t.Errorf("half rate = %g, want half of nginx's 10000", rate)
	}
	if rate := halfRate(s, scenario{Size: 1}); rate != 0 {
		t.Errorf("half rate of nothing = %g", rate)
	}
}

// written keeps samples in a file, compressed if its name says so, as somebody publishes them.
func written(t *testing.T, made *samples, base string) string {
	t.Helper()
	var text bytes.Buffer
	var to io.Writer = &text
	end := func() error { return nil }
	if strings.HasSuffix(base, ".gz") {
		compressed := gzip.NewWriter(&text)
		to, end = compressed, compressed.Close
	}
	encoder := json.NewEncoder(to)
	err := encoder.Encode(record{Session: &made.sessions[0]})
	for i := range made.all {
		err = errors.Join(err, encoder.Encode(record{Sample: &made.all[i]}))
	}
	name := filepath.Join(t.TempDir(), base)
	if err := errors.Join(err, end()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Whoever has the published samples can make every table and the chart again.
func TestAFileShowsTheScenariosThatAreAskedForInTheirOrder(t *testing.T) {
	for _, base := range []string{"samples.jsonl", "samples.jsonl.gz"} {
		file := written(t, threePeers(), base)
		for _, test := range []struct{ arguments, want string }{
			{"", "4KiB:4x8,4KiB:10x100,4KiB:1000x1"},
			{" -scenarios 4KiB:1000x1,4KiB:4x8", "4KiB:1000x1,4KiB:4x8"},
			{" -scenarios 4KiB:4x8 -reference nginx", "4KiB:4x8"},
		} {
			stdout, _, err := runIn(t.Context(), t, "-o json -from "+file+test.arguments)
			if err != nil {
				t.Fatalf("%s%s: %v", base, test.arguments, err)
			}
			var got report
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range got.Scenarios {
				names = append(names, s.Name)
			}
			if strings.Join(names, ",") != test.want {
				t.Errorf("%s%s shows %q, want %s", base, test.arguments, names, test.want)
			}
		}
		chart, _, err := runIn(t.Context(), t, "-o svg -scenarios 4KiB:1000x1 -from "+file)
		if err != nil || strings.Count(chart, "<rect") != 1 {
			t.Errorf("%s: a chart of one scenario, %v:\n%s\nwant one bar", base, err, chart)
		}
	}
}

func TestAFileWithoutWhatIsAskedForIsWrongUsage(t *testing.T) {
	made := threePeers()
	made.sessions[0].Peers = append(made.sessions[0].Peers, peerVersion{"envoy", "3"}) // whose turn never came
	file := written(t, made, "samples.jsonl")
	for arguments, want := range map[string]string{
		"-reference xyz":                          `-reference: got "xyz", which has no samples, want one of sluice,nginx,direct`,
		"-reference envoy":                        `-reference: got "envoy", which has no samples, want one of sluice,nginx,direct`,
		"-reference nginx -scenarios 4KiB:1000x1": `-reference: got "nginx", which has no samples, want one of sluice`,
		"-scenarios 64KiB:4x8":                    "-scenarios: got 64KiB:4x8, which has no samples, want some of 4KiB:4x8,4KiB:10x100,4KiB:1000x1",
	} {
		stdout, _, err := runIn(t.Context(), t, arguments+" -from "+file)
		if exitCode(err) != 2 || err == nil || !strings.Contains(err.Error(), want) || stdout != "" {
			t.Errorf("%s: %v, exit code %d, and %d bytes of a report, want code 2 and %q", arguments, err, exitCode(err), len(stdout), want)
		}
	}
}

// Files from before scenarios were drawn, too, do not say that they were.
func TestAFixedOrderIsNotCalledDrawn(t *testing.T) {
	made := threePeers()
	made.sessions[0].Scenarios = nil
	stdout, _, err := runIn(t.Context(), t, "-from "+written(t, made, "samples.jsonl"))
	if err != nil || !strings.Contains(stdout, "; order of the peers drawn by seed 7\n") {
		t.Errorf("report of an old file, %v:\n%s", err, stdout)
	}
}
