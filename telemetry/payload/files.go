package payload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// parts is how many files the room is divided into, at least: what is deleted at once is one of them.
	parts = 16
	// begun is how a file's name says when it began.
	begun     = "20060102T150405.000000000Z"
	namePart  = "payloads-"
	extension = ".jsonl"
)

// files are those of one directory, which other gateways may use, too. They belong to one goroutine.
type files struct {
	dir      string
	maxBytes int64
	keep     time.Duration

	current *os.File // nil after an error
	bytes   int64    // in it
	began   time.Time
}

func newFiles(c Config) *files { return &files{dir: c.Dir, maxBytes: c.MaxBytes, keep: c.Keep} }

// write appends a line, to a new file if there is none or the last one is full or old.
func (f *files) write(text []byte, now time.Time) error {
	// An hour, so that what is new does not keep what is old.
	full := f.bytes > 0 && f.bytes+int64(len(text)) > f.maxBytes/parts
	if f.current == nil || full || now.Sub(f.began) >= min(time.Hour, f.keep/parts) {
		if err := errors.Join(f.close(), f.open(now), f.prune(now)); err != nil {
			return err
		}
	}
	n, err := f.current.Write(text)
	f.bytes += int64(n)
	if err != nil {
		return errors.Join(err, f.close()) // another file, perhaps, when there is room again
	}
	return nil
}

// open begins a file that nobody else may read.
func (f *files) open(now time.Time) error {
	name := namePart + now.UTC().Format(begun) + fmt.Sprintf("-%d", os.Getpid()) + extension
	file, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	f.current, f.bytes, f.began = file, 0, now
	return nil
}

// close ends the current file; one without a line is removed.
func (f *files) close() error {
	if f.current == nil {
		return nil
	}
	err := f.current.Close()
	if f.bytes == 0 {
		err = errors.Join(err, os.Remove(f.current.Name()))
	}
	f.current = nil
	return err
}

// prune deletes what has been kept for long enough, and the oldest while there is too much.
func (f *files) prune(now time.Time) error {
	if f.current != nil && now.Sub(f.began) >= f.keep {
		if err := f.close(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	type old struct {
		path  string
		size  int64
		began time.Time
	}
	var all []old
	var total int64
	for _, e := range entries {
		stamp, ok := stampOf(e.Name())
		info, err := e.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue // not ours, or gone meanwhile
		}
		all = append(all, old{filepath.Join(f.dir, e.Name()), info.Size(), stamp})
		total += info.Size()
	}
	slices.SortFunc(all, func(a, b old) int { return a.began.Compare(b.began) })
	var problems []error
	room := f.maxBytes - f.maxBytes/parts + f.bytes // the current file will be as large as a part
	for _, o := range all {
		if total <= room && now.Sub(o.began) < f.keep {
			break
		}
		if f.current != nil && o.path == f.current.Name() {
			continue
		}
		if err := os.Remove(o.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
			continue
		}
		total -= o.size
	}
	return errors.Join(problems...)
}

// stampOf reads from a file's name when it began; false if it is none of ours.
func stampOf(name string) (time.Time, bool) {
	text, ok := strings.CutPrefix(name, namePart)
	if !ok || !strings.HasSuffix(name, extension) {
		return time.Time{}, false
	}
	text, _, _ = strings.Cut(text, "-")
	t, err := time.Parse(begun, text)
	return t, err == nil
}
