package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine says where figures come from: they compare within a run, not between machines.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	H2load string `json:"h2load"`
	// LoadBefore and LoadAfter are /proc/loadavg's one-minute averages as written.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

// thisMachine describes the machine. What cannot be read stays "unknown": it is
// a label, not a measurement.
func thisMachine(h2load string) machine {
	m := machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Kernel: "unknown", Go: runtime.Version(), H2load: h2load, LoadBefore: loadAverage()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// String returns the description on one line.
func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), Linux %s, %s, h2load %s, load average %s before and %s after",
		m.Cores, m.CPU, m.Kernel, m.Go, m.H2load, m.LoadBefore, m.LoadAfter)
}

// loadAverage returns the one-minute load average.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
