// Package sluice_test checks what concerns the whole module and no single package.
package sluice_test

import (
	"bytes"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A room is a folder whose packages share what they may import from the rest of the module. Packages of
// a room may always import each other; a folder within a room that is itself listed is another room.
type room struct {
	folder string
	may    []string // rooms
	reason string
}

// rooms keeps imports running one way: proto <- routing, breaker, shadow, telemetry <- gateway <- cmd.
var rooms = []room{
	{"proto", nil,
		"schemas are what everyone else agrees on, so they depend on nobody"},
	{"routing/storetest", []string{"proto", "routing", "loopback"},
		"stores are tested against real servers, which are started here"},
	{"routing", []string{"proto"},
		"which version serves is decided from the document alone; gateway hands the result to the other rooms as plain values"},
	{"breaker", []string{"proto"},
		"whether a version may be called is decided by outcomes, not by routes: breakers are keyed by strings and outlive tables"},
	{"shadow", []string{"proto"},
		"copies are made of plain values, so that nothing a shadow does can reach a caller's answer"},
	{"telemetry", []string{"proto"},
		"records are plain values filled by gateway, so that what is measured does not depend on how it is displayed"},
	{"gateway/relay", nil,
		"the relay moves frames and knows no model: it asks gateway, through its own interface, what to do next"},
	{"gateway/health", []string{"proto"},
		"whether a server is well is found out from an address and names, not from routes"},
	{"gateway", []string{"proto", "routing", "breaker", "shadow", "telemetry", "gateway/relay", "gateway/health"},
		"gateway joins the rooms; commands, samples and benchmarks stand outside of it"},
	{"sample", []string{"proto"},
		"a sample model server is a model server like any other: it knows the protocol and not the gateway"},
	{"cmd", []string{"proto", "routing", "breaker", "shadow", "telemetry", "gateway", "gateway/relay", "sample", "bench/load", "bench/payload"},
		"a command puts the program together from rooms; what only measures or tests Sluice does not belong into the binary"},
	{"bench/load", nil,
		"load is made for any gRPC server, Sluice or not"},
	{"bench/payload", nil,
		"messages are made for any server that speaks the protocol"},
	{"bench/proxy/relay", []string{"gateway/relay", "bench"},
		"the relay is measured alone, too, in a program that has nothing else of the gateway"},
	{"bench/proxy/datapath", []string{"gateway", "gateway/relay", "routing", "bench"},
		"the data path is measured alone, too: what finds the model and the version, and the relay, without policies"},
	{"bench", []string{"proto", "bench/load", "bench/payload", "loopback"},
		"the gateway is measured from outside, as its peers are"},
	{"deploy", nil,
		"what is deployed beside the gateway is held to its documentation, not to its code"},
	{"loopback", nil,
		"an address is found for a server of anybody"},
	{"e2e", []string{"proto", "loopback"},
		"what the gateway promises is proven from outside, as a client sees it"},
}

func TestImportsRunOneWay(t *testing.T) {
	all := moduleImports(t)
	for _, pkg := range slices.Sorted(maps.Keys(all)) {
		from := roomOf(pkg)
		if from == nil {
			t.Errorf("%s belongs to no room; say in this file what it may import, and why", pkg)
			continue
		}
		for _, imported := range all[pkg] {
			to := roomOf(imported)
			if to == nil || to == from || slices.Contains(from.may, to.folder) {
				continue // an imported package without a room is reported above
			}
			t.Errorf("%s imports %s, but packages of %s may import %s, because %s",
				pkg, imported, from.folder, list(from.may), from.reason)
		}
	}
}

// roomOf returns the innermost room that holds a package, or nil.
func roomOf(pkg string) *room {
	var found *room
	for i, r := range rooms {
		path := "sluice/" + r.folder
		if (pkg == path || strings.HasPrefix(pkg, path+"/")) && (found == nil || len(r.folder) > len(found.folder)) {
			found = &rooms[i]
		}
	}
	return found
}

// moduleImports returns, for each of the module's packages, those packages of the module that it imports
// itself, tests aside: a test may use whatever real part it needs.
func moduleImports(t *testing.T) map[string][]string {
	t.Helper()
	watchFolders(t)
	cmd := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	imports := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		fields := slices.DeleteFunc(strings.Fields(line), func(path string) bool {
			return !strings.HasPrefix(path, "sluice/")
		})
		if len(fields) > 0 && strings.HasPrefix(line, fields[0]+" ") {
			imports[fields[0]] = fields[1:]
		}
	}
	if len(imports) == 0 {
		t.Fatalf("%v lists no package of the module", cmd)
	}
	return imports
}

// watchFolders opens every folder, so that the test's cached result does not outlive a change: go test
// notes what a test opens itself, but not what the commands it starts do.
func watchFolders(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		hidden := len(path) > 1 && strings.HasPrefix(entry.Name(), ".")
		if entry.IsDir() && (hidden || path == "bin" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list words what a room may import.
func list(folders []string) string {
	if len(folders) == 0 {
		return "none of the others"
	}
	return "only " + strings.Join(folders, ", ")
}
