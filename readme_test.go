package sluice_test

import (
	"os"
	"strings"
	"testing"

	"sluice/routing"
)

func TestReadmeRoutesAreAccepted(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```yaml\n")
	routes, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("README.md has no ```yaml block")
	}
	doc, err := routing.Parse("README.md", []byte(routes))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := routing.Build(doc, 1); err != nil {
		t.Fatal(err)
	}
}
