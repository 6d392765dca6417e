// Package block redraws lines of text in place, in a terminal.
package block

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// Block is some lines on a terminal. It is used by one goroutine, and nobody else
// writes to the terminal meanwhile.
type Block struct {
	out   io.Writer // takes colours away where the terminal or NO_COLOR forbids them
	size  func() (width, height int)
	drawn int // lines of the block on the screen
}

// New returns a block on a terminal; nothing is drawn yet.
func New(f *os.File) *Block {
	return On(colorprofile.NewWriter(f, os.Environ()), func() (width, height int) {
		width, height, err := term.GetSize(f.Fd())
		if err != nil || width < 1 || height < 1 {
			return 80, 24 // a terminal that does not know is rarely smaller
		}
		return width, height
	})
}

// On returns a block on something that understands a terminal's escape sequences
// and has that many columns and lines whenever it is asked.
func On(out io.Writer, size func() (width, height int)) *Block { return &Block{out: out, size: size} }

// Draw replaces the block by other lines, which may be styled. They are cut at
// the edges: a line that wraps would count as two, and none that has left the screen at
// the top can be drawn again. Either would spoil the next Draw.
func (b *Block) Draw(lines []string) {
	var text strings.Builder
	text.WriteString(b.erase())
	width, height := b.size()
	if most := max(1, height-1); len(lines) > most { // the cursor takes a line, too
		more := len(lines) - most + 1
		lines = append(slices.Clone(lines[:most-1]), fmt.Sprintf("... %d lines more than the terminal has", more))
	}
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
