package load

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// timer sleeps more exactly than time.Sleep, which on Linux rounds up to the next
// millisecond when nothing else runs: at a thousand calls per second every one would
// be late.
type timer struct{ file *os.File }

func newTimer() (*timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &timer{os.NewFile(uintptr(fd), "timer")}, nil
}

// sleep returns after d, or when the timer is closed.
func (t *timer) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return os.NewSyscallError("timerfd_settime", failed)
	}
	var expirations [8]byte
	_, err = t.file.Read(expirations[:])
	return err
}

// close ends a sleep that is under way. It may be called while another goroutine sleeps.
func (t *timer) close() error { return t.file.Close() }
