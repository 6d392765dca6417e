package demo

import (
	"bytes"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"

	"sluice/cmd/sluice/internal/block"
)

func exampleFrame() frame {
	return frame{
		progress: progress{elapsed: 2 * time.Second, split: stages[0], revision: 1},
		lines: []line{
			{cell: cell{stages[0], before}, calls: 360, share: 0.9, rate: 180, p50: 300 * time.Microsecond, p99: 2 * time.Millisecond, right: 0.814},
			{cell: cell{stages[0], after}, calls: 40, failed: 40, share: 0.1, rate: 20, right: math.NaN()},
		},
	}
}

func screenOn(out io.Writer, width int) *screen {
	return &screen{out: out, block: block.On(out, func() (int, int) { return width, 100 })}
}

func TestScreenRedrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	d := screenOn(&colorprofile.Writer{Forward: &out, Profile: colorprofile.ANSI}, 200)
	d.show(exampleFrame())
	if strings.Contains(out.String(), ansi.CursorUp(4)) {
		t.Error("the first frame moves the cursor up, over what is not its own")
	}
	height := strings.Count(out.String(), "\n")
	out.Reset()
	d.show(exampleFrame())
	if !strings.HasPrefix(out.String(), ansi.CursorUp(height)+ansi.EraseScreenBelow) {
		t.Errorf("second frame = %q, want it to go up %d lines and erase them", &out, height)
	}
	text := ansi.Strip(out.String())
	for _, want := range []string{
		"split v1=90 v2=10  revision 1, 2.0 s\n",
		"  VERSION  WEIGHT   SHARE  CALLS/S  CALLS  ERRORS      P50      P99  ACCURACY",
		"       v1    90 %  90.0 %      180    360       0  0.30 ms  2.00 ms    81.4 %",
		"       v2    10 %  10.0 %       20     40      40        -        -         -",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("frame lacks %q:\n%s", want, text)
		}
	}
}

func TestScreenNeverWraps(t *testing.T) {
	var out bytes.Buffer
	d := screenOn(&out, 30)
	d.show(exampleFrame())
	for _, row := range strings.Split(ansi.Strip(out.String()), "\n") {
		if len(row) > 30 {
			t.Errorf("row %q has %d columns, the terminal 30", row, len(row))
		}
	}
}

// TestSummaryFitsOrdinaryTerminals and is not cut where it does not fit.
func TestSummaryFitsOrdinaryTerminals(t *testing.T) {
	big := exampleFrame().lines
	big[0].calls, big[0].p99 = 999_999, 999*time.Millisecond
	r := result{elapsed: time.Hour, lines: big, calls: 1_000_039, failed: 40}
	var out bytes.Buffer
	d := screenOn(&out, 30)
	d.show(exampleFrame())
	out.Reset()
	d.conclude(r)
	if text := ansi.Strip(out.String()); text != summary(r) {
		t.Errorf("the screen shows\n%s\nof the summary\n%s", text, summary(r))
	}
	for _, row := range strings.Split(summary(r), "\n") {
		if len(row) > 80 {
			t.Errorf("row %q has %d columns", row, len(row))
		}
	}
	if !strings.HasPrefix(out.String(), ansi.CursorUp(4)+ansi.EraseScreenBelow) {
		t.Errorf("the summary does not replace the last frame: %q", &out)
	}
}

// TestScreenWithoutColour keeps moving the cursor, as NO_COLOR asks for no colour only.
func TestScreenWithoutColour(t *testing.T) {
	var out bytes.Buffer
	d := screenOn(&colorprofile.Writer{Forward: &out, Profile: colorprofile.ASCII}, 200)
	d.show(exampleFrame())
	d.show(exampleFrame())
	if strings.Contains(out.String(), "\x1b[36m") || strings.Contains(out.String(), "\x1b[1;36m") {
		t.Errorf("coloured without permission: %q", &out)
	}
	if !strings.Contains(out.String(), ansi.CursorUp(4)) {
		t.Errorf("the second frame is not drawn over the first: %q", &out)
	}
}

func TestPlainDisplayHasNoEscapeSequences(t *testing.T) {
	var out bytes.Buffer
	d := newDisplay(&out)
	d.show(exampleFrame())
	d.conclude(result{elapsed: 2 * time.Second, lines: exampleFrame().lines, calls: 400, failed: 40})
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("escape sequences in %q", &out)
	}
	for _, want := range []string{
		" 2.0 s  split v1=90 v2=10, revision 1: v1 180 calls/s, share 90.0 %, 0 errors, p50 0.30 ms, p99 2.00 ms, accuracy 81.4 %\n",
		"400 calls in 2.0 s, 40 failed\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
}
