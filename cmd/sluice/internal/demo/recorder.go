package demo

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"sluice/sample"
)

// outcome is what the client knows of one finished call.
type outcome struct {
	row     sample.Row // that was asked about
	version string     // that served it, as the answer says; empty if it does not
	split   split      // that it was routed by, as the answer says; zero if it does not
	// fallback is who should have answered and why it did not, as the answer says.
	fallback string
	begun    time.Time
	latency  time.Duration
	right    bool  // the species is that of the label
	err      error // nil if there was an answer
}

// cell is one line of the account.
type cell struct {
	split   split
	version string
}

// tally counts the calls of a cell.
type tally struct {
	calls, failed, right uint64
	latency              *hdrhistogram.Histogram // of answered calls, in microseconds
}

// recorder accounts for calls. It may be used by any number of goroutines.
type recorder struct {
	mu     sync.Mutex
	cells  map[cell]*tally
	failed error // of the first call that failed

	// Calls per version and the time when the latest frame was made, for rates.
	lastCalls map[string]uint64
	lastFrame time.Duration
}

func newRecorder() *recorder {
	return &recorder{cells: make(map[cell]*tally), lastCalls: make(map[string]uint64)}
}

func (r *recorder) record(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := cell{o.split, o.version}
	t := r.cells[at]
	if t == nil {
		// 1 us to 60 s at two digits: calls end after callTimeout.
		t = &tally{latency: hdrhistogram.New(1, time.Minute.Microseconds(), 2)}
		r.cells[at] = t
	}
	t.calls++
	if o.err != nil {
		t.failed++
		if r.failed == nil {
			r.failed = o.err
		}
		return
	}
	_ = t.latency.RecordValue(max(1, o.latency.Microseconds())) // in range, so it cannot fail
	if o.right {
		t.right++
	}
}

// line is what is shown of a cell.
type line struct {
	cell
	calls, failed uint64
	share         float64 // of the calls of its split
	rate          float64 // calls per second lately, under whatever split
	p50, p99      time.Duration
	right         float64 // share of the answers; NaN if there are none
}

// frame is what is shown while the demo runs: the lines of the current split.
type frame struct {
	progress
	lines []line
}

// frame makes the next frame. Rates cover the time since the one before.
func (r *recorder) frame(now progress) frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := make(map[string]uint64)
	for at, t := range r.cells {
		calls[at.version] += t.calls
	}
	f := frame{progress: now}
	span := (now.elapsed - r.lastFrame).Seconds()
	for _, l := range r.lines(now.split) {
		if l.split != now.split {
			continue
		}
		l.rate = float64(calls[l.version]-r.lastCalls[l.version]) / span
		f.lines = append(f.lines, l)
	}
	r.lastCalls, r.lastFrame = calls, now.elapsed
	return f
}

// lines are all cells in order; the lock must be held. Of a split that is
// current or has had calls, both versions are there, with or without calls.
func (r *recorder) lines(current split) []line {
	total := make(map[split]uint64)
	cells := map[cell]bool{{current, before}: true, {current, after}: true}
	for at, t := range r.cells {
		total[at.split] += t.calls
		cells[at] = true
		if at.split != (split{}) {
			cells[cell{at.split, before}], cells[cell{at.split, after}] = true, true
		}
	}
	var lines []line
	for _, at := range slices.SortedFunc(maps.Keys(cells), compareCells) {
		l := line{cell: at, right: math.NaN()}
		if t := r.cells[at]; t != nil {
			l.calls, l.failed = t.calls, t.failed
			l.share = float64(t.calls) / float64(total[at.split])
			l.p50 = time.Duration(t.latency.ValueAtQuantile(50)) * time.Microsecond
			l.p99 = time.Duration(t.latency.ValueAtQuantile(99)) * time.Microsecond
			l.right = float64(t.right) / float64(t.calls-t.failed)
		}
		lines = append(lines, l)
	}
	return lines
}

// compareCells orders by stage, then those of other splits and of none, then by
// version.
func compareCells(a, b cell) int {
	stage := func(s split) uint { return uint(slices.Index(stages, s)) } // -1 becomes the largest
	return cmp.Or(
		cmp.Compare(stage(a.split), stage(b.split)),
		cmp.Compare(b.split.before, a.split.before), cmp.Compare(b.split.after, a.split.after),
		cmp.Compare(a.version, b.version),
	)
}

// result is the account of a whole demo.
type result struct {
	elapsed       time.Duration
	lines         []line
	calls, failed uint64
	firstFailure  error
}

// result makes the account of a demo that ended under the split last.
func (r *recorder) result(elapsed time.Duration, last split) result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := result{elapsed: elapsed, lines: r.lines(last), firstFailure: r.failed}
	for _, l := range res.lines {
		res.calls += l.calls
		res.failed += l.failed
	}
	return res
}

// verdict is nil if the demo has shown what it is meant to show.
func (r result) verdict() error {
	switch {
	case r.calls == 0:
		return errors.New("ended before the first call")
	case r.failed > 0:
		return fmt.Errorf("%d of %d calls failed, the first with: %w", r.failed, r.calls, r.firstFailure)
	}
	for _, l := range r.lines {
		switch {
		case l.split == (split{}) || l.version == "":
			return fmt.Errorf("%d answers did not say which version and which revision of the split they came from", l.calls)
		case l.calls > 0 && l.split.weight(l.version) == 0:
			return fmt.Errorf("split %v: %d calls were answered by %s, which has no weight", l.split, l.calls, l.version)
		}
	}
	return nil
}
