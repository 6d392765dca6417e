package h2load

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The files in testdata are what h2load 1.52.0 wrote.
func TestParseReadsRealReports(t *testing.T) {
	for _, test := range []struct {
		file    string
		want    Result
		problem string // in the error of Check; empty if all is well
	}{
		{
			file: "ok.txt",
			want: Result{
				Elapsed: 421420 * time.Microsecond, PerSecond: 47459.16, MeanLatency: 591 * time.Microsecond,
				Total: 20000, Succeeded: 20000, Status2xx: 20000, DataBytes: 8200000,
			},
		},
		{
			file: "slow.txt",
			want: Result{
				Elapsed: 575120 * time.Microsecond, PerSecond: 17387.65, MeanLatency: 186040 * time.Microsecond,
				Total: 10000, Succeeded: 10000, Status2xx: 10000, DataBytes: 4100000,
			},
		},
		{
			file: "backend-died.txt",
			want: Result{
				Elapsed: 405750 * time.Microsecond, PerSecond: 49296.61, MeanLatency: 6750 * time.Microsecond,
				Total: 100000, Succeeded: 20002, Failed: 79998, Errored: 79998, Status2xx: 20002, DataBytes: 8200820,
			},
			problem: "20002 of 100000 requests succeeded, 79998 failed, 79998 errored, 0 timed out",
		},
		{
			file: "unavailable.txt",
			want: Result{
				Elapsed: 74150 * time.Microsecond, PerSecond: 53947.62, MeanLatency: 565 * time.Microsecond,
				Total: 4000, Failed: 4000, DataBytes: 788000,
			},
			problem: "0 of 4000 requests succeeded, 4000 failed",
		},
		{
			file: "refused.txt",
			want: Result{
				Elapsed: 0, Total: 100, Failed: 100, Errored: 100,
			},
			problem: "0 of 100 requests succeeded",
		},
	} {
		t.Run(test.file, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + test.file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if test.want.Elapsed == 0 {
				test.want.Elapsed = got.Elapsed // how long nothing took is of no interest
			}
			if got != test.want {
				t.Errorf("Parse = %+v\nwant    %+v", got, test.want)
			}
			err = got.Check(test.want.Total, 410*test.want.Total)
			if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Errorf("Check = %v, want %q", err, test.problem)
			}
		})
	}
}

func TestCheckNoticesWhatStatusCodesDoNotShow(t *testing.T) {
	good := Result{Total: 100, Succeeded: 100, Status2xx: 100, DataBytes: 41000}
	if err := good.Check(100, 41000); err != nil {
		t.Fatalf("Check of a good result = %v", err)
	}
	for name, spoil := range map[string]func(*Result){
		"an answer without its message": func(r *Result) { r.DataBytes -= 410 },
		"a redirect":                    func(r *Result) { r.Status2xx-- },
		"a request too few":             func(r *Result) { r.Total--; r.Succeeded--; r.Status2xx-- },
		"a request that timed out":      func(r *Result) { r.TimedOut++ },
	} {
		bad := good
		spoil(&bad)
		if err := bad.Check(100, 41000); err == nil {
			t.Errorf("%s: Check = nil, want an error", name)
		}
	}
}

func TestParseNamesTheMissingLine(t *testing.T) {
	text, err := os.ReadFile("testdata/ok.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"finished in", "requests", "status codes", "traffic", "time for request"} {
		var without strings.Builder
		for l := range strings.Lines(string(text)) {
			if !strings.HasPrefix(l, line) {
				without.WriteString(l)
			}
		}
		if _, err := Parse(without.String()); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("Parse without %q = %v, want an error that names it", line, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{"ok.txt", "backend-died.txt", "refused.txt"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		result, err := Parse(text)
		if err != nil && result != (Result{}) {
			t.Errorf("Parse returned %+v beside the error %v", result, err)
		}
	})
}
