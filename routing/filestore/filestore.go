// Package filestore keeps the routing state in a folder on disk, for one
// gateway: changes survive a restart and a loss of power.
package filestore

import (
	"errors"
	"fmt"
	"path/filepath"

	"sluice/routing/memstore"
	"sluice/routing/statefile"
)

// Store is a [sluice/routing.Store] in a folder. Everything is read from memory;
// every change is on disk before it is answered.
type Store struct {
	*memstore.Store
	dir *statefile.Dir
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
	from, err := dir.Read()
	if err != nil {
		_ = dir.Close()
		if errors.Is(err, statefile.ErrDamaged) {
			err = fmt.Errorf("%w; restore the file from a backup, or move it away to begin anew", err)
		}
		return nil, err
	}
	return &Store{
		Store: memstore.New(memstore.Config{Name: "file:" + path, From: from, Persist: dir.Write, Shelves: dir}),
		dir:   dir,
	}, nil
}

// Close unlocks the folder.
func (s *Store) Close() error { return s.dir.Close() }
