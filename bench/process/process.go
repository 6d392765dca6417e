// Package process starts the programs under measurement, each as the leader of
// a process group of its own, and ends whole groups. It signals no process that
// it did not start.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a group may take to end after SIGTERM. Nothing here has
// state worth a long goodbye.
const patience = 2 * time.Second

// Command says what to start.
type Command struct {
	Path string
	Args []string
	Env  []string // "KEY=value", in addition to the harness's own environment
}

// String returns the command as one would type it.
func (c Command) String() string {
	return strings.Join(append(append(append([]string{}, c.Env...), c.Path), c.Args...), " ")
}

// Process is a started program with its children. Its methods are safe for
// concurrent use.
type Process struct {
	command *exec.Cmd
	log     string
	ended   chan struct{}

	mu    sync.Mutex
	freed bool // the group's id may belong to somebody else by now
}

// Start starts a command whose output, both streams, goes to the file log. If
// stdout is not nil it gets standard output instead.
func Start(c Command, log string, stdout *os.File) (*Process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	defer output.Close() // the child has its own descriptor

	command := exec.Command(c.Path, c.Args...)
	command.Env = append(os.Environ(), c.Env...)
	command.Stdout, command.Stderr = output, output
	if stdout != nil {
		command.Stdout = stdout
	}
	// A group of its own: Ctrl-C in a terminal reaches the harness alone, which
	// then ends the others in order, workers included.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	p := &Process{command: command, log: log, ended: make(chan struct{})}
	go p.reap()
	return p, nil
}

// Group returns the id of the process group, which is the leader's process id.
func (p *Process) Group() int { return p.command.Process.Pid }

// Ended is closed once the leader has ended and the rest of its group was killed.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// reap waits for the leader. Workers that outlive it are killed while the
// unreaped leader still holds the group's id, so that the id cannot have gone
// to a stranger.
func (p *Process) reap() {
	defer close(p.ended)
	for {
		err := unix.Waitid(unix.P_PID, p.Group(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = true
	// The exit status says nothing here: most peers are ended by signal.
	_ = p.command.Wait()
}

// signal sends a signal to the whole group, unless it is gone.
func (p *Process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.freed {
		// The only possible failure is that nobody is left.
		_ = syscall.Kill(-p.Group(), s)
	}
}

// Stop ends the group, politely first, and returns when it has ended. It may be
// called more than once.
func (p *Process) Stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return
	case <-time.After(patience):
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// Log returns the last lines the process wrote, for error messages.
func (p *Process) Log() string {
	const most = 2000
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return strings.TrimSpace(string(text))
}
