package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// FuzzVisible: what others have written, such as the reason of a change, cannot
// move the cursor, colour the screen or take more room than it is given.
func FuzzVisible(f *testing.F) {
	for _, s := range []string{"", "a reason", "\x1b[2Jgone", "\x9b31mred", "two\nlines", "\xff\xfe", "wide 日本語 words", strings.Repeat("long ", 40)} {
		f.Add(s, 20)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 3 + min(max(most, 0), 1000)
		got := visible(s, most)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("visible(%q) = %q, want neither control characters nor broken UTF-8", s, got)
		}
		if w := ansi.StringWidth(got); w > most {
			t.Errorf("visible(%q, %d) = %q, which is %d wide", s, most, got, w)
		}
	})
}

func TestTablesAreAligned(t *testing.T) {
	table := newTable("A", ">B", "C")
	table.add("long cell", "1", strong.Render("styled"))
	table.add("x", "1000", "")
	want := []string{"A             B  C", "long cell     1  styled", "x          1000"}
	for i, line := range table.lines() {
		if got := ansi.Strip(line); got != want[i] {
			t.Errorf("line %d is %q, want %q", i, got, want[i])
		}
	}
}
