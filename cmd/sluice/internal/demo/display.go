package demo

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/term"

	"sluice/sample"
)

// display tells what happens: to a person in front of a terminal, or line by
// line to a file. It is used by one goroutine.
type display interface {
	introduce(at place, versions []*sample.Model)
	show(frame)
	conclude(result)
}

// place is where the gateway is.
type place struct {
	data  string
	admin net.Addr // nil if there is none
}

// newDisplay redraws in place if out is a terminal that can.
func newDisplay(out io.Writer) display {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(f.Fd()) || colorprofile.Detect(f, os.Environ()) <= colorprofile.NoTTY {
		return plain{out}
	}
	return newScreen(f)
}

// grpcurl is a command that asks the gateway at addr for one prediction. It
// needs no files: the gateway describes the protocol by reflection.
func grpcurl(addr string) string {
	return `grpcurl -v -plaintext -d '{"model_name":"` + sample.ModelName + `","inputs":[{"name":"` + sample.InputName +
		`","datatype":"FP32","shape":[1,4],"contents":{"fp32_contents":[39.1,18.7,181,3750]}}]}' ` +
		addr + ` inference.GRPCInferenceService/ModelInfer`
}

// introduction is said once, before the first frame.
func introduction(at place, versions []*sample.Model) string {
	var b strings.Builder
	fmt.Fprintf(&b, "gateway on %s; model %q, %d model servers for each version:\n", at.data, sample.ModelName, replicasPerVersion)
	for _, m := range versions {
		fmt.Fprintf(&b, "  %s  trained on %s: right for %.1f %% of %d penguins held back\n",
			m.Version, strings.Join(m.Features, ", "), 100*m.Provenance.Accuracy, m.Provenance.HeldBack)
	}
	fmt.Fprintf(&b, "traffic asks for those %d; try it yourself (grpcurl prints bytes in base64, QWRlbGll is Adelie):\n  %s\n", versions[0].Provenance.HeldBack, grpcurl(at.data))
	if at.admin != nil {
		fmt.Fprintf(&b, "watch the split, or change it:\n  sluice get --watch --admin %s\n  sluice weights %s %s=1 %s=1 --admin %s\n", at.admin, sample.ModelName, before, after, at.admin)
	}
	return b.String()
}

// summary is said once, after the last frame.
func summary(r result) string {
	return fmt.Sprintf("%d calls in %s, %d failed\n", r.calls, seconds(r.elapsed), r.failed) + table(r.lines, true)
}

// table lays out lines in columns: for one split with the current rates, or
// for all with the name of each. Up to a million calls fit into 80 columns.
func table(lines []line, all bool) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	if all {
		fmt.Fprintln(w, "SPLIT\tVERSION\tWEIGHT\tSHARE\tCALLS\tERRORS\tP50\tP99\tACCURACY\t")
	} else {
		fmt.Fprintln(w, "VERSION\tWEIGHT\tSHARE\tCALLS/S\tCALLS\tERRORS\tP50\tP99\tACCURACY\t")
	}
	for _, l := range lines {
		if all {
			fmt.Fprintf(w, "%s\t", splitName(l.split))
		}
		fmt.Fprintf(w, "%s\t%d %%\t%s\t", versionName(l.version), l.split.weight(l.version), percent(l.share))
		if !all {
			fmt.Fprintf(w, "%.0f\t", l.rate)
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t\n", l.calls, l.failed, milliseconds(l.p50), milliseconds(l.p99), percent(l.right))
	}
	_ = w.Flush() // into memory: cannot fail
	return b.String()
}

// splitName and versionName stand in for what an answer did not tell.
func splitName(s split) string {
	if s == (split{}) {
		return "unknown"
	}
	return fmt.Sprintf("%d/%d", s.before, s.after)
}

func versionName(version string) string {
	if version == "" {
		return "none"
	}
	return version
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "-" // of nothing
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-" // nothing was measured
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
