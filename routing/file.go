package routing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// FileConfig says which file a [FileSource] follows. Path and one of Watcher and
// Router have to be set; the rest has defaults.
type FileConfig struct {
	Path string
	// Watcher takes what is new in the file as a change by the actor "file", which
	// makes its store say what the file says. It has been started.
	Watcher *Watcher
	// Router is published to if there is no Watcher.
	Router *Router
	Logger *slog.Logger // default slog.Default()

	// Poll is the time between two looks at the file in case notifications of
	// changes do not arrive: on network file systems, through symbolic links.
	// Default 5 s.
	Poll time.Duration
	// Settle is how long a file has to be left alone after a change before it is
	// read, so that it is not read half written. Default 100 ms.
	Settle time.Duration
}

// FileSource publishes the routes of one file: at the start, whenever the file
// says something new, and when asked to look again. A file that is missing or
// bad leaves the last good table serving.
//
// A file is best replaced by renaming another onto it: a file rewritten in place
// may be cut short at a place where it is valid.
type FileSource struct {
	config FileConfig
	asked  chan struct{} // holds at most one request to look again

	loading sync.Mutex // held while reading and publishing; guards the two below
	read    []byte     // the content last looked at, good or bad; nil if unreadable
	current *routingv1.Document

	status atomic.Pointer[FileStatus]
}

// FileStatus says what became of the file.
type FileStatus struct {
	// Revision is that of the table published last; 0 if none was.
	Revision uint64
	// LoadedAt is when that table was published.
	LoadedAt time.Time
	// Err says why the file as it is now is not what is published; nil if it is.
	Err error
}

// NewFileSource returns a source that has not read its file yet.
func NewFileSource(config FileConfig) *FileSource {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Poll == 0 {
		config.Poll = 5 * time.Second
	}
	if config.Settle == 0 {
		config.Settle = 100 * time.Millisecond
	}
	s := &FileSource{config: config, asked: make(chan struct{}, 1)}
	s.status.Store(new(FileStatus))
	return s
}

// Status returns what became of the file so far. It never blocks.
func (s *FileSource) Status() FileStatus { return *s.status.Load() }

// Load reads the file now and publishes what is new in it. Call it before
// [FileSource.Run] to start with routes or not at all. Errors are as of [Parse],
// or of reading the file; they are kept in the status, and the published table
// stays.
func (s *FileSource) Load() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	status := s.Status()
	data, err := readFile(s.config.Path)
	if err == nil && s.read != nil && bytes.Equal(data, s.read) {
		return status.Err
	}
	s.read = data
	if err == nil {
		err = s.publish(data, &status)
	}
	status.Err = err
	s.status.Store(&status)
	return err
}

// publish makes a table of the content, unless it says what is published
// already: other comments or another order of fields are no change.
func (s *FileSource) publish(data []byte, status *FileStatus) error {
	doc, err := Parse(s.config.Path, data)
	if err != nil {
		return err
	}
	if proto.Equal(doc, s.current) {
		return nil
	}
	if s.config.Watcher != nil {
		if err := s.update(doc); err != nil {
			return err
		}
		s.current = doc
		status.Revision, status.LoadedAt = s.config.Watcher.position().Revision, time.Now()
		return nil
	}
	table, err := Build(doc, status.Revision+1)
	if err != nil {
		return err
	}
	s.config.Router.Publish(table)
	s.current = doc
	status.Revision, status.LoadedAt = table.Revision(), time.Now()
	return nil
}

// update makes the store say what a document says. If somebody else changes it
// at the same time, the file comes after that, a few times over.
func (s *FileSource) update(doc *routingv1.Document) (err error) {
	const tries = 10
	for range tries {
		u := UpdateTo(doc, s.config.Watcher.State())
		u.Actor, u.Reason = ActorFile, s.config.Path+" has changed"
		_, err = s.config.Watcher.Update(context.Background(), u)
		var faster *ConflictError
		if errors.Is(err, ErrUnchanged) {
			return nil
		}
		if !errors.As(err, &faster) {
			return err
		}
	}
	return err
}

// Reload asks [FileSource.Run] to read the file without waiting for a change, as
// SIGHUP does. It never blocks.
func (s *FileSource) Reload() {
	select {
	case s.asked <- struct{}{}:
	default: // the request before this one has not been served yet
	}
}

// Run follows the file until ctx ends, and then returns nil. What happens to the
// file is logged. Run is called at most once.
func (s *FileSource) Run(ctx context.Context) (err error) {
	events, lost, stop := s.watch()
	defer func() { err = stop() }()
	poll := time.NewTicker(s.config.Poll)
	defer poll.Stop()
	quiet := newSettler(s.config.Settle)
	defer quiet.stop()

	s.loadAndLog(false) // what changed before the watch began
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.asked:
			s.loadAndLog(true)
		case e := <-events:
			if s.concerns(e) {
				quiet.touch()
			}
		case err := <-lost: // events may have been dropped
			s.config.Logger.Warn("watching the routes", "file", s.config.Path, "error", err)
			quiet.touch()
		case <-poll.C:
			quiet.touch()
		case <-quiet.settled():
			quiet.done()
			s.loadAndLog(false)
		}
	}
}

// loadAndLog logs what is new, and every outcome when somebody asked for it.
func (s *FileSource) loadAndLog(asked bool) {
	before := s.Status()
	err := s.Load()
	now := s.Status()
	log := s.config.Logger.With("file", s.config.Path, "revision", now.Revision)
	switch {
	case err != nil && (asked || !sameError(err, before.Err)):
		log.Error("routes refused, the last good ones stay", "error", err)
	case err != nil:
	case now.Revision != before.Revision:
		log.Info("routes published")
	case asked || before.Err != nil:
		log.Info("routes are as published")
	}
}

func sameError(a, b error) bool {
	return a != nil && b != nil && a.Error() == b.Error()
}

// maxFileSize bounds what is read, in bytes: room for some 100,000 routes.
const maxFileSize = 64 << 20

// readFile reads a regular file; another kind might block or never end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: got a file of mode %v, want a regular file", path, info.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s: got more than %d bytes, want at most that", path, maxFileSize)
	}
	return data, nil
}
