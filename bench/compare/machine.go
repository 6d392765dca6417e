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
	// Generator says what made the load.
	Generator string `json:"generator"`
	// LoadBefore and LoadAfter are /proc/loadavg's one-minute averages as written.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after,omitempty"`
}

// thisMachine describes the machine. What cannot be read stays "unknown": it is
// a label, not a measurement.
func thisMachine(generator string) machine {
	m := machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Kernel: "unknown", Go: runtime.Version(), Generator: generator, LoadBefore: loadAverage()}
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
	text := fmt.Sprintf("%d cores (%s), Linux %s, %s, load by %s, load average %s before",
		m.Cores, m.CPU, m.Kernel, m.Go, m.Generator, m.LoadBefore)
	if m.LoadAfter != "" {
		text += " and " + m.LoadAfter + " after"
	}
	return text
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
