// Package linediff compares texts line by line, for people to read.
package linediff

import "slices"

// Op says what became of a line.
type Op uint8

// The operations.
const (
	Same Op = iota
	Removed
	Added
	Skipped // stands for lines that are the same and not shown
)

// Line is one line of a comparison.
type Line struct {
	Op   Op
	Text string // empty if skipped
}

// maxCells bounds the table of a comparison: 2,000 lines against 2,000. What is
// larger is shown as removed and added, which is right and only less readable.
const maxCells = 4_000_000

// Of returns the shortest way from one text to the other, with some equal lines
// of context around each difference, and none if the texts are equal.
func Of(before, after []string, context int) []Line {
	return trim(compare(before, after), context)
}

// compare returns all lines of both texts.
func compare(before, after []string) []Line {
	var head, tail []Line
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		head = append(head, Line{Same, before[0]})
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		tail = append(tail, Line{Same, before[len(before)-1]})
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	slices.Reverse(tail)
	return slices.Concat(head, middle(before, after), tail)
}

// middle compares by the longest common subsequence.
func middle(before, after []string) []Line {
	if len(before)*len(after) > maxCells {
		return append(all(Removed, before), all(Added, after)...)
	}
	// common[i][j] is the length of the longest one of before[i:] and after[j:].
	common := make([][]int32, len(before)+1)
	for i := range common {
		common[i] = make([]int32, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []Line
	i, j := 0, 0
	for i < len(before) && j < len(after) {
		switch {
		case before[i] == after[j]:
			lines = append(lines, Line{Same, before[i]})
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			lines = append(lines, Line{Removed, before[i]})
			i++
		default:
			lines = append(lines, Line{Added, after[j]})
			j++
		}
	}
	return append(append(lines, all(Removed, before[i:])...), all(Added, after[j:])...)
}

func all(op Op, texts []string) []Line {
	var lines []Line
	for _, t := range texts {
		lines = append(lines, Line{op, t})
	}
	return lines
}

// trim keeps equal lines only where a difference is near.
func trim(lines []Line, context int) []Line {
	near := make([]bool, len(lines))
	for i, l := range lines {
		if l.Op == Same {
			continue
		}
		for j := max(0, i-context); j <= min(len(lines)-1, i+context); j++ {
			near[j] = true
		}
	}
	var kept []Line
	skipping := false
	for i, l := range lines {
		if near[i] {
			kept, skipping = append(kept, l), false
			continue
		}
		if !skipping && len(kept) > 0 {
			kept = append(kept, Line{Op: Skipped})
		}
		skipping = true
	}
	if n := len(kept); n > 0 && kept[n-1].Op == Skipped {
		kept = kept[:n-1]
	}
	return kept
}
