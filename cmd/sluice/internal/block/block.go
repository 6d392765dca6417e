// Package block redraws lines of text in place, in a terminal.
package block

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// Block is some lines on a terminal. It is used by one goroutine, and nobody else
// writes to the terminal meanwhile.
type Block struct {
	out   io.Writer // takes colours away where the terminal or NO_COLOR forbids them
	width func() int
	drawn int // lines of the block on the screen
}

// New returns a block on a terminal; nothing is drawn yet.
func New(f *os.File) *Block {
	return On(colorprofile.NewWriter(f, os.Environ()), func() int {
		width, _, err := term.GetSize(f.Fd())
		if err != nil || width < 1 {
			return 80 // a terminal that does not know is rarely narrower
		}
		return width
	})
}

// On returns a block on something that understands a terminal's escape sequences
// and has that many columns whenever it is asked.
func On(out io.Writer, width func() int) *Block { return &Block{out: out, width: width} }

// Draw replaces the block by other lines, which may be styled. They are cut at
// the edge: a line that wraps would count as two and spoil the next Draw.
func (b *Block) Draw(lines []string) {
	var text strings.Builder
	text.WriteString(b.erase())
	width := b.width()
	for _, line := range lines {
		text.WriteString(ansi.Truncate(line, width, "") + "\n")
	}
	b.drawn = len(lines)
	fmt.Fprint(b.out, text.String()) // one write, so that no half-drawn block is seen
}

// Replace writes text over the block, which is not drawn again.
func (b *Block) Replace(text string) {
	fmt.Fprint(b.out, b.erase()+text)
	b.drawn = 0
}

// erase is what moves the cursor to where the block began and clears the rest.
func (b *Block) erase() string {
	if b.drawn == 0 {
		return ansi.EraseScreenBelow
	}
	return ansi.CursorUp(b.drawn) + ansi.EraseScreenBelow
}
