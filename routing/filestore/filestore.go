// Package filestore keeps the routing state in a folder on disk, for one
// gateway: changes survive a restart and a loss of power.
package filestore

import (
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing/memstore"
	"sluice/routing/statefile"
)

// minJournal is the least size of a journal, in bytes, at which the whole state is
// written anew. Beyond that it is the size of the state itself: so what is written for a
// change is on average no more than some of the change's own size.
const minJournal = 1 << 20

// Store is a [sluice/routing.Store] in a folder. Everything is read from memory;
// every change is on disk before it is answered.
type Store struct {
	*memstore.Store
	disk *disk
}

// Open reads the state in the folder, which is made if it is not there. It fails
// if another process uses the folder, if nothing can be written to it, or if what
// is in it is damaged: then nothing is touched, and the operator decides.
func Open(path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := statefile.Open(path)
	if err != nil {
		return nil, err
	}
	store, d, err := read(path, dir)
	if err != nil {
		_ = dir.Close()
		if errors.Is(err, statefile.ErrDamaged) {
			err = fmt.Errorf("%w; restore the file from a backup, or move it away to begin anew", err)
		}
		return nil, err
	}
	return &Store{store, d}, nil
}

// read returns what is in a folder.
func read(path string, dir *statefile.Dir) (*memstore.Store, *disk, error) {
	from, err := dir.Read()
	if err != nil {
		return nil, nil, err
	}
	d := &disk{Dir: dir, whole: int64(proto.Size(from))}
	store := memstore.New(memstore.Config{Name: "file:" + path, From: from, Disk: d})
	d.journal, err = dir.OpenJournal(store.Replay)
	return store, d, err
}

// Close unlocks the folder, once nothing is being written any more.
func (s *Store) Close() error {
	return errors.Join(s.Store.Close(), s.disk.journal.Close(), s.disk.Dir.Close())
}

// disk keeps a state in two files: the whole one, replaced now and then, and a journal of
// what has been done since.
type disk struct {
	*statefile.Dir
	journal *statefile.Journal
	whole   int64 // size of the state that was written last
}

// Append adds to the journal or, where that has become long, writes the whole state. If
// the journal cannot be cleared afterwards, what it has is passed over when it is read,
// and the next entry tries again.
func (d *disk) Append(entry *routingv1.JournalEntry, whole func() *routingv1.StoredState) error {
	if d.journal.Size() < max(minJournal, d.whole) {
		return d.journal.Append(entry)
	}
	state := whole()
	if err := d.Write(state); err != nil {
		return err
	}
	d.whole = int64(proto.Size(state))
	_ = d.journal.Clear()
	return nil
}
