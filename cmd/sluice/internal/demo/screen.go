package demo

import (
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"

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
	width func() int
	drawn int // lines of the block on the screen
}

func newScreen(f *os.File) *screen {
	return &screen{
		out: colorprofile.NewWriter(f, os.Environ()),
		width: func() int {
			width, _, err := term.GetSize(f.Fd())
			if err != nil || width < 1 {
				return 80 // a terminal that does not know is rarely narrower
			}
			return width
		},
	}
}

func (d *screen) introduce(addr string, versions []*sample.Model) {
	fmt.Fprintln(d.out, introduction(addr, versions))
}

func (d *screen) show(f frame) {
	head := accent.Render("split "+f.split.String()) + faint.Render(fmt.Sprintf("  revision %d, %s", f.revision, seconds(f.elapsed)))
	d.draw(head, table(f.lines, false))
}

// conclude writes the summary over the block. It is not drawn again, so it may wrap.
func (d *screen) conclude(r result) {
	head, body, _ := strings.Cut(summary(r), "\n")
	columns, rows, _ := strings.Cut(body, "\n")
	fmt.Fprintf(d.out, "%s%s\n%s\n%s", d.erase(), accent.Render(head), strong.Render(columns), rows)
}

// draw replaces the block by a heading and a table, whose first line names the columns.
func (d *screen) draw(head, table string) {
	rows := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	rows[0] = strong.Render(rows[0])

	var b strings.Builder
	b.WriteString(d.erase())
	width := d.width()
	for _, row := range append([]string{head}, rows...) {
		// A line that wraps would count as two and spoil the next redraw.
		b.WriteString(ansi.Truncate(row, width, "") + "\n")
	}
	d.drawn = 1 + len(rows)
	fmt.Fprint(d.out, b.String()) // one write, so that no half-drawn block is seen
}

// erase is what moves the cursor to where the block began and clears the rest.
func (d *screen) erase() string {
	if d.drawn == 0 {
		return ansi.EraseScreenBelow
	}
	return ansi.CursorUp(d.drawn) + ansi.EraseScreenBelow
}
