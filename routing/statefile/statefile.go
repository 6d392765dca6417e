// Package statefile keeps a routing state in a folder on disk, in a file that is
// either the old one or the new one, whole, whatever happens while it is
// written, and that tells when something else has damaged it.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

const (
	fileName = "state"
	lockName = "lock"
	// magic says what the file is and in which form; the checksum of the rest
	// follows, then the encoded StoredState.
	magic = "sluice routing state 1\n"
	// A shelf has a file of its own, so that writing it does not write the routes.
	shelfPrefix = "shelf-"
	shelfMagic  = "sluice shelf 1\n"
)

// ErrDamaged is wrapped in the error of a file that does not hold what was
// written.
var ErrDamaged = errors.New("damaged")

// ErrUncertain is wrapped in the error of what was not kept for sure but may be there after a
// restart: the disk has failed once it had been written, and again when it was to be taken back.
var ErrUncertain = errors.New("it may be there after a restart all the same")

// Dir is a folder that this process has for itself.
type Dir struct {
	path string
	lock *os.File
	sync func(dir string) error // syncDir, but for tests
}

// Open makes the folder if need be and locks it until [Dir.Close] or the end of
// the process. It fails if another process has locked it.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another process uses this folder", path)
		}
		return nil, fmt.Errorf("%s: lock: %w", path, err)
	}
	d := &Dir{path, lock, syncDir}
	if err := d.tryWriting(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return d, nil
}

// tryWriting finds out now rather than at the first change.
func (d *Dir) tryWriting() error {
	f, err := os.CreateTemp(d.path, ".probe-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Path returns the folder's name.
func (d *Dir) Path() string { return d.path }

// Close unlocks the folder.
func (d *Dir) Close() error { return d.lock.Close() }

// Read returns what was written last, nil if nothing was. A file that holds
// something else is an error that wraps [ErrDamaged] and names the file.
func (d *Dir) Read() (*routingv1.StoredState, error) {
	state := new(routingv1.StoredState)
	if found, err := d.read(fileName, magic, state); !found {
		return nil, err
	}
	return state, nil
}

// ReadShelf returns what was last written of a shelf, empty if nothing was, with
// errors as those of [Dir.Read].
func (d *Dir) ReadShelf(name string) (*routingv1.StoredShelf, error) {
	shelf := new(routingv1.StoredShelf)
	_, err := d.read(shelfPrefix+name, shelfMagic, shelf)
	return shelf, err
}

// read decodes a file into m; found says that there is one, and that it is well.
func (d *Dir) read(file, magic string, m proto.Message) (found bool, err error) {
	name := filepath.Join(d.path, file)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := decode(data, magic, m); err != nil {
		return false, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	return true, nil
}

func decode(data []byte, magic string, m proto.Message) error {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return fmt.Errorf("it does not begin with %q", magic)
	}
	if len(rest) < sha256.Size {
		return fmt.Errorf("it is cut short after %d bytes", len(data))
	}
	want, body := rest[:sha256.Size], rest[sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], want) {
		return fmt.Errorf("its checksum does not fit its %d bytes: it was cut short or altered", len(data))
	}
	return proto.Unmarshal(body, m)
}

// Write replaces the file. Once it returns nil, the state survives a loss of
// power.
func (d *Dir) Write(state *routingv1.StoredState) error { return d.write(fileName, magic, state) }

// WriteShelf replaces the file of a shelf in the same way.
func (d *Dir) WriteShelf(name string, shelf *routingv1.StoredShelf) error {
	return d.write(shelfPrefix+name, shelfMagic, shelf)
}

func (d *Dir) write(file, magic string, m proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	data := make([]byte, 0, len(magic)+len(sum)+len(body))
	data = append(append(append(data, magic...), sum[:]...), body...)
	return d.WriteFile(file, data)
}

// WriteFile replaces a file of another kind beside the state, in the same way.
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := renameio.WriteFile(filepath.Join(d.path, name), data, 0o600, renameio.WithTempDir(d.path)); err != nil {
		return err
	}
	if err := d.sync(d.path); err != nil {
		return fmt.Errorf("%w (%w)", err, ErrUncertain) // the name leads to it already
	}
	return nil
}

// syncDir makes a rename durable, which the file's own fsync does not.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
