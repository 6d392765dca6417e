package routing

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// configMapLink is what Kubernetes replaces in the folder of a mounted ConfigMap
// when its content changes; the files are links through it.
const configMapLink = "..data"

// watch reports what happens around the file until stop is called. It watches
// the folder, not the file: editors and Kubernetes put another file in its
// place, which a watch on the file would not survive. Where watching is not
// possible, polling has to do.
func (s *FileSource) watch() (events <-chan fsnotify.Event, lost <-chan error, stop func() error) {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(s.config.Path)); err == nil {
			return watcher.Events, watcher.Errors, watcher.Close
		}
		err = errors.Join(err, watcher.Close())
	}
	s.config.Logger.Warn("changes of the routes are found by polling only",
		"file", s.config.Path, "every", s.config.Poll, "error", err)
	return nil, nil, func() error { return nil }
}

// concerns reports whether an event may mean that the file has another content.
func (s *FileSource) concerns(event fsnotify.Event) bool {
	if event.Op == fsnotify.Chmod {
		return false
	}
	name := filepath.Base(event.Name)
	return name == filepath.Base(s.config.Path) || name == configMapLink
}

// settler waits until nothing has happened for a while, but not forever.
type settler struct {
	quiet    time.Duration
	timer    *time.Timer
	deadline time.Time // zero while nothing is awaited
}

// patience is how many quiet times a settler waits at most.
const patience = 10

func newSettler(quiet time.Duration) *settler {
	t := time.NewTimer(quiet)
	t.Stop()
	return &settler{quiet: quiet, timer: t}
}

// touch says that something has happened.
func (s *settler) touch() {
	if s.deadline.IsZero() {
		s.deadline = time.Now().Add(patience * s.quiet)
	}
	s.timer.Reset(min(s.quiet, time.Until(s.deadline)))
}

func (s *settler) settled() <-chan time.Time { return s.timer.C }
func (s *settler) done()                     { s.deadline = time.Time{} }
func (s *settler) stop()                     { s.timer.Stop() }
