package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/bench/payload"
)

// scenario is one kind of load.
type scenario struct {
	Size        int  `json:"request_bytes"` // framed
	Connections int  `json:"connections"`
	Streams     int  `json:"streams"` // concurrent, per connection
	TLS         bool `json:"tls,omitempty"`
	// Stream asks for streamedAnswers small messages per call instead of one.
	Stream bool `json:"stream,omitempty"`
	// Varied gives every call a user and a deadline of its own; without, all are the same to the byte.
	Varied bool `json:"varied,omitempty"`
}

const (
	streamedAnswers = 1000
	streamedSize    = 100 // bytes, without framing

	// maxRequest bounds request sizes, in bytes: the largest size the performance
	// targets speak of.
	maxRequest = 1 << 20
)

// String returns what parseScenario reads, for instance "4KiB:4x32:tls".
func (s scenario) String() string {
	size := payload.Size(s.Size)
	text := fmt.Sprintf("%s:%dx%d", size.String(), s.Connections, s.Streams)
	if s.TLS {
		text += ":tls"
	}
	if s.Stream {
		text += ":stream"
	}
	if s.Varied {
		text += ":varied"
	}
	return text
}

// title describes the scenario for people.
func (s scenario) title() string {
	text := fmt.Sprintf("%s requests, %d connections x %d streams", payload.Size(s.Size).Text(), s.Connections, s.Streams)
	if s.TLS {
		text += ", TLS"
	}
	if s.Stream {
		text += fmt.Sprintf(", %d streamed answers of %d bytes per call", streamedAnswers, streamedSize)
	}
	if s.Varied {
		text += ", each with a user and a deadline of its own"
	}
	return text
}

// answerBytes is how many bytes answer a call, with gRPC's framing.
func (s scenario) answerBytes() uint64 {
	if s.Stream {
		return streamedAnswers * (streamedSize + payload.FramePrefix)
	}
	return payload.AnswerSize
}

// setNames are the names of sets, in the order in which people should read them.
const setNames = "quick, standard, targets, tls, report, latencies, all, all-tls"

// sets are names for lists of scenarios.
var sets = map[string]string{
	"quick":    "4KiB:4x8",
	"standard": "4KiB:4x8,4KiB:4x32,4KiB:100x4,64KiB:4x8",
	"targets":  "standard,1MiB:4x4,4KiB:1x1,4KiB:10x1,4KiB:10x100,4KiB:1000x1,4KiB:4x8:tls,1KiB:4x8:stream",
	"tls":      "1KiB:4x8:tls,4KiB:4x8:tls,64KiB:4x8:tls,1MiB:4x8:tls,4KiB:1x1:tls,4KiB:100x4:tls,1KiB:4x8:tls:stream",
	"report": "4KiB:4x8,4KiB:4x32,4KiB:100x4,64KiB:4x8,64KiB:4x32,64KiB:100x4,1MiB:4x8,1KiB:4x8,4KiB:1x1,4KiB:10x1,4KiB:10x100,4KiB:1000x1," +
		"4KiB:4x8:tls,4KiB:100x4:tls,64KiB:4x8:tls,1KiB:4x8:stream,4KiB:4x8:varied,4KiB:100x4:varied",
	// Those of report whose latencies are measured, too.
	"latencies": "4KiB:4x8,4KiB:100x4,64KiB:4x8,1MiB:4x8,4KiB:1x1,4KiB:1000x1,4KiB:4x8:tls,1KiB:4x8:stream",
	"all":       matrix(""), // plaintext
	"all-tls":   matrix(":tls"),
}

// matrix is every size in every shape, and streamed answers.
func matrix(suffix string) string {
	var out []string
	for _, size := range []string{"1KiB", "4KiB", "64KiB", "1MiB"} {
		for _, shape := range []string{"1x1", "4x8", "4x32", "100x4", "1000x1"} {
			out = append(out, size+":"+shape+suffix)
		}
	}
	return strings.Join(append(out, "1KiB:4x8"+suffix+":stream"), ",")
}

// parseScenarios reads a list of scenarios and names of sets.
func parseScenarios(text string) ([]scenario, error) {
	var out []scenario
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if set, ok := sets[word]; ok {
			more, err := parseScenarios(set)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		s, ok := parseScenario(word)
		if !ok {
			return nil, fmt.Errorf("-scenarios: got %q, want SIZE:CONNECTIONSxSTREAMS[:tls][:stream][:varied] with %d to 1MiB and 1 to 1000 of both, as in 4KiB:4x32, or one of %s",
				word, payload.MinSize, setNames)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseScenario(text string) (s scenario, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 {
		return s, false
	}
	var size payload.Size
	if size.Set(parts[0]) != nil || size > maxRequest {
		return s, false
	}
	left, right, _ := strings.Cut(parts[1], "x")
	connections, err1 := strconv.Atoi(left)
	streams, err2 := strconv.Atoi(right)
	if err1 != nil || err2 != nil || connections < 1 || connections > 1000 || streams < 1 || streams > 1000 {
		return s, false
	}
	s = scenario{Size: int(size), Connections: connections, Streams: streams}
	for _, option := range parts[2:] {
		switch {
		case option == "varied" && !s.Varied:
			s.Varied = true
		case option == "tls" && !s.TLS && !s.Stream && !s.Varied:
			s.TLS = true
		case option == "stream" && !s.Stream && !s.Varied:
			s.Stream = true
		default:
			return s, false
		}
	}
	return s, true
}

// securities returns whether plaintext and TLS occur.
func securities(scenarios []scenario) (out []bool) {
	for _, secure := range []bool{false, true} {
		if slices.ContainsFunc(scenarios, func(s scenario) bool { return s.TLS == secure }) {
			out = append(out, secure)
		}
	}
	return out
}
