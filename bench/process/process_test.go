package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell starts a script that writes the process id of a child to a file, and
// returns the process and that id.
func shell(t *testing.T, script string) (*Process, int) {
	t.Helper()
	pidFile := filepath.Join(t.TempDir(), "pid")
	p, err := Start(Command{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PID_FILE=" + pidFile}}, filepath.Join(t.TempDir(), "log"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for range 500 {
		if pid, err := readPID(pidFile); err == nil {
			return p, pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the script wrote no process id; it said %q", p.Log())
	return nil, 0
}

// readPID fails until the whole line is there.
func readPID(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	line, ok := strings.CutSuffix(string(text), "\n")
	if !ok {
		return 0, errors.New("not written yet")
	}
	return strconv.Atoi(line)
}

// awaitGone fails the test unless a process ends soon. A zombie nobody has
// reaped yet counts as ended.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still running", pid)
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	p, child := shell(t, `sleep 60 & echo $! > "$PID_FILE"; wait`)
	p.Stop()
	awaitGone(t, child)
	awaitGone(t, p.Group())
	p.Stop() // must be harmless
}

func TestStopEndsAGroupThatIgnoresSIGTERM(t *testing.T) {
	p, child := shell(t, `trap "" TERM; sleep 60 & echo $! > "$PID_FILE"; while :; do wait; done`)
	p.Stop()
	awaitGone(t, child)
	awaitGone(t, p.Group())
}

func TestWorkersDoNotOutliveTheirLeader(t *testing.T) {
	p, child := shell(t, `sleep 60 & echo $! > "$PID_FILE"; exit 3`)
	<-p.Ended()
	awaitGone(t, child)
}

func TestLogHasBothStreams(t *testing.T) {
	p, _ := shell(t, `echo out; echo err >&2; echo $$ > "$PID_FILE"`)
	<-p.Ended()
	if got := p.Log(); got != "out\nerr" {
		t.Errorf("Log() = %q, want both lines", got)
	}
}

func TestStartNamesAProgramThatIsNotThere(t *testing.T) {
	_, err := Start(Command{Path: "/no/such/program"}, filepath.Join(t.TempDir(), "log"), nil)
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("Start = %v, want an error that names the program", err)
	}
}

func TestCommandReadsAsTyped(t *testing.T) {
	got := Command{Path: "sluice", Args: []string{"serve", "--listen", "a:1"}, Env: []string{"GOGC=200"}}.String()
	if want := "GOGC=200 sluice serve --listen a:1"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}
