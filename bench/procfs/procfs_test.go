package procfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const realStat = "9198 (cat) R 9128 9127 3425 0 -1 4194304 100 0 1 0 31 12 7 5 20 0 1 0 237617 3133440 372 18446744073709551615"

func TestParseStat(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       Stat
	}{
		{"plain", realStat, Stat{9198, "cat", 9127}},
		{"name with spaces", strings.Replace(realStat, "(cat)", "(nginx: worker process)", 1), Stat{9198, "nginx: worker process", 9127}},
		{"name that looks like fields", strings.Replace(realStat, "(cat)", "(a) R 1 2 (b)", 1), Stat{9198, "a) R 1 2 (b", 9127}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseStat(test.line)
			if err != nil || got != test.want {
				t.Errorf("ParseStat = %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
	for _, line := range []string{"", "1 (a", "1 )a( R", "1 (a) R 1", strings.Replace(realStat, " 9127 ", " x ", 1), strings.Replace(realStat, "9198", "x", 1)} {
		if got, err := ParseStat(line); err == nil {
			t.Errorf("ParseStat(%q) = %+v, want an error", line, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(realStat)
	f.Add("1 (a) b) R 2 3")
	f.Fuzz(func(t *testing.T, line string) {
		stat, err := ParseStat(line)
		if err == nil && !strings.Contains(line, "("+stat.Name+")") {
			t.Errorf("ParseStat(%q) found the name %q", line, stat.Name)
		}
	})
}

func TestParseBusyLeavesOutIdleAndGuestTimes(t *testing.T) {
	got, err := ParseBusy("cpu  100 20 30 99999 88888 4 5 6 70 80")
	if want := 1650 * time.Millisecond; err != nil || got != want {
		t.Errorf("ParseBusy = %v, %v, want %v", got, err, want)
	}
	for _, line := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"} {
		if got, err := ParseBusy(line); err == nil {
			t.Errorf("ParseBusy(%q) = %v, want an error", line, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	resident, peak, err := ParseMemory("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n")
	if err != nil || resident != 1<<20 || peak != 2<<20 {
		t.Errorf("ParseMemory = %d, %d, %v, want 1 MiB, 2 MiB", resident, peak, err)
	}
	if _, _, err := ParseMemory("VmRSS:\t12 pages\n"); err == nil {
		t.Error("ParseMemory of pages succeeded, want an error")
	}
}

func TestGroupCountsThisProcess(t *testing.T) {
	group := syscall.Getpgrp()
	before, err := Group(group)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(before.PIDs, os.Getpid()) {
		t.Fatalf("group %d = %v, want %d among them", group, before.PIDs, os.Getpid())
	}
	if before.Resident == 0 || before.Peak < before.Resident {
		t.Errorf("resident %d, peak %d: want memory, and the peak at least that", before.Resident, before.Peak)
	}
	if before.CPU <= 0 {
		t.Errorf("CPU time = %v, want some", before.CPU)
	}
}

// burn is a number of loops for which [TestCPUIsWhatTheKernelAccounts] starts this program again; empty otherwise.
const burn = "PROCFS_TEST_BURN"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(burn)); err == nil {
		burnInTwoThreads(n)
		return
	}
	os.Exit(m.Run())
}

// burnInTwoThreads spins, half of it in a thread that ends, then says so and waits to be told to end.
func burnInTwoThreads(n int) {
	spin := func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		sum := 0
		for i := range n {
			sum += i * i
		}
		runtime.KeepAlive(sum)
	}
	done := make(chan struct{})
	go func() { defer close(done); spin() }()
	<-done
	spin()
	fmt.Println("spun")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// The time of a process that lives is that which the kernel accounts for it when it has ended, threads that ended before included.
func TestCPUIsWhatTheKernelAccounts(t *testing.T) {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), burn+"=300000000")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "spun\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	lived, err := CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(input.Close(), command.Wait()); err != nil {
		t.Fatal(err)
	}
	total := command.ProcessState.SystemTime() + command.ProcessState.UserTime() // getrusage of the child, nothing but its end later
	if lived > total || lived < total*3/4 {
		t.Errorf("CPU = %v while it lived, %v when it had ended, want nearly all of it", lived, total)
	}
	if lived%(10*time.Millisecond) == 0 {
		t.Errorf("CPU = %v, want more than ticks", lived)
	}
	if got, err := CPU(pid); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("CPU of a process that has ended = %v, %v, want %v", got, err, syscall.ESRCH)
	}
}

func TestGroupThatDoesNotExistIsAnError(t *testing.T) {
	// Above the largest process id Linux gives out (PID_MAX_LIMIT, 2^22).
	if usage, err := Group(1<<22 + 1); err == nil {
		t.Errorf("Group = %+v, want an error", usage)
	}
}

func TestBusyGrows(t *testing.T) {
	if busy, err := Busy(); err != nil || busy <= 0 {
		t.Errorf("Busy = %v, %v, want some time", busy, err)
	}
}
