package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// verdict is what measurements say of a comparison.
type verdict int

const (
	fine verdict = iota // not slower by more than the margin
	undecided
	slower
)

// comparison is of one figure that both revisions have.
type comparison struct {
	what    string // a benchmark and its unit, or a scenario: one of its half
	run     string // what measures it again, as -test.bench or -scenarios takes it
	line    string // what was found, for people
	verdict verdict
}

// pool is a set of measurements that has none in common with another.
type pool string

const (
	first pool = "first"
	again pool = "again" // of what seems slower by the first
)

// measurer takes some more measurements into a pool, of everything if run is empty, and returns what the whole pool says:
// all comparisons, and as a table.
type measurer func(into pool, run []string) (all []comparison, table string, err error)

// settle measures until it is known what is slower, or patience is over. What seems slower is so only if fresh
// measurements say it by themselves, too. However unlikely chance makes a difference, it is of measurements that know nothing of each
// other: those of the same few minutes do, since other work on a machine comes in phases.
func (m measurer) settle(stdout, stderr io.Writer) (found findings, err error) {
	suspects, open, err := m.sift(first, nil, stdout, stderr)
	if err != nil {
		return found, err
	}
	found.undecided = lines(open)
	if len(suspects) == 0 {
		return found, nil
	}
	fmt.Fprintf(stderr, "seems slower, is measured again: %s\n", strings.Join(runs(suspects), ", "))
	confirmed, open, err := m.sift(again, suspects, stdout, stderr)
	found.slower = lines(confirmed)
	found.undecided = append(found.undecided, lines(open)...)
	return found, err
}

// sift measures what is asked for, everything if that is nil, and what is undecided then more often, up to patience. It returns
// what is slower, and what is still undecided.
func (m measurer) sift(into pool, asked []comparison, stdout, stderr io.Writer) (slow, open []comparison, err error) {
	open = asked
	for turn := 1; ; turn++ {
		all, table, err := m(into, runs(open))
		if err != nil {
			return nil, nil, err
		}
		if open == nil {
			open = all
		}
		var rest []comparison
		for _, c := range open {
			i := slices.IndexFunc(all, func(now comparison) bool { return now.what == c.what })
			switch {
			case i < 0: // it was there before
				if !strings.HasSuffix(c.line, notAgain) {
					c.line += notAgain
				}
				rest = append(rest, c)
			case all[i].verdict == slower:
				slow = append(slow, all[i])
			case all[i].verdict == undecided:
				rest = append(rest, all[i])
			}
		}
		open = rest
		if len(open) == 0 || turn == patience {
			fmt.Fprintf(stdout, "measured %s:\n%s\n", into, table)
			return slow, open, nil
		}
		fmt.Fprintf(stderr, "not decided: %s\n", strings.Join(runs(open), ", "))
	}
}

// notAgain ends the line on what was there the first time only.
const notAgain = "; not measured again"

// runs returns what measures comparisons again, each once.
func runs(of []comparison) (out []string) {
	for _, c := range of {
		out = append(out, c.run)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lines returns what was found, for people.
func lines(of []comparison) (out []string) {
	for _, c := range of {
		out = append(out, c.line)
	}
	return out
}
