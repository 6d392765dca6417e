// Package h2load runs nghttp2's load generator and reads its report. It is a
// closed loop: each stream sends its next request when the last was answered.
package h2load

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// Load is one run: an exact number of requests, so that what the backend saw
// can be compared with what was sent.
type Load struct {
	URL         string
	BodyFile    string // one gRPC-framed message
	Connections int
	Streams     int // concurrent, per connection
	Requests    uint64
}

// ErrMissing says that h2load is not installed and how to get it.
var ErrMissing = errors.New("h2load is not installed; it comes with nghttp2 (Debian and Ubuntu: apt install nghttp2-client, macOS and others: nghttp2)")

var versionPattern = regexp.MustCompile(`^h2load nghttp2/(\S+)`)

// Version returns the installed version, or [ErrMissing].
func Version(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "h2load", "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", ErrMissing
	}
	if err != nil {
		return "", fmt.Errorf("h2load --version: %w", err)
	}
	found := versionPattern.FindSubmatch(output)
	if found == nil {
		return "", fmt.Errorf("h2load --version: got %q, want \"h2load nghttp2/1.52.0\" or the like", output)
	}
	return string(found[1]), nil
}

// Run sends the load with a single thread. It returns the report and the CPU
// time h2load itself used. Cancelling ctx kills the run.
func Run(ctx context.Context, load Load) (Result, time.Duration, error) {
	command := exec.CommandContext(ctx, "h2load",
		"-t", "1",
		"-c", strconv.Itoa(load.Connections),
		"-m", strconv.Itoa(load.Streams),
		"-n", strconv.FormatUint(load.Requests, 10),
		"-d", load.BodyFile,
		"-H", "content-type: application/grpc",
		"-H", "te: trailers",
		load.URL,
	)
	output, err := command.CombinedOutput()
	if ctx.Err() != nil {
		return Result{}, 0, fmt.Errorf("h2load: %w", context.Cause(ctx))
	}
	if err != nil {
		return Result{}, 0, fmt.Errorf("h2load: %w: %s", err, output)
	}
	result, err := Parse(string(output))
	if err != nil {
		return Result{}, 0, err
	}
	return result, command.ProcessState.UserTime() + command.ProcessState.SystemTime(), nil
}
