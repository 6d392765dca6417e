package routing

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestOtherFilesDoNotConcernUs: a folder may be full of busy files.
func TestOtherFilesDoNotConcernUs(t *testing.T) {
	f := NewFileSource(FileConfig{Path: "/etc/sluice/routes.yaml"})
	for _, test := range []struct {
		name string
		op   fsnotify.Op
		want bool
	}{
		{"routes.yaml", fsnotify.Write, true},
		{"routes.yaml", fsnotify.Create, true},
		{"routes.yaml", fsnotify.Rename, true},
		{"routes.yaml", fsnotify.Remove, true},
		{"routes.yaml", fsnotify.Write | fsnotify.Chmod, true},
		{"routes.yaml", fsnotify.Chmod, false},
		{"..data", fsnotify.Create, true},
		{"routes.yaml.tmp", fsnotify.Write, false},
		{"access.log", fsnotify.Write, false},
	} {
		event := fsnotify.Event{Name: "/etc/sluice/" + test.name, Op: test.op}
		if got := f.concerns(event); got != test.want {
			t.Errorf("concerns(%v) = %v, want %v", event, got, test.want)
		}
	}
}

// TestSettlerWaitsButNotForever: it waits for quiet, but a file that is never
// left alone is read in the end.
func TestSettlerWaitsButNotForever(t *testing.T) {
	const quiet = 100 * time.Millisecond
	for _, test := range []struct {
		touches int // one after every half of the quiet time
		want    time.Duration
	}{
		{1, quiet},
		{2, quiet * 3 / 2},
		{18, quiet * 19 / 2},
		{1000, quiet * patience},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSettler(quiet)
			defer s.stop()
			begun, touches := time.Now(), time.NewTicker(quiet/2)
			defer touches.Stop()
			s.touch()
			for n := 1; ; {
				select {
				case <-s.settled():
					if waited := time.Since(begun); waited != test.want {
						t.Errorf("settled %v after the first of %d touches, want %v", waited, test.touches, test.want)
					}
					return
				case <-touches.C:
					if n < test.touches {
						n++
						s.touch()
					}
				}
			}
		})
	}
}
