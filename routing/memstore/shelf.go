package memstore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Shelves say where shelves come from and who else is to know what is put on them.
type Shelves interface {
	ReadShelf(name string) (*routingv1.StoredShelf, error)
	WriteShelf(name string, shelf *routingv1.StoredShelf) error
}

// Shelf returns the shelf of that name.
func (s *Store) Shelf(name string) routing.Shelf {
	routing.CheckShelfName(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelves[name]
	if sh == nil {
		sh = &shelf{store: s.name, name: name, disk: s.disk}
		s.shelves[name] = sh
	}
	return sh
}

// shelf is a [routing.Shelf] in memory. With a disk, it is read when it is first
// used, so that a damaged one is the trouble of its user alone.
type shelf struct {
	store, name string
	disk        Shelves // nil: none

	mu     sync.Mutex
	values map[string][]byte // nil before the first use
	bytes  int               // of keys and values
}

// load makes the values ready. sh.mu is held.
func (sh *shelf) load() error {
	if sh.values != nil {
		return nil
	}
	var stored *routingv1.StoredShelf
	if sh.disk != nil {
		var err error
		if stored, err = sh.disk.ReadShelf(sh.name); err != nil {
			return &routing.RefusedError{Store: sh.store, Reason: "DISK", Err: err}
		}
	}
	sh.values = make(map[string][]byte)
	for key, value := range stored.GetValues() {
		sh.values[key] = value
		sh.bytes += len(key) + len(value)
	}
	return nil
}

// Get returns the value of a key.
func (sh *shelf) Get(_ context.Context, key string) ([]byte, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	err := sh.load()
	return bytes.Clone(sh.values[key]), err
}

// All returns every key with its value.
func (sh *shelf) All(context.Context) (map[string][]byte, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := sh.load(); err != nil {
		return nil, err
	}
	all := make(map[string][]byte, len(sh.values))
	for key, value := range sh.values {
		all[key] = bytes.Clone(value)
	}
	return all, nil
}

// Put sets the value of a key.
func (sh *shelf) Put(_ context.Context, key string, value []byte) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := sh.load(); err != nil {
		return err
	}
	return sh.set(key, value)
}

// Swap sets the value of a key if it is old.
func (sh *shelf) Swap(_ context.Context, key string, old, value []byte) (bool, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := sh.load(); err != nil {
		return false, err
	}
	now, found := sh.values[key]
	if found != (old != nil) || !bytes.Equal(now, old) {
		return false, nil
	}
	if err := sh.set(key, value); err != nil {
		return false, err
	}
	return true, nil
}

// set changes one value, on the disk first. sh.mu is held.
func (sh *shelf) set(key string, value []byte) error {
	if err := routing.CheckShelfEntry(key, value); err != nil {
		return err
	}
	old, found := sh.values[key]
	size := sh.bytes
	if found {
		size -= len(key) + len(old)
	}
	next := maps.Clone(sh.values)
	if value == nil {
		delete(next, key)
	} else {
		next[key] = append([]byte{}, value...) // empty is not nil, which means none
		size += len(key) + len(value)
	}
	switch {
	case value == nil:
	case len(next) > routing.MaxShelfKeys:
		return routing.FullShelf(sh.store, sh.name, fmt.Sprintf("%d keys", routing.MaxShelfKeys))
	case size > routing.MaxShelfFile:
		return routing.FullShelf(sh.store, sh.name, fmt.Sprintf("%d bytes", routing.MaxShelfFile))
	}
	if sh.disk != nil {
		if err := sh.disk.WriteShelf(sh.name, &routingv1.StoredShelf{Values: next}); err != nil {
			return ofDisk(sh.store, err)
		}
	}
	sh.values, sh.bytes = next, size
	return nil
}
