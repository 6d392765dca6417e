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
	return fmt.Sprintf("%s %dx%d", payload.Size(s.Size).Text(), s.Connections, s.Streams)
}

// maxRequest bounds request sizes, in bytes: the largest size the performance
// targets speak of.
const maxRequest = 1 << 20

// parseScenarios combines every size with every shape, sizes first.
func parseScenarios(sizes, shapes string) ([]scenario, error) {
	var out []scenario
	for _, size := range strings.Split(sizes, ",") {
		var bytes payload.Size
		if err := bytes.Set(size); err != nil || bytes > maxRequest {
			return nil, fmt.Errorf("-sizes: got %q, want %d to 1MiB, as in 4KiB", size, payload.MinSize)
		}
		for _, shape := range strings.Split(shapes, ",") {
			connections, streams, err := parseShape(shape)
			if err != nil {
				return nil, err
			}
			out = append(out, scenario{int(bytes), connections, streams})
		}
	}
	return out, nil
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
