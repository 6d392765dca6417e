package demo

import (
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"

	"sluice/cmd/sluice/internal/block"
	"sluice/sample"
)

var (
	strong = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	accent = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Cyan)
)

// screen is the display for terminals: one block that is redrawn in place.
type screen struct {
	out   io.Writer // takes colours away where the terminal or NO_COLOR forbids them
	block *block.Block
}

func newScreen(f *os.File) *screen {
	return &screen{out: colorprofile.NewWriter(f, os.Environ()), block: block.New(f)}
}

func (d *screen) introduce(at place, versions []*sample.Model) {
	fmt.Fprintln(d.out, introduction(at, versions))
}

func (d *screen) show(f frame) {
	head := accent.Render("split "+f.split.String()) + faint.Render(fmt.Sprintf("  revision %d, %s", f.revision, seconds(f.elapsed)))
	d.draw(head, table(f.lines, false))
}

// conclude writes the summary over the block. It is not drawn again, so it may wrap.
func (d *screen) conclude(r result) {
	head, body, _ := strings.Cut(summary(r), "\n")
	columns, rows, _ := strings.Cut(body, "\n")
	d.block.Replace(fmt.Sprintf("%s\n%s\n%s", accent.Render(head), strong.Render(columns), rows))
}

// draw replaces the block by a heading and a table, whose first line names the columns.
func (d *screen) draw(head, table string) {
	rows := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	rows[0] = strong.Render(rows[0])
	d.block.Draw(append([]string{head}, rows...))
}
