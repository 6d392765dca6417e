package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"buf.build/go/protoyaml"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Styles. What is not a terminal, or has NO_COLOR set, gets plain text.
var (
	plain  = lipgloss.NewStyle()
	strong = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	more   = lipgloss.NewStyle().Foreground(lipgloss.Green)
	less   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	alarm  = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)
)

// format is how a command writes its result.
type format string

const (
	asTable format = "table"
	asJSON  format = "json"
	asYAML  format = "yaml"
)

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	switch format(text) {
	case asTable, asJSON, asYAML:
		*f = format(text)
		return nil
	}
	return errors.New("want table, json or yaml")
}

func (f *format) register(cmd *cobra.Command) {
	*f = asTable
	cmd.Flags().VarP(f, "output", "o", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
}

// write writes a message for machines, or calls table.
func (f *format) write(out io.Writer, m proto.Message, table func(io.Writer)) error {
	var text []byte
	var err error
	switch *f {
	case asJSON:
		text, err = toJSON(m, true)
	case asYAML:
		text, err = toYAML(m)
	case asTable:
		table(colours(out))
		return nil
	}
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// toJSON returns the JSON of a message, in one line or indented. protojson varies
// its spaces on purpose, so they are made anew.
func toJSON(m proto.Message, indented bool) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if indented {
		err = json.Indent(&b, text, "", "  ")
	} else {
		err = json.Compact(&b, text)
	}
	b.WriteByte('\n')
	return b.Bytes(), err
}

// toYAML returns the YAML of a message, in the names of the file of routes.
func toYAML(m proto.Message) ([]byte, error) {
	return protoyaml.MarshalOptions{UseProtoNames: true, Indent: 2}.Marshal(m)
}

// colours takes colours away where the writer is no terminal or does not want
// them.
func colours(out io.Writer) io.Writer { return colorprofile.NewWriter(out, os.Environ()) }

// table is text in columns. Cells may be styled.
type table struct {
	rows  [][]string
	right map[int]bool // columns that are aligned on the right
}

func newTable(columns ...string) *table {
	t := &table{right: make(map[int]bool)}
	for i, c := range columns {
		name := strings.TrimPrefix(c, ">")
		t.right[i] = name != c
		columns[i] = name
	}
	t.rows = append(t.rows, columns)
	return t
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// lines returns the table, its heading first.
func (t *table) lines() []string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	var lines []string
	for n, row := range t.rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-ansi.StringWidth(cell))
			if n == 0 && cell != "" {
				cell = strong.Render(cell)
			}
			switch {
			case t.right[i]:
				b.WriteString(pad + cell)
			case i == len(row)-1: // nothing follows that would have to be aligned
				b.WriteString(cell)
			default:
				b.WriteString(cell + pad)
			}
			if i < len(row)-1 {
				b.WriteString("  ")
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

func (t *table) write(out io.Writer) {
	for _, line := range t.lines() {
		fmt.Fprintln(out, line)
	}
}

// visible makes other people's words fit to be shown: without control characters,
// and not longer than they should be.
func visible(s string, most int) string { return ansi.Truncate(strings.Map(shown, s), most, "...") }

// visibleText is the same for a text of several lines that is to be shown whole.
func visibleText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return shown(r)
	}, s)
}

// shown is a character, or a space in the place of one that might control a terminal.
func shown(r rune) rune {
	if r < ' ' || r == utf8.RuneError || r >= 0x7f && r < 0xa0 {
		return ' '
	}
	return r
}
