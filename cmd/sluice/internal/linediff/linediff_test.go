package linediff_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/cmd/sluice/internal/linediff"
)

// shown draws a comparison: one character for what became of a line, then the line.
func shown(lines []linediff.Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(map[linediff.Op]string{linediff.Same: " ", linediff.Removed: "-", linediff.Added: "+", linediff.Skipped: "~"}[l.Op] + l.Text + " ")
	}
	return strings.TrimSuffix(b.String(), " ")
}

func TestOf(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{"a b c", "a b c", ""},
		{"", "a b", "+a +b"},
		{"a b", "", "-a -b"},
		{"a b c d e", "a b x d e", " b -c +x  d"},
		{"a b c d e f g h", "x b c d e f g y", "-a +x  b ~  g -h +y"},
		{"a b c", "c b a", "-a -b  c +b +a"},
		{"a a b", "a b", " a -a  b"},
	} {
		if got := shown(linediff.Of(strings.Fields(test.before), strings.Fields(test.after), 1)); got != test.want {
			t.Errorf("Of(%q, %q) = %q, want %q", test.before, test.after, got, test.want)
		}
	}
}

// TestBothTextsCanBeReadFromIt: what is removed and the same is the text before,
// what is added and the same the one after; and no shorter way leads there.
func TestBothTextsCanBeReadFromIt(t *testing.T) {
	text := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 12)
	rapid.Check(t, func(rt *rapid.T) {
		before, after := text.Draw(rt, "before"), text.Draw(rt, "after")
		var was, is []string
		same := 0
		for _, l := range linediff.Of(before, after, len(before)+len(after)) {
			if l.Op != linediff.Added {
				was = append(was, l.Text)
			}
			if l.Op != linediff.Removed {
				is = append(is, l.Text)
			}
			if l.Op == linediff.Same {
				same++
			}
		}
		if slices.Equal(before, after) {
			return // nothing is shown
		}
		if !slices.Equal(was, before) || !slices.Equal(is, after) {
			rt.Fatalf("from %v to %v: read %v and %v", before, after, was, is)
		}
		if most := longestCommon(before, after); same != most {
			rt.Fatalf("from %v to %v: %d lines are the same, could be %d", before, after, same, most)
		}
	})
}

// longestCommon tries every way.
func longestCommon(a, b []string) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	if a[0] == b[0] {
		return 1 + longestCommon(a[1:], b[1:])
	}
	return max(longestCommon(a[1:], b), longestCommon(a, b[1:]))
}

func TestLargeTextsAreNotCompared(t *testing.T) {
	before, after := make([]string, 3000), make([]string, 3000)
	for i := range before {
		before[i], after[i] = "old", "new"
	}
	if got := len(linediff.Of(before, after, 0)); got != 6000 {
		t.Errorf("%d lines, want all 3000 removed and 3000 added", got)
	}
}
