package payload

import (
	"errors"
	"strconv"
	"strings"
)

// MaxSize is the largest message that [Size] reads, in bytes: what Sluice lets pass.
const MaxSize = 64 << 20

// Size is a number of bytes that people write as 512, 4KiB or 1MiB.
type Size int

// String returns what Set reads.
func (s *Size) String() string {
	return strings.ReplaceAll(strings.TrimSuffix(s.Text(), " B"), " ", "")
}

// Type implements pflag.Value.
func (s *Size) Type() string { return "size" }

// Text returns the size with a unit, for people.
func (s Size) Text() string {
	switch n := int(s); {
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + " MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + " KiB"
	default:
		return strconv.Itoa(n) + " B"
	}
}

// Set reads a size from MinSize to MaxSize.
func (s *Size) Set(text string) error {
	digits, unit := strings.TrimSpace(text), 1
	if d, ok := strings.CutSuffix(digits, "KiB"); ok {
		digits, unit = d, 1<<10
	} else if d, ok := strings.CutSuffix(digits, "MiB"); ok {
		digits, unit = d, 1<<20
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > MaxSize/unit || n*unit < MinSize {
		return errors.New("want 64 to 64MiB, as in 4KiB")
	}
	*s = Size(n * unit)
	return nil
}
