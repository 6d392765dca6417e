package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The chart's measures, in its own units, and its colours, which can be told apart on a
// white and on a black page.
const (
	chartWidth  = 760
	labelWidth  = 110
	valueWidth  = 150
	barHeight   = 16
	barGap      = 4
	titleHeight = 34

	textColour      = "#7d8590"
	peerColour      = "#8ba3c7"
	referenceColour = "#2f81f7"
)

// writeSVG draws CPU time per call: a block per scenario and a bar per peer.
func (r *report) writeSVG(w io.Writer) error {
	var b strings.Builder
	const caption = "CPU microseconds per call, of the proxy alone. Shorter is better; the line is the bounds of the median."
	fmt.Fprintf(&b, `<text x="0" y="14">%s</text>`+"\n", caption) // a page that shows the file as an image shows no title
	y := 28
	for _, s := range r.Scenarios {
		longest := 0.0
		for _, row := range s.Rows {
			if row.CPU != nil {
				longest = max(longest, row.CPU.High)
			}
		}
		if longest == 0 {
			continue
		}
		y += titleHeight
		fmt.Fprintf(&b, `<text x="0" y="%d" font-weight="bold">%s</text>`+"\n", y-10, escape(s.title()))
		for _, row := range s.Rows {
			if row.CPU == nil {
				continue
			}
			scale := (chartWidth - labelWidth - valueWidth) / longest
			colour := peerColour
			value := fmt.Sprintf("%.1f us", row.CPU.Median)
			if row.Peer == r.Reference {
				colour = referenceColour
			} else if row.CPURatio != nil {
				value += fmt.Sprintf(" (ratio %.2f)", row.CPURatio.Median)
			}
			width := row.CPU.Median * scale
			middle := y + barHeight/2
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, middle+4, escape(row.Peer))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, width, barHeight, colour)
			fmt.Fprintf(&b, `<path d="M%.1f %dH%.1f" stroke="%s"/>`+"\n",
				labelWidth+row.CPU.Low*scale, middle, labelWidth+row.CPU.High*scale, textColour)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+row.CPU.High*scale+8, middle+4, escape(value))
			y += barHeight + barGap
		}
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="%s">
<title>%s</title>
%s</svg>
`, chartWidth, y+8, textColour, caption, &b)
	return err
}

// escape makes text fit for XML.
func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}
