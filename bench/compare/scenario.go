package main

import (
	"fmt"
	"strconv"
	"strings"

	"sluice/bench/payload"
)

// scenario is one kind of load.
type scenario struct {
	Size        int `json:"request_bytes"` // framed
	Connections int `json:"connections"`
	Streams     int `json:"streams"` // concurrent, per connection
}

// String returns, for instance, "4 KiB 4x32".
func (s scenario) String() string {
	return fmt.Sprintf("%s %dx%d", sizeText(s.Size), s.Connections, s.Streams)
}

// maxRequest bounds request sizes, in bytes: the largest size the performance
// targets speak of.
const maxRequest = 1 << 20

// parseScenarios combines every size with every shape, sizes first.
func parseScenarios(sizes, shapes string) ([]scenario, error) {
	var out []scenario
	for _, size := range strings.Split(sizes, ",") {
		bytes, err := parseSize(size)
		if err != nil {
			return nil, err
		}
		for _, shape := range strings.Split(shapes, ",") {
			connections, streams, err := parseShape(shape)
			if err != nil {
				return nil, err
			}
			out = append(out, scenario{bytes, connections, streams})
		}
	}
	return out, nil
}

// parseSize reads 512, 4KiB or 1MiB.
func parseSize(text string) (int, error) {
	digits, unit := strings.TrimSpace(text), 1
	for suffix, factor := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(digits, suffix); ok {
			digits, unit = rest, factor
			break
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > maxRequest/unit || n*unit < payload.MinSize {
		return 0, fmt.Errorf("-sizes: got %q, want %d to 1MiB, as in 4KiB", text, payload.MinSize)
	}
	return n * unit, nil
}

// parseShape reads 4x32.
func parseShape(text string) (connections, streams int, err error) {
	left, right, _ := strings.Cut(strings.TrimSpace(text), "x")
	connections, err1 := strconv.Atoi(left)
	streams, err2 := strconv.Atoi(right)
	if err1 != nil || err2 != nil || connections < 1 || connections > 1000 || streams < 1 || streams > 1000 {
		return 0, 0, fmt.Errorf("-shapes: got %q, want connections x streams, 1 to 1000 each, as in 4x32", text)
	}
	return connections, streams, nil
}

// sizeText writes a size the way parseSize reads it, with a space for people.
func sizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + " MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + " KiB"
	}
	return strconv.Itoa(n) + " B"
}
