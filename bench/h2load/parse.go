package h2load

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Result is what one run reports.
type Result struct {
	Elapsed     time.Duration // from first connection to last answer
	PerSecond   float64       // requests
	MeanLatency time.Duration
	Total       uint64
	Succeeded   uint64 // HTTP status below 400
	Failed      uint64
	Errored     uint64
	TimedOut    uint64
	Status2xx   uint64
	DataBytes   uint64 // answer bodies
}

// The lines of the report that are read. Human-readable sizes are passed over
// in favour of the exact ones in parentheses and at the line's end.
var (
	finishedLine = regexp.MustCompile(`(?m)^finished in (\S+), ([\d.]+) req/s`)
	requestsLine = regexp.MustCompile(`(?m)^requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	statusLine   = regexp.MustCompile(`(?m)^status codes: (\d+) 2xx`)
	dataLine     = regexp.MustCompile(`(?m)^traffic: .*, \S+ \((\d+)\) data`)
	latencyLine  = regexp.MustCompile(`(?m)^time for request:\s+\S+\s+\S+\s+(\S+)`)
)

// Parse reads the report h2load prints when it has finished.
func Parse(output string) (Result, error) {
	var r Result
	for _, line := range []struct {
		name    string
		pattern *regexp.Regexp
		into    []any
	}{
		{"finished in", finishedLine, []any{&r.Elapsed, &r.PerSecond}},
		{"requests", requestsLine, []any{&r.Total, &r.Succeeded, &r.Failed, &r.Errored, &r.TimedOut}},
		{"status codes", statusLine, []any{&r.Status2xx}},
		{"traffic", dataLine, []any{&r.DataBytes}},
		{"time for request", latencyLine, []any{&r.MeanLatency}},
	} {
		found := line.pattern.FindStringSubmatch(output)
		if found == nil {
			return Result{}, fmt.Errorf("h2load output: no line %q as version 1.52 prints it", line.name)
		}
		for i, into := range line.into {
			if err := scan(found[i+1], into); err != nil {
				return Result{}, fmt.Errorf("h2load output: %s: %w", line.name, err)
			}
		}
	}
	return r, nil
}

// scan reads one number. h2load writes durations as Go does: 55us, 7.86ms, 1.20s.
func scan(text string, into any) (err error) {
	switch v := into.(type) {
	case *uint64:
		*v, err = strconv.ParseUint(text, 10, 64)
	case *float64:
		*v, err = strconv.ParseFloat(text, 64)
	case *time.Duration:
		*v, err = time.ParseDuration(text)
	}
	return err
}

// Check returns an error unless every request got a 2xx answer and the answers
// together have the expected length. h2load knows nothing of grpc-status; a
// call refused by a proxy shows as missing answer bytes.
func (r Result) Check(requests, dataBytes uint64) error {
	switch {
	case r.Total != requests || r.Succeeded != requests || r.Failed+r.Errored+r.TimedOut > 0:
		return fmt.Errorf("%d of %d requests succeeded, %d failed, %d errored, %d timed out", r.Succeeded, requests, r.Failed, r.Errored, r.TimedOut)
	case r.Status2xx != requests:
		return fmt.Errorf("%d of %d answers have a 2xx status", r.Status2xx, requests)
	case r.DataBytes != dataBytes:
		return fmt.Errorf("answers add up to %d bytes, want %d", r.DataBytes, dataBytes)
	}
	return nil
}
