package gateway

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// statEvery is how often files are looked at for changes, at most: handshakes
// come in bursts.
const statEvery = time.Second

// watched is a value read from files, and read again when they have changed. New
// contents that cannot be used leave the last good value in place. Safe for
// concurrent use.
type watched[T any] struct {
	what  string // for the log
	log   *slog.Logger
	files []string
	read  func() (T, error)

	mu      sync.Mutex
	checked time.Time
	stamp   string // of the files when value was read
	value   T
	loaded  bool  // there is a value
	err     error // of the latest attempt
}

// get returns the latest usable value; it fails only while there never was one.
func (f *watched[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.checked.IsZero() || now.Sub(f.checked) >= statEvery {
		f.checked = now
		f.check()
	}
	if !f.loaded {
		return f.value, f.err
	}
	return f.value, nil
}

// check reads the files if they have changed, or could not be read before: a
// certificate and its key are rarely replaced in the same instant.
func (f *watched[T]) check() {
	stamp := stampOf(f.files) // before reading: a change in between shows next time
	if f.loaded && f.err == nil && stamp == f.stamp {
		return
	}
	before := f.err
	v, err := f.read()
	f.err = err
	switch {
	case err != nil:
		if f.loaded && before == nil { // said once, not with every handshake
			f.log.Error(f.what+" cannot be reloaded, the last good one stays in use", "error", err)
		}
		return
	case f.loaded:
		f.log.Info(f.what + " is reloaded")
	}
	f.value, f.loaded, f.stamp = v, true, stamp
}

// stampOf tells states of files apart without reading them.
func stampOf(files []string) string {
	s := ""
	for _, name := range files {
		if fi, err := os.Stat(name); err == nil {
			s += fmt.Sprintf("%d %d\n", fi.ModTime().UnixNano(), fi.Size())
		} else {
			s += "missing\n"
		}
	}
	return s
}
