package statefile

import (
	"errors"
	"os"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
)

var errBroken = errors.New("input/output error")

// failing is a file on a disk that takes what is written and then fails, for a while.
type failing struct {
	*os.File
	sync, truncate error
}

func (f *failing) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

func (f *failing) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(size)
}

// TestWhatMayBeThereAfterARestartIsNotCalledUndone: an entry that the disk has failed to keep,
// and failed to take back, is found by the next process; until then nobody knows.
func TestWhatMayBeThereAfterARestartIsNotCalledUndone(t *testing.T) {
	entry := func(key string) *routingv1.JournalEntry {
		return &routingv1.JournalEntry{Request: &routingv1.StoredRequest{Key: key}}
	}
	path := t.TempDir()
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	read := func() (keys []string) {
		j, err := dir.OpenJournal(func(e *routingv1.JournalEntry) error {
			keys = append(keys, e.GetRequest().GetKey())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		return keys
	}
	j, err := dir.OpenJournal(func(*routingv1.JournalEntry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	disk := &failing{File: j.f.(*os.File)}
	j.f = disk
	if err := j.Append(entry("kept")); err != nil {
		t.Fatal(err)
	}

	disk.sync, disk.truncate = errBroken, errBroken
	for range 2 { // the second one is not written, but what of the first?
		if err := j.Append(entry("in doubt")); !errors.Is(err, ErrUncertain) || !errors.Is(err, errBroken) {
			t.Errorf("Append = %v, want that it may be there", err)
		}
	}
	if keys := read(); len(keys) != 2 || keys[1] != "in doubt" {
		t.Errorf("after a restart there are %q: the test shows nothing", keys)
	}

	disk.sync, disk.truncate = nil, nil
	if err := j.Append(entry("next")); err != nil {
		t.Fatal(err)
	}
	if keys := read(); len(keys) != 2 || keys[1] != "next" {
		t.Errorf("there are %q, want what was in doubt replaced", keys)
	}

	dir.sync = func(string) error { return errBroken }
	if err := dir.Write(&routingv1.StoredState{Revision: 7}); !errors.Is(err, ErrUncertain) {
		t.Errorf("Write = %v, want that it may be there", err)
	}
	if state, err := dir.Read(); err != nil || state.GetRevision() != 7 {
		t.Errorf("there is %v, %v: the test shows nothing", state, err)
	}
}
