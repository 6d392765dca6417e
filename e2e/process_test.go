package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a child process. Its output, both streams, is kept.
type process struct {
	cmd   *exec.Cmd
	out   logBuffer
	ended chan struct{}
	err   error // of its end; read it once ended is closed
}

// startProcess starts a program, which is killed at the end of the test if it is
// still there.
func startProcess(t testing.TB, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %v:\n%s", p.cmd, &p.out)
		}
	})
	return p
}

// startRole starts the test binary in another role; see roles.
func startRole(t testing.TB, name string, env ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProcess(t, append(env, roleVariable+"="+name), self)
}

// kill ends the process without a chance to say goodbye and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it fails for one that has ended, which is fine
	<-p.ended
}

// pause stops the process and returns once all its threads stand still: until then it may
// answer what comes.
func (p *process) pause(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	eventually(t, patience, "it stands still", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		for _, file := range threads {
			stat, _ := os.ReadFile(file) // a thread may have ended
			if !strings.Contains(string(stat), ") T ") {
				return fmt.Errorf("%s: %.40s", file, stat)
			}
		}
		return err
	})
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// await waits until the output matches, and returns the submatches.
func (p *process) await(t testing.TB, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := re.FindStringSubmatch(p.out.String()); m != nil {
			return m
		}
		select {
		case <-p.ended:
			t.Fatalf("%v ended (%v) before its output matched %q:\n%s", p.cmd, p.err, pattern, &p.out)
		default:
		}
	}
	t.Fatalf("output of %v does not match %q:\n%s", p.cmd, pattern, &p.out)
	return nil
}

// stop ends the process by SIGTERM and returns how long that took.
func (p *process) stop(t testing.TB, patience time.Duration) time.Duration {
	t.Helper()
	started := time.Now()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("%v is still there %v after SIGTERM", p.cmd, patience)
	}
	if p.err != nil {
		t.Errorf("%v: %v", p.cmd, p.err)
	}
	return time.Since(started)
}

// program builds sluice once and returns its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-o", path, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building sluice: %w\n%s", err, out)
	}
	return path, nil
})

// binaryDir is where program has put the binary, if it has.
var binaryDir string

func removeBinary() {
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir) // what is left lies in the folder for temporary files
	}
}

// sluice is the binary, serving.
type sluice struct {
	*process
	addr   string
	routes string
}

// startSluice runs "sluice serve" until the test ends.
func startSluice(t testing.TB, routes string, flags ...string) *sluice {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	s := &sluice{routes: filepath.Join(t.TempDir(), "routes.yaml")}
	writeFile(t, s.routes, routes)
	args := []string{"serve", "--routes", s.routes, "--listen", "127.0.0.1:0", "--admin", "off"}
	s.process = startProcess(t, []string{"XDG_STATE_HOME=" + t.TempDir()}, path, append(args, flags...)...)
	s.addr = s.await(t, `sluice serves.*listen"?[=:]"?([0-9.:]+)`)[1]
	return s
}
