package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the processes of one group have used until now.
type Usage struct {
	PIDs     []int         // sorted
	CPU      time.Duration // user and system
	Resident uint64        // bytes
	Peak     uint64        // bytes, the sum of each process's own peak
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
		cpu, err := CPU(stat.PID)
		if gone(err) {
			continue
		}
		if err != nil {
			return Usage{}, fmt.Errorf("process group %d: %w", group, err)
		}
		usage.PIDs = append(usage.PIDs, stat.PID)
		usage.CPU += cpu
		usage.Resident += resident
		usage.Peak += peak
	}
	if len(usage.PIDs) == 0 {
		return Usage{}, fmt.Errorf("process group %d: no process is left", group)
	}
	slices.Sort(usage.PIDs)
	return usage, nil
}

// CPU returns the CPU time, user and system, of all threads that a process has had, to the nanosecond: by
// the clock that Linux has for each process. What /proc says of it counts in units of 10 ms.
func CPU(pid int) (time.Duration, error) {
	// The ids of such clocks are part of the kernel's interface (clock_getcpuclockid(3)): the complement of the
	// process's id, then two for the time it was scheduled.
	const scheduled = 2
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	if errors.Is(err, unix.EINVAL) { // no such clock
		err = unix.ESRCH
	}
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// gone reports whether a process ended between being listed and being read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
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
