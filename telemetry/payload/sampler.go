package payload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"sluice/proto/inference/redact"
	"sluice/proto/inference/tensor"
)

// Defaults of a [Config].
const (
	DefaultMaxBytes = 256 << 20
	DefaultKeep     = 24 * time.Hour
)

// queueRoom is how many lines may wait for the disk.
const queueRoom = 256

// Config says where samples are kept, and for how long.
type Config struct {
	// Dir is the directory of the files, made if there is none. It has to be set.
	Dir string
	// MaxBytes bounds all files together; 0 means [DefaultMaxBytes].
	MaxBytes int64
	// Keep is how long a sample is kept; 0 means [DefaultKeep].
	Keep   time.Duration
	Logger *slog.Logger // default slog.Default()
}

// Settings say what is kept of a version's calls.
type Settings struct {
	// PerSecond is how many calls are kept at most.
	PerSecond float64
	// MaxBytes bounds one line, about: tensors are cut off there.
	MaxBytes int
	Rules    *redact.Rules
}

// Sampler keeps samples. Its Run has to run for anything to be written.
type Sampler struct {
	files            *files
	queue            chan []byte
	logger           *slog.Logger
	written, dropped atomic.Uint64
}

// New returns a sampler of a directory that can be written.
func New(c Config) (*Sampler, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of payloads: %w", err)
	}
	s := &Sampler{files: newFiles(c), queue: make(chan []byte, queueRoom), logger: c.Logger}
	// Whether the directory can be written is better known now than at the first sample; and what an earlier process
	// has left must not lie there until then.
	return s, errors.Join(s.files.open(time.Now()), s.files.prune(time.Now()))
}

// line is what a sample looks like.
type line struct {
	Time    time.Time `json:"time"`
	Model   string    `json:"model"`
	Version string    `json:"version"`
	redact.Written
}

// Offer keeps a call unless too many wait already. It never blocks, and refers to nothing afterwards.
func (s *Sampler) Offer(model, version string, set Settings, inputs, outputs []tensor.Tensor) {
	text, err := json.Marshal(line{time.Now().UTC(), model, version, set.Rules.Write(inputs, outputs, set.MaxBytes)})
	if err != nil {
		s.dropped.Add(1) // what redact writes has a JSON, so this cannot be
		return
	}
	select {
	case s.queue <- append(text, '\n'):
	default:
		s.dropped.Add(1)
	}
}

// Counts are how many samples have been written, and how many lost because the disk was too slow or refused them.
// Both only grow.
func (s *Sampler) Counts() (written, dropped uint64) { return s.written.Load(), s.dropped.Load() }

// pruneEvery is how often files are looked through for what is too old.
const pruneEvery = time.Minute

// Run writes until ctx ends, and returns nil. What waits then is still written.
func (s *Sampler) Run(ctx context.Context) error {
	prune := time.NewTicker(min(pruneEvery, s.files.keep))
	defer prune.Stop()
	failing := false
	note := func(err error) {
		if err != nil && !failing {
			s.logger.Error("payload samples cannot be written", "error", err)
		}
		failing = err != nil
	}
	write := func(text []byte) {
		err := s.files.write(text, time.Now())
		if err == nil {
			s.written.Add(1)
		} else {
			s.dropped.Add(1)
		}
		note(err)
	}
	for {
		select {
		case text := <-s.queue:
			write(text)
		case now := <-prune.C:
			note(s.files.prune(now))
		case <-ctx.Done():
			for {
				select {
				case text := <-s.queue:
					write(text)
				default:
					note(s.files.close())
					return nil
				}
			}
		}
	}
}
