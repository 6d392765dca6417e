package e2e

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"sluice/sample"
)

// h2specReport is what is read of h2spec's JUnit report.
type h2specReport struct {
	Suites []struct {
		Package string `xml:"package,attr"`
		Cases   []struct {
			Name    string    `xml:"classname,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// h2spec runs every case of h2spec against a server and returns which of them passed.
func h2spec(t *testing.T, program, addr string) map[string]bool {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Error(err)
		return nil
	}
	file := filepath.Join(t.TempDir(), "report.xml")
	cmd := exec.Command(program, "--strict", "--host", host, "--port", port, "--junit-report", file)
	out, err := cmd.CombinedOutput() // it fails if a case does, which the report says better
	report, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Errorf("%v: %v, %v\n%s", cmd, err, readErr, out)
		return nil
	}
	var r h2specReport
	if err := xml.Unmarshal(report, &r); err != nil {
		t.Errorf("%v: %v", cmd, err)
		return nil
	}
	passed := make(map[string]bool)
	for _, suite := range r.Suites {
		for i, c := range suite.Cases {
			if c.Skipped == nil {
				name := fmt.Sprintf("%s %d: %s", suite.Package, i+1, c.Name) // names repeat
				passed[name] = c.Failure == nil && c.Error == nil
			}
		}
	}
	return passed
}

func count(passed map[string]bool) (n int) {
	for _, ok := range passed {
		if ok {
			n++
		}
	}
	return n
}

// The gateway does at least as well as the gRPC server of the same version that
// it would otherwise be. h2spec sends plain HTTP requests, so some cases fail for
// any server that insists on gRPC.
func TestHTTP2ConformanceIsAtLeastThatOfGRPC(t *testing.T) {
	program := tool(t, "h2spec")
	v1 := startBackend(t, "v1")
	g := startGateway(t, routeTo(v1.addr))
	var bare, ours map[string]bool
	var both sync.WaitGroup // a failing case takes seconds
	both.Go(func() { bare = h2spec(t, program, v1.addr) })
	both.Go(func() { ours = h2spec(t, program, g.addr) })
	both.Wait()
	t.Logf("h2spec: %d of %d cases pass on the gateway, %d of %d on grpc-go %s",
		count(ours), len(ours), count(bare), len(bare), grpc.Version)
	if len(bare) < 140 {
		t.Errorf("h2spec ran %d cases on grpc-go, want all of its 146", len(bare))
	}
	for _, name := range slices.Sorted(maps.Keys(bare)) {
		if _, ran := ours[name]; !ran {
			t.Errorf("did not run on the gateway: %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		ok, ran := bare[name]
		switch {
		case ours[name]:
		case ok:
			t.Errorf("passes on grpc-go and fails on the gateway: %s", name)
		case ran:
			t.Logf("fails on both: %s", name)
		default:
			t.Logf("fails on the gateway and does not apply to grpc-go: %s", name)
		}
	}
	// And nothing of it has harmed the process.
	if a := infer(t.Context(), dial(t, g.addr), sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
		t.Error(a.err)
	}
}
