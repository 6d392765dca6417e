package tape

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/shadow"
)

// Settings are what a route says of how its calls are kept.
type Settings struct {
	// MaxBytes bounds all files of the route together; the oldest go first.
	MaxBytes int64
	// Retain is how long a call is kept at most. One may go an eighth of that earlier: calls go
	// by the file.
	Retain time.Duration
}

// Bounds of a recorder.
const (
	// queued copies wait to be written, of so many bytes together.
	queued      = 256
	queuedBytes = 32 << 20
	// parts is how many files a route's calls are spread over: the oldest is deleted whole.
	parts = 8
	// fileFor is how long a file is written to at most, and lookEvery how often the ages of files
	// are looked at.
	fileFor   = time.Hour
	lookEvery = time.Minute
)

// Recorder writes calls to files, in a goroutine of its own. Its methods may be called
// concurrently.
type Recorder struct {
	folder   string
	log      *slog.Logger
	settings atomic.Pointer[Settings]
	written  atomic.Uint64
	dropped  atomic.Uint64
	bytes    atomic.Int64

	mu     sync.Mutex // of queue being closed
	closed bool
	queue  chan *shadow.Copy
	done   chan struct{}

	// Owned by the goroutine.
	file     *os.File
	size     int64
	begun    time.Time
	whole    bool // the file has a line that is
	failing  bool
	tooLarge bool // a call was, and that has been said
}

// fileFor is how long a file is written to.
func (s *Settings) fileFor() time.Duration { return min(fileFor, s.Retain/parts) }

// New returns a recorder of a route's calls, which has to be closed. The folder is made
// when there is something to write.
func New(dir, model string, s Settings, log *slog.Logger) *Recorder {
	r := &Recorder{
		folder: Folder(dir, model), log: log.With("model", model),
		queue: make(chan *shadow.Copy, queued), done: make(chan struct{}),
	}
	r.Update(s)
	go r.run()
	return r
}

// Update changes the settings.
func (r *Recorder) Update(s Settings) { r.settings.Store(&s) }

// Counts returns how many calls were written, and how many were not: because too many
// waited, or for the file system.
func (r *Recorder) Counts() (written, dropped uint64) { return r.written.Load(), r.dropped.Load() }

// Offer hands a copy over, and takes its payload in any case. It does not block.
func (r *Recorder) Offer(c *shadow.Copy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := int64(c.Payload.Memory())
	if !r.closed && r.bytes.Add(size) <= queuedBytes {
		select {
		case r.queue <- c:
			return
		default:
		}
	}
	if !r.closed {
		r.bytes.Add(-size)
	}
	c.Payload.Release()
	r.dropped.Add(1)
}

// Close writes what waits, and ends.
func (r *Recorder) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.mu.Unlock()
	<-r.done
}

// run writes until the recorder is closed.
func (r *Recorder) run() {
	defer close(r.done)
	defer r.rotate()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case c, ok := <-r.queue:
			if !ok {
				return
			}
			r.bytes.Add(-int64(c.Payload.Memory()))
			call := newCall(c, time.Now())
			c.Payload.Release()
			r.note(r.write(call))
		case now := <-look.C:
			s := r.settings.Load()
			if r.file != nil && now.Sub(r.begun) >= s.fileFor() {
				r.rotate()
			}
			r.note(r.clean(now))
			look.Reset(max(time.Second, min(lookEvery, s.fileFor())))
		}
	}
}

// note counts what came of a write, and says it when it goes wrong first.
func (r *Recorder) note(err error) {
	if err != nil && !r.failing {
		r.log.Error("calls cannot be kept", "folder", r.folder, "error", err)
	}
	r.failing = err != nil
}

// write appends a call to the file of the moment, unless it is too large for any.
func (r *Recorder) write(c *Call) (err error) {
	line, err := json.Marshal(c)
	line = append(line, '\n')
	s := r.settings.Load()
	part := s.MaxBytes / parts
	if size := int64(len(line)); size > part {
		if !r.tooLarge {
			r.log.Warn("calls that are too large for a file are not kept", "folder", r.folder, "bytes", size, "limit", part)
		}
		r.tooLarge = true
		r.dropped.Add(1)
		return nil
	}
	defer func() {
		if err != nil {
			r.dropped.Add(1)
			r.rotate() // whatever is half written is left behind as the last line of a file
		} else {
			r.whole = true
			r.written.Add(1)
		}
	}()
	if err != nil {
		return err
	}
	if r.file != nil && (r.size+int64(len(line)) > part || c.Time.Sub(r.begun) >= s.fileFor()) {
		r.rotate()
	}
	if r.file == nil {
		if err := r.open(c.Time); err != nil {
			return err
		}
	}
	n, err := r.file.Write(line)
	r.size += int64(n)
	return err
}

// open begins a file, and makes room for it.
func (r *Recorder) open(now time.Time) error {
	if err := os.MkdirAll(r.folder, 0o700); err != nil {
		return err
	}
	if err := r.clean(now); err != nil {
		return err
	}
	name := now.UTC().Format(layout) + suffix
	f, err := os.OpenFile(filepath.Join(r.folder, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r.file, r.size, r.begun, r.whole = f, 0, now, false
	return nil
}

// layout makes the name of a file of when it was begun, so that names are in the order of
// time.
const layout = "20060102T150405.000000000Z"

// rotate ends the file of the moment. One that holds no call goes: on a full disk there would
// be ever more of them.
func (r *Recorder) rotate() {
	if r.file == nil {
		return
	}
	_ = r.file.Close() // nothing is left to be written
	if !r.whole {
		_ = os.Remove(r.file.Name())
	}
	r.file = nil
}

// clean deletes files whose time is over, and the oldest until there is room for one
// more.
func (r *Recorder) clean(now time.Time) error {
	s := r.settings.Load()
	entries, err := os.ReadDir(r.folder)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	total := s.MaxBytes / parts // of the file of the moment, at most
	for i := len(entries) - 1; i >= 0; i-- {
		name := filepath.Join(r.folder, entries[i].Name())
		if !isFile(entries[i].Name()) || r.file != nil && name == r.file.Name() {
			continue
		}
		info, err := entries[i].Info()
		if err != nil {
			continue // it is gone
		}
		begun, err := time.Parse(layout+suffix, entries[i].Name())
		if err != nil {
			begun = info.ModTime() // somebody has renamed it
		}
		if total += info.Size(); total > s.MaxBytes || now.Sub(begun) >= s.Retain {
			if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	return nil
}
