package demo

import (
	"fmt"
	"io"

	"sluice/sample"
)

// plain is the display for files and pipes: a line per second and version, no
// escape sequences. A writer that fails is not an error of the demo: whoever
// closed it has seen enough.
type plain struct{ out io.Writer }

func (d plain) introduce(at place, versions []*sample.Model) {
	fmt.Fprint(d.out, introduction(at, versions))
}

func (d plain) show(f frame) {
	for _, l := range f.lines {
		fmt.Fprintf(d.out, "%6s  split %v, revision %d: %s %.0f calls/s, share %s, %d errors, p50 %s, p99 %s, accuracy %s\n",
			seconds(f.elapsed), f.split, f.revision, versionName(l.version), l.rate, percent(l.share), l.failed,
			milliseconds(l.p50), milliseconds(l.p99), percent(l.right))
	}
}

func (d plain) conclude(r result) { fmt.Fprint(d.out, summary(r)) }
