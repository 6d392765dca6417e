package storetest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/loopback"
)

// Redis is a redis-server that a test has started and may treat badly.
type Redis struct {
	Addr string // host:port on loopback
	Dir  string // its data

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// StartRedis starts a redis-server on a free port, with further arguments such
// as "--appendonly", "yes". It ends with the test. Without a redis-server on
// this machine the test fails.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r := &Redis{Addr: FreeAddr(t), Dir: t.TempDir(), t: t}
	_, port, _ := net.SplitHostPort(r.Addr)
	r.args = append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", r.Dir, "--save", "", "--loglevel", "warning",
	}, args...)
	r.Start()
	t.Cleanup(r.Kill)
	return r
}

// StartSentinel starts a sentinel that watches a primary under the name
// "primary" and fails over after half a second of silence.
func StartSentinel(t testing.TB, primary *Redis) *Redis {
	t.Helper()
	r := &Redis{Addr: FreeAddr(t), Dir: t.TempDir(), t: t}
	_, port, _ := net.SplitHostPort(r.Addr)
	host, primaryPort, _ := net.SplitHostPort(primary.Addr)
	conf := filepath.Join(r.Dir, "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor primary %s %s 1\n"+
		"sentinel down-after-milliseconds primary 500\nsentinel failover-timeout primary 2000\n", port, r.Dir, host, primaryPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.args = []string{conf, "--sentinel"}
	r.Start()
	t.Cleanup(r.Kill)
	return r
}

// URL returns what a --store flag says for this Redis.
func (r *Redis) URL() string { return "redis://" + r.Addr }

// Start starts the server, again if it was killed, and waits until it answers.
func (r *Redis) Start() {
	r.t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		r.t.Fatal("redis-server is not installed; try: apt-get install redis-server")
	}
	r.log.Reset()
	r.cmd = exec.Command(binary, r.args...)
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if answer, err := ask(r.Addr, "PING"); err == nil && answer == "PONG" {
			return
		}
		if time.Now().After(end) {
			r.Kill()
			r.t.Fatalf("redis-server does not answer within 10 s:\n%s", r.log.String())
		}
	}
}

// Kill ends the server at once, as a loss of power would. A server that does not
// run stays so.
func (r *Redis) Kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

// Hang stops the server without ending it: connections stay, answers do not come.
func (r *Redis) Hang() { r.signal(syscall.SIGSTOP) }

// Resume lets a server that hangs go on.
func (r *Redis) Resume() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// Do sends one command and returns the answer in one line, or fails the test.
func (r *Redis) Do(args ...string) string {
	r.t.Helper()
	answer, err := ask(r.Addr, args...)
	if err != nil {
		r.t.Fatalf("redis: %v: %v", args, err)
	}
	return answer
}

// ask speaks RESP by itself, so that what is under test does not check itself.
// Of an answer that is an array it returns the first line.
func ask(addr string, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := conn.Write([]byte(request.String())); err != nil {
		return "", err
	}
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '-':
		return "", fmt.Errorf("%s", line[1:])
	case '$':
		if line == "$-1" {
			return "", nil
		}
		body, err := lines.ReadString('\n')
		return strings.TrimSuffix(body, "\r\n"), err
	default:
		return line[1:], nil
	}
}

// FreeAddr returns an address on loopback that nobody listens on but who asked for it.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := loopback.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
