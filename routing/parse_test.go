package routing

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the messages in testdata anew")

// TestBadDocumentsSayWhatIsWrong compares the message of every bad document
// with the one beside it.
func TestBadDocumentsSayWhatIsWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v, want documents", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			doc, err := Parse(filepath.Base(file), readTestFile(t, file))
			if err == nil {
				t.Fatalf("Parse = %v, want an error", doc)
			}
			got, golden := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(readTestFile(t, golden)); got != want {
				t.Errorf("Parse says\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestProblemsAreFieldErrors pins what callers may take apart.
func TestProblemsAreFieldErrors(t *testing.T) {
	_, err := Parse("routes.yaml", readTestFile(t, "testdata/weights.bad.yaml"))
	var got *FieldError
	if !errors.As(err, &got) {
		t.Fatalf("Parse = %v, want a FieldError", err)
	}
	want := FieldError{
		File: "routes.yaml", Line: 6, Field: "routes[0].weights.v9",
		Got: `"v9"`, Want: "one of the route's versions (v7, v8)",
	}
	if *got != want {
		t.Errorf("first problem = %#v, want %#v", *got, want)
	}
}

func TestRichDocument(t *testing.T) {
	table := mustParse(t, readTestFile(t, "testdata/rich.good.yaml"))
	r, ok := table.Route("team/fraud@prod")
	if !ok {
		t.Fatal("the route is missing")
	}
	byService, _ := table.RouteForService("shop.Checkout")
	if byService != r {
		t.Errorf("RouteForService = %v, want the route", byService)
	}
	ten := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	slow := Fault{Share: 0.025, Delay: 200 * time.Millisecond, From: ten, Until: ten.Add(time.Minute)}
	dead := Fault{Share: 1, Code: 14, From: ten.Add(500 * time.Millisecond), Until: ten.Add(time.Hour + 500*time.Millisecond)}
	wantVersions := []*Version{{
		ID: "team/fraud@prod v7", Model: "team/fraud@prod", Name: "v7",
		Endpoints:  []string{"10.0.0.7:8001", "[2001:db8::7]:8001", "dns:///fraud_v7.prod.svc.cluster.local.:8001"},
		Server:     "tfserving",
		Rename:     Rename{Model: "fraud_xgb", Version: "7"},
		Provenance: Provenance{Artifact: "models/fraud@7", Data: "dvc:3fa91c"},
		TLS:        &TLS{CAFile: "ca.pem", ServerName: "fraud.internal", CertFile: "cert.pem", KeyFile: "key.pem"},
		Weight:     95, AllowForce: true, TrustUpstream: true,
		Faults: []Fault{slow, dead}, CutOff: CutOff{Endpoints: []string{"10.0.0.7:8001"}},
	}, {
		ID: "team/fraud@prod 8.1", Model: "team/fraud@prod", Name: "8.1",
		Endpoints: []string{"localhost:8001"}, Server: "generic", TLS: &TLS{}, Weight: 5, AllowForce: true,
		Faults: []Fault{dead},
	}, {
		ID: "team/fraud@prod v9", Model: "team/fraud@prod", Name: "v9",
		Endpoints: []string{"10.0.0.9:8001"}, Server: "generic",
		Faults: []Fault{dead}, CutOff: CutOff{Version: true},
	}}
	if !reflect.DeepEqual(r.Versions, wantVersions) {
		t.Errorf("Versions = %+v, want %+v", r.Versions, wantVersions)
	}
	if r.StickyMetadata != "x-user-id" || r.DefaultTimeout != 1500*time.Millisecond || r.MaxTimeout != 10*time.Minute ||
		!r.AllowManagement || !r.IgnoreModelVersion {
		t.Errorf("route = %+v, want what the document says", r)
	}
	if want := (Probing{Interval: 5 * time.Second, Timeout: 500 * time.Millisecond, FailAfter: 3, SlowStart: 30 * time.Second}); r.Health != want {
		t.Errorf("health = %+v, want %+v", r.Health, want)
	}
}

// TestSecondAttemptSettings reads those of the rich document, and what holds without.
func TestSecondAttemptSettings(t *testing.T) {
	type settings struct {
		reserve  time.Duration
		hedge    Hedge
		limits   Limits
		priority Priority
		forced   bool
	}
	of := func(r *Route) settings {
		return settings{r.FallbackReserve, r.Hedge, r.Limits, r.Priority, r.MayForceFallback("let it fall")}
	}
	rich, _ := mustParse(t, readTestFile(t, "testdata/rich.good.yaml")).Route("team/fraud@prod")
	want := settings{
		250 * time.Millisecond, Hedge{On: true, Delay: 50 * time.Millisecond},
		Limits{InFlight: 64, Reserve: 8, Adaptive: true}, Priority{Metadata: "x-priority", Default: "sheddable"}, true,
	}
	if got := of(rich); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	plain := "routes: [{model: m, versions: [{name: a, endpoints: ['h:1']}], weights: {a: 1}, %s}]"
	r, _ := mustParse(t, fmt.Appendf(nil, plain, "")).Route("m")
	if got, want := of(r), (settings{limits: Limits{InFlight: 1024}}); got != want {
		t.Errorf("without settings: got %+v, want %+v", got, want)
	}
	if r.MayForceFallback("") {
		t.Error("an empty token forces a fallback where the route lets nobody")
	}
	r, _ = mustParse(t, fmt.Appendf(nil, plain, "hedge: {}")).Route("m")
	if want := (Hedge{On: true}); r.Hedge != want {
		t.Errorf("hedge: {}: got %+v, want %+v", r.Hedge, want)
	}
}

// TestDriftSettings reads those of the rich document, and what holds without.
func TestDriftSettings(t *testing.T) {
	rich, _ := mustParse(t, readTestFile(t, "testdata/rich.good.yaml")).Route("team/fraud@prod")
	want := &Drift{
		PerSecond: 20, Window: 30 * time.Minute, ExpectedRun: 720 * time.Hour, Effect: 0.25,
		Columns:  map[string][]string{"x": {"age", "income"}},
		Payloads: &Payloads{PerSecond: 0.5, MaxBytes: 2048, Redact: []string{"age"}, Keep: []string{"output.*"}},
	}
	if !reflect.DeepEqual(rich.Drift, want) {
		t.Errorf("got %+v, want %+v", rich.Drift, want)
	}
	plain := "routes: [{model: m, versions: [{name: a, endpoints: ['h:1']}], weights: {a: 1}, %s}]"
	r, _ := mustParse(t, fmt.Appendf(nil, plain, "")).Route("m")
	if r.Drift != nil {
		t.Errorf("without drift: got %+v, want data to be nobody's business", r.Drift)
	}
	r, _ = mustParse(t, fmt.Appendf(nil, plain, "drift: {window: 10m}")).Route("m")
	want = &Drift{
		PerSecond: 50, Window: 10 * time.Minute, ExpectedRun: 120 * time.Hour, Effect: 0.2, Learn: 10_000,
		Columns: map[string][]string{},
	}
	if !reflect.DeepEqual(r.Drift, want) {
		t.Errorf("drift with a window alone: got %+v, want %+v", r.Drift, want)
	}
	r, _ = mustParse(t, fmt.Appendf(nil, plain, "drift: {payloads: {}}")).Route("m")
	if got, want := r.Drift.Payloads, (&Payloads{PerSecond: 1, MaxBytes: 64 << 10, Redact: []string{"*"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("payloads without settings: got %+v, want %+v, which writes no value", got, want)
	}
}

// TestHealthNeedsNoSettings wants the defaults by which a server that hangs is found within ten seconds, and keeps
// a zero that is written apart from one that is left out.
func TestHealthNeedsNoSettings(t *testing.T) {
	for text, want := range map[string]Probing{
		"":                         {Interval: 3 * time.Second, Timeout: 2 * time.Second, FailAfter: 2, SlowStart: 10 * time.Second},
		"health: {timeout: 1s}":    {Interval: 3 * time.Second, Timeout: time.Second, FailAfter: 2, SlowStart: 10 * time.Second},
		"health: {slow_start: 0s}": {Interval: 3 * time.Second, Timeout: 2 * time.Second, FailAfter: 2},
		"health: {off: true}":      {Off: true, Interval: 3 * time.Second, Timeout: 2 * time.Second, FailAfter: 2, SlowStart: 10 * time.Second},
	} {
		table := mustParse(t, []byte("routes:\n- model: m\n  versions: [{name: a, endpoints: ['h:1']}]\n  weights: {a: 1}\n  "+text+"\n"))
		if r, _ := table.Route("m"); r.Health != want {
			t.Errorf("%q: got %+v, want %+v", text, r.Health, want)
		}
	}
}

// TestDesignDocument takes the document from the design as it is written there.
func TestDesignDocument(t *testing.T) {
	table := mustParse(t, readTestFile(t, "testdata/design.good.yaml"))
	r, ok := table.Route("fraud")
	if !ok {
		t.Fatal("no route for fraud")
	}
	for name, want := range map[string]uint32{"v7": 95, "v8": 5, "v9": 0} {
		v, ok := r.Version(name)
		if !ok || v.Weight != want || v.Dark() != (want == 0) {
			t.Errorf("Version(%s) = %+v, %v, want weight %d", name, v, ok, want)
		}
	}
	if r.DefaultTimeout != 15*time.Second || r.MaxTimeout != 300*time.Second {
		t.Errorf("timeouts = %v, %v, want 15s, 300s", r.DefaultTimeout, r.MaxTimeout)
	}
	for _, s := range []string{"grpc.testing.TestService", "grpc.testing.UnimplementedService", "xds.service.orca.v3.OpenRcaService"} {
		if r, ok := table.RouteForService(s); !ok || r.Model != "interop" {
			t.Errorf("RouteForService(%s) = %v, %v, want interop", s, r, ok)
		}
	}
}

func readTestFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustParse(t testing.TB, data []byte) *Table {
	t.Helper()
	doc, err := Parse("routes.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Build(doc, 1)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestLabelSettings reads those of the rich document, and what holds without.
func TestLabelSettings(t *testing.T) {
	rich, _ := mustParse(t, readTestFile(t, "testdata/rich.good.yaml")).Route("team/fraud@prod")
	want := &Labels{
		Predicts: "class", Output: "probabilities", Classes: []string{"honest", "fraud"}, GoodFrom: 0.75, MaxAge: 720 * time.Hour,
		Window: time.Hour, Detector: "esr", ExpectedRun: 50_000, Learn: 500,
	}
	if !reflect.DeepEqual(rich.Labels, want) {
		t.Errorf("got %+v, want %+v", rich.Labels, want)
	}
	plain, _ := mustParse(t, []byte(`routes: [{model: m, versions: [{name: v1, endpoints: ["h:1"]}], weights: {v1: 1}, labels: {}}]`)).Route("m")
	want = &Labels{GoodFrom: 0.5, MaxAge: 168 * time.Hour, Window: 24 * time.Hour, Detector: "esr", ExpectedRun: 100_000, Learn: 1000}
	if !reflect.DeepEqual(plain.Labels, want) {
		t.Errorf("got %+v, want %+v", plain.Labels, want)
	}
}
