//go:build !linux

package load

import (
	"os"
	"sync"
	"time"
)

// timer sleeps as exactly as the runtime does.
type timer struct {
	once   sync.Once
	closed chan struct{}
}

func newTimer() (*timer, error) { return &timer{closed: make(chan struct{})}, nil }

// sleep returns after d, or when the timer is closed.
func (t *timer) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-t.closed:
		return os.ErrClosed
	}
}

// close ends a sleep that is under way. It may be called while another goroutine sleeps.
func (t *timer) close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}
