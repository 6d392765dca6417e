package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Usage is what the processes of one group have used until now.
type Usage struct {
	PIDs     []int // sorted
	CPU      time.Duration
	Resident uint64 // bytes
	Peak     uint64 // bytes, the sum of each process's own peak
}

// Group returns the usage of a process group. Processes that ended before the
// call are missing from it; compare PIDs to notice.
func Group(group int) (Usage, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("process group %d: %w", group, err)
	}
	var usage Usage
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if gone(err) {
			continue
		}
		if err != nil {
			return Usage{}, fmt.Errorf("process group %d: %w", group, err)
		}
		stat, err := ParseStat(string(line))
		if err != nil {
			return Usage{}, err
		}
		if stat.Group != group {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if gone(err) {
			continue
		}
		if err != nil {
			return Usage{}, fmt.Errorf("process group %d: %w", group, err)
		}
		resident, peak, err := ParseMemory(string(status))
		if err != nil {
			return Usage{}, err
		}
		usage.PIDs = append(usage.PIDs, stat.PID)
		usage.CPU += stat.CPU
		usage.Resident += resident
		usage.Peak += peak
	}
	if len(usage.PIDs) == 0 {
		return Usage{}, fmt.Errorf("process group %d: no process is left", group)
	}
	slices.Sort(usage.PIDs)
	return usage, nil
}

// gone reports whether a process ended between being listed and being read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// Busy returns the CPU time the whole machine has been busy since it started.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("system stat: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return ParseBusy(line)
}
