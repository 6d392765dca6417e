package block

import (
	"fmt"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

// What is drawn fits the terminal, so that the next Draw finds where it began.
func TestBlocksFitTheTerminal(t *testing.T) {
	var out strings.Builder
	b := On(&out, func() (int, int) { return 10, 5 })
	b.Draw([]string{"a line that is too long", "two", "three", "four"})
	want := ansi.EraseScreenBelow + "a line tha\ntwo\nthree\nfour\n"
	if out.String() != want {
		t.Errorf("drawn %q, want %q", out.String(), want)
	}
	out.Reset()
	lines := make([]string, 30)
	for i := range lines {
		lines[i] = fmt.Sprint(i)
	}
	b.Draw(lines)
	want = ansi.CursorUp(4) + ansi.EraseScreenBelow + "0\n1\n2\n... 27 lin\n"
	if out.String() != want || lines[3] != "3" {
		t.Errorf("drawn %q, want %q", out.String(), want)
	}
	out.Reset()
	b.Replace("done\n")
	if want := ansi.CursorUp(4) + ansi.EraseScreenBelow + "done\n"; out.String() != want {
		t.Errorf("replaced by %q, want %q", out.String(), want)
	}
}
