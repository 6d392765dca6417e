package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/routing/storetest"
)

var update = flag.Bool("update", false, "rewrite the expected outputs in testdata")

// TestCommands plays sessions of an operator against a real gateway with every
// kind of store: what testdata/*.session says after "$ sluice", with the output and
// the exit code that follow. The store makes no difference.
func TestCommands(t *testing.T) {
	folder, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := filepath.Glob(filepath.Join(folder, "*.session"))
	if err != nil || len(sessions) == 0 {
		t.Fatalf("no sessions: %v", err)
	}
	for _, kind := range []string{"memory", "file", "redis"} {
		t.Run(kind, func(t *testing.T) {
			if *update && kind != "memory" {
				t.Fatal("the outputs are rewritten from the first store: run again without -update")
			}
			for _, session := range sessions {
				t.Run(filepath.Base(session), func(t *testing.T) { play(t, session, storeOf(t, kind)) })
			}
		})
	}
}

// storeOf returns what --store says.
func storeOf(t *testing.T, kind string) string {
	switch kind {
	case "file":
		return "file:" + t.TempDir()
	case "redis":
		return storetest.StartRedis(t).URL()
	}
	return kind
}

func play(t *testing.T, session, store string) {
	script, err := os.ReadFile(session)
	if err != nil {
		t.Fatal(err)
	}
	alive, dead := startModelServer(t), deadAddress(t)
	t.Chdir(t.TempDir())
	writeRoutes(t, "routes.yaml", alive, dead)
	write(t, "new.yaml", fmt.Sprintf("routes:\n  - model: churn\n    versions:\n      - name: a\n        endpoints: [%q]\n    weights: {a: 1}\n", alive))
	write(t, "bad.yaml", "routes:\n  - model: churn\n    versions:\n      - name: a\n        endpoints: [nowhere]\n    weights: {b: 1}\n")
	gateway := startServe(t, "--routes", "routes.yaml", "--store", store)
	names := []struct {
		pattern, with string
	}{
		{regexp.QuoteMeta(alive), "127.0.0.1:ALIVE"}, {regexp.QuoteMeta(dead), "127.0.0.1:DEAD_"}, // as long as ports are
		{regexp.QuoteMeta(gateway.admin), "127.0.0.1:ADMIN"},
		{regexp.QuoteMeta(store) + `(?m)(,.*)$`, "STORE$1"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, "YYYY-MM-DD hh:mm:ss"},
		{`"?\d{4}-\d\d-\d\dT[0-9:.]+Z"?`, `"TIME"`},
		{`\b[0-9a-f]{32}\b`, "ID"}, {`\b[A-Z2-7]{26}\b`, "KEY"},
		{`up \d+m?s`, "up TIME"}, {`confirmed [\d.]+m?s ago`, "confirmed AGE ago"}, {`version \S+, up`, "version VERSION, up"},
		{`(?m)^cache .*\n`, ""},
	}
	var transcript strings.Builder
	for line := range strings.Lines(string(script)) {
		command, ok := strings.CutPrefix(line, "$ sluice ")
		if strings.HasPrefix(line, "## ") {
			transcript.WriteString(line)
		}
		if !ok {
			continue
		}
		out, code := gateway.sluice(words(strings.TrimSpace(command))...)
		for _, n := range names {
			out = regexp.MustCompile(n.pattern).ReplaceAllString(out, n.with)
		}
		fmt.Fprintf(&transcript, "%s%s", line, out)
		if code != 0 {
			fmt.Fprintf(&transcript, "[exit code %d]\n", code)
		}
	}
	same(t, session, transcript.String())
}

// words splits a command line at spaces, except between double quotes.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}
