package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// What labels say, as people see it: both windows of a version, the classes, how the versions compare, and the alarms.
func TestLabelsAreWrittenForPeople(t *testing.T) {
	from := time.Now().Truncate(time.Hour)
	number := func(v float64) *float64 { return &v }
	window := func(n, errors uint64, accuracy float64, delay time.Duration) *adminv1.LabelWindow {
		return &adminv1.LabelWindow{
			From: timestamppb.New(from), To: timestamppb.New(from.Add(24 * time.Hour)), Labels: n, Errors: errors, Accuracy: &accuracy, MedianDelay: durationpb.New(delay),
		}
	}
	v7 := &adminv1.VersionLabels{
		Version: "v7", Current: window(1000, 100, 0.9, 3*time.Hour+10*time.Second), Last: window(2000, 150, 0.925, 1500*time.Millisecond),
		Predictions: 4000, Labelled: 3000, Baseline: number(0.125),
	}
	v7.Current.Classes = []*adminv1.ClassScore{{Class: "honest", Labels: 990, F1: number(0.9375)}, {Class: "fraud", Labels: 10}}
	resp := &adminv1.GetLabelsResponse{
		Versions: []*adminv1.VersionLabels{
			v7,
			{Version: "v8", Current: window(300, 270, 0.1, 40*time.Second), Predictions: 300, Labelled: 300, Learnt: 300, ToLearn: 1000},
			{Version: "v9", Current: &adminv1.LabelWindow{From: timestamppb.New(from)}},
		},
		Comparisons: []*adminv1.LabelComparison{
			{Version: "v8", With: "v7", Difference: 0.8, Low: number(0.7125), High: number(0.8875), Verdict: "worse"},
			{Version: "v9", With: "v7", Difference: 0.1, Verdict: "undecided"},
		},
		Alarms: []*adminv1.LabelAlarm{{Time: timestamppb.New(from), Version: "v8", Detector: "esr", Text: "270 of 300 labels in this window are errors"}},
	}
	var out strings.Builder
	writeLabels(&out, "fraud", resp)
	var got []string
	for line := range strings.Lines(ansi.Strip(out.String())) {
		line = strings.ReplaceAll(line, moment(timestamppb.New(from)), "FROM")
		line = strings.ReplaceAll(line, moment(timestamppb.New(from.Add(24*time.Hour))), "TO")
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := `VERSION WINDOW LABELS COVERAGE DELAY ERRORS USUAL ACCURACY
v7 since FROM 1000 75 % 3h0m 10 % 12.5 % 0.9
until TO 2000 1.5s 7.5 % 0.925
v8 since FROM 300 100 % 40s 90 % 300 of 1000 0.1
v9 since FROM 0 - - - - -

VERSION CLASS LABELS F1
v7 honest 990 0.938
fraud 10 -

COMPARED WITH DIFFERENCE 95 % INTERVAL VERDICT
v8 v7 +0.8000 +0.7125 to +0.8875 worse
v9 v7 +0.1000 too few labels undecided

RAISED VERSION DETECTOR
FROM v8 esr 270 of 300 labels in this window are errors`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// A row of a batch is read from files of either kind; where none is said, none is sent.
func TestRowsAreReadFromFilesOfLabels(t *testing.T) {
	var got []string
	for _, l := range readCSVLabels(strings.NewReader("prediction_id,row,class\nx,2,a\nx,,a\n")) {
		got = append(got, fmt.Sprint(l.label.Row != nil, l.label.GetRow(), l.err))
	}
	for _, l := range readJSONLabels(strings.NewReader(`{"prediction_id": "x", "row": 0, "class": "a"}` + "\n" + `{"prediction_id": "x", "class": "a"}`)) {
		got = append(got, fmt.Sprint(l.label.Row != nil, l.label.GetRow(), l.err))
	}
	if want := []string{"true 2 <nil>", "false 0 <nil>", "true 0 <nil>", "false 0 <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
