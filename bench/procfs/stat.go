// Package procfs reads what Linux says about processes: CPU time, resident
// memory, and how busy the machine is. The operating system's figures are used
// because they cost the measured process nothing and cannot flatter it.
package procfs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc/stat: USER_HZ, which Linux fixes at 100 per
// second on every architecture Go supports (proc(5), sysconf(3)).
const tick = time.Second / 100

// Stat is what one line of /proc/PID/stat says, as far as it is needed here.
type Stat struct {
	PID   int
	Name  string
	Group int
}

// ParseStat reads the line of /proc/PID/stat. The name may contain anything,
// spaces and parentheses too, so fields are counted from its last parenthesis.
func ParseStat(line string) (Stat, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("process stat: got %q, want a name in parentheses", line)
	}
	// Fields 3 and up of proc(5): state, ppid, pgrp, ...
	fields := strings.Fields(line[end+1:])
	const first, pgrp = 3, 5
	if len(fields) <= pgrp-first {
		return Stat{}, fmt.Errorf("process stat: got %d fields after the name, want at least %d", len(fields), pgrp-first+1)
	}
	var numbers [2]int64
	for i, text := range []string{strings.TrimSpace(line[:open]), fields[pgrp-first]} {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Stat{}, fmt.Errorf("process stat: got %q, want a number", text)
		}
		numbers[i] = n
	}
	return Stat{
		PID:   int(numbers[0]),
		Name:  line[open+1 : end],
		Group: int(numbers[1]),
	}, nil
}

// ParseBusy reads the first line of /proc/stat: the CPU time that was not idle,
// summed over all cores, stolen time included.
func ParseBusy(line string) (time.Duration, error) {
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal [guest guest_nice];
	// guest times are already part of user and nice.
	const idle, iowait, steal = 4, 5, 8
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, fmt.Errorf("system stat: got %q, want \"cpu\" and at least %d numbers", line, steal)
	}
	var busy int64
	for i := 1; i <= steal; i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("system stat: got %q, want a number", fields[i])
		}
		if i != idle && i != iowait {
			busy += n
		}
	}
	return time.Duration(busy) * tick, nil
}

// ParseMemory reads /proc/PID/status: resident memory now and at its highest,
// in bytes. A process that is ending has none.
func ParseMemory(status string) (resident, peak uint64, err error) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		var into *uint64
		switch key {
		case "VmRSS":
			into = &resident
		case "VmHWM":
			into = &peak
		default:
			continue
		}
		kib, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseUint(kib, 10, 64)
		if !ok || err != nil {
			return 0, 0, fmt.Errorf("process status: %s: got %q, want a number of kB", key, strings.TrimSpace(value))
		}
		*into = n << 10
	}
	return resident, peak, nil
}
