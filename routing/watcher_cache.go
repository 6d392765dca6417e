package routing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"buf.build/go/protoyaml"
	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing/statefile"
)

// DefaultStateDir returns the folder below which gateways keep their last good
// states: sluice in $XDG_STATE_HOME or, without that, in ~/.local/state.
func DefaultStateDir() (string, error) {
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "sluice"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the last good state: %w; name one with --state-dir", err)
	}
	return filepath.Join(home, ".local", "state", "sluice"), nil
}

// CacheDir returns the folder for one store and data address below a state
// directory. Two gateways on one machine differ in their address.
func CacheDir(stateDir string, store Store, listen string) string {
	key := store.String() + " " + listen
	sum := sha256.Sum256([]byte(key))
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		default:
			return '_'
		}
	}, key)
	return filepath.Join(stateDir, readable[:min(len(readable), 80)]+"-"+hex.EncodeToString(sum[:4]))
}

// cache is the last good state on disk.
type cache struct {
	dir     *statefile.Dir
	changed chan struct{} // holds a token when there is something to save
	err     error         // of the last reading or writing; guarded by Watcher.mu
}

// touch says that there is something to save.
func (c *cache) touch() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// openCache publishes the last good state. A cache that cannot be used is worth
// a warning, no more.
func (w *Watcher) openCache() {
	if w.cfg.CacheDir == "" {
		return
	}
	dir, err := statefile.Open(w.cfg.CacheDir)
	if err != nil {
		w.cfg.Logger.Warn("the last good state will not be kept: a start without the store will not be ready",
			"folder", w.cfg.CacheDir, "error", err)
		return
	}
	w.cache = &cache{dir: dir, changed: make(chan struct{}, 1)}
	stored, err := dir.Read()
	if err == nil && stored.GetRevision() > 0 {
		err = w.takeCached(stored)
	}
	if err != nil {
		w.cache.err = err
		w.cfg.Logger.Error("the last good state cannot be used", "error", err)
	}
}

// takeCached publishes a state from disk, as far as its documents are good for
// this version of the program.
func (w *Watcher) takeCached(stored *routingv1.StoredState) error {
	if err := w.take(StateOf(stored)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range stored.GetChanges() {
		w.recent.add(c)
	}
	w.source, w.taken, w.known = FromCache, stored.GetConfirmed().AsTime(), false
	if at := w.cache.readConfirmed(w.local.Position); at.After(w.taken) {
		w.taken = at
	}
	return nil
}

// saveWhenChanged writes the cache until ctx ends, never twice within the least
// time, and notes now and then that it is still up to date: after a crash, a quiet
// week is not to look like a week without the store.
func (w *Watcher) saveWhenChanged(ctx context.Context) {
	if w.cache == nil {
		return
	}
	confirm := time.NewTicker(w.cfg.ConfirmEvery)
	defer confirm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-confirm.C:
			w.saveConfirmed()
			continue
		case <-w.cache.changed:
			w.save()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.cfg.SaveEvery):
		}
	}
}

// closeCache saves what is new and unlocks the folder.
func (w *Watcher) closeCache() {
	if w.cache == nil {
		return
	}
	w.save()
	_ = w.cache.dir.Close()
}

// save writes the published state, if it is one of the store's: without the
// store, the file is still right about its own age.
func (w *Watcher) save() {
	status := w.Status()
	if status.Source != FromStore {
		return
	}
	w.mu.Lock()
	state := *w.local
	state.Routes = maps.Clone(w.local.Routes)
	changes := w.recent.all()
	w.mu.Unlock()
	stored := state.Stored()
	stored.Changes, stored.Confirmed = changes, timestamppb.New(status.ConfirmedAt)
	w.saved(w.cache.dir.Write(stored))
}

// saveConfirmed notes when the store last said that its state is the one kept.
func (w *Watcher) saveConfirmed() {
	if s := w.Status(); s.Following {
		w.saved(w.cache.writeConfirmed(s.Position, s.ConfirmedAt))
	}
}

// saved remembers and says how writing went.
func (w *Watcher) saved(err error) {
	w.mu.Lock()
	before := w.cache.err
	w.cache.err = err
	w.mu.Unlock()
	if err != nil && !sameError(err, before) {
		w.cfg.Logger.Warn("the last good state cannot be kept", "error", err)
	}
}

// confirmedFile holds the id of a change and when the store last said that its state is
// the one after it.
const confirmedFile = "confirmed"

func (c *cache) writeConfirmed(p Position, at time.Time) error {
	return c.dir.WriteFile(confirmedFile, fmt.Appendf(nil, "%s %s\n", p.ID, at.UTC().Format(time.RFC3339Nano)))
}

// readConfirmed returns when a position was confirmed last, the zero time if that is
// not known: the file is of no use for another position, or if it is damaged.
func (c *cache) readConfirmed(p Position) time.Time {
	text, err := os.ReadFile(filepath.Join(c.dir.Path(), confirmedFile))
	if err != nil {
		return time.Time{}
	}
	id, when, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	at, err := time.Parse(time.RFC3339Nano, when)
	if err != nil || id != p.ID || at.After(time.Now()) {
		return time.Time{}
	}
	return at
}

// maxLostFiles bounds the files of lost documents that are kept.
const maxLostFiles = 20

// saveLost writes documents of lost changes, the last of which names the file.
func (c *cache) saveLost(doc *routingv1.Document, last *routingv1.Change) (string, error) {
	text, err := protoyaml.MarshalOptions{UseProtoNames: true, Indent: 2}.Marshal(doc)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("lost-%d-%.8s.yaml", last.GetRevision(), last.GetId())
	if err := c.dir.WriteFile(name, text); err != nil {
		return "", err
	}
	return filepath.Join(c.dir.Path(), name), c.dropOldLost()
}

// dropOldLost removes the oldest files of lost documents where there are many.
func (c *cache) dropOldLost() error {
	files, err := filepath.Glob(filepath.Join(c.dir.Path(), "lost-*.yaml"))
	if err != nil {
		return err
	}
	age := make(map[string]time.Time, len(files))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			age[f] = info.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b string) int { return age[b].Compare(age[a]) })
	var errs []error
	for _, f := range files[min(len(files), maxLostFiles):] {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}
