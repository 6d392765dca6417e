package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

const (
	journalName  = "journal"
	journalMagic = "sluice routing journal 1\n"
	// headLength is that of the head of an entry: the length of the rest, a checksum of
	// that, and one of the rest.
	headLength = 4 + 4 + sha256.Size
	// sector is what a disk writes at once, in bytes.
	sector = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is a file to which entries are appended, so that a small change need not
// write the whole state. It is for one goroutine at a time.
type Journal struct {
	f    file
	size int64 // of what is known to be whole
	torn bool  // something may follow that
}

// file is an [os.File], but for tests.
type file interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// OpenJournal opens the journal, which is made if it is not there, and passes on its
// entries. An entry at the end that a loss of power kept from being written whole is cut
// off: nobody was told that it was. Any other damage is an error that wraps [ErrDamaged]
// and names the file, and then nothing is touched.
func (d *Dir) OpenJournal(each func(*routingv1.JournalEntry) error) (*Journal, error) {
	name := filepath.Join(d.path, journalName)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		data = []byte(journalMagic)
		err = d.WriteFile(journalName, data)
	}
	if err != nil {
		return nil, err
	}
	size, err := readJournal(data, each)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	j := &Journal{f: f, size: size, torn: size < int64(len(data))}
	if err := j.mend(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// readJournal returns how much of a journal is whole.
func readJournal(data []byte, each func(*routingv1.JournalEntry) error) (int64, error) {
	rest, ok := bytes.CutPrefix(data, []byte(journalMagic))
	if !ok {
		return 0, fmt.Errorf("it does not begin with %q", journalMagic)
	}
	for len(rest) > 0 {
		at := len(data) - len(rest)
		body, err := nextEntry(rest, at%sector)
		if errors.Is(err, errTorn) {
			return int64(at), nil
		}
		entry := new(routingv1.JournalEntry)
		if err == nil {
			err = proto.Unmarshal(body, entry)
		}
		if err == nil {
			err = each(entry)
		}
		if err != nil {
			return 0, fmt.Errorf("the entry at byte %d: %w", at, err)
		}
		rest = rest[headLength+len(body):]
	}
	return int64(len(data)), nil
}

// errTorn says that an entry, the last one, was not written whole.
var errTorn = errors.New("torn")

// nextEntry returns the first entry in data, which begins so far from the beginning of a
// sector.
func nextEntry(data []byte, offset int) ([]byte, error) {
	if len(data) < headLength {
		return nil, errTorn
	}
	head, body := data[:headLength], data[headLength:]
	length := binary.BigEndian.Uint32(head)
	if crc32.Checksum(head[:4], castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, tornIf(hasEmptySector(data, offset), "its length was altered")
	}
	if uint64(length) > uint64(len(body)) {
		return nil, errTorn
	}
	last := int(length) == len(body)
	body = body[:length]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], head[8:]) {
		return nil, tornIf(last && hasEmptySector(data, offset), "its checksum does not fit: it was altered")
	}
	return body, nil
}

func tornIf(torn bool, otherwise string) error {
	if torn {
		return errTorn
	}
	return errors.New(otherwise)
}

// hasEmptySector reports whether the part of a sector that data has holds nothing but
// zeros: so it is where a file has grown and what belongs there was not written yet.
func hasEmptySector(data []byte, offset int) bool {
	for len(data) > 0 {
		part := data[:min(sector-offset, len(data))]
		if len(bytes.TrimLeft(part, "\x00")) == 0 {
			return true
		}
		data, offset = data[len(part):], 0
	}
	return false
}

// Size is how much there is in the journal, in bytes.
func (j *Journal) Size() int64 { return j.size }

// Append adds an entry. Once it returns nil, the entry survives a loss of power; if it
// fails, the entry is not there. If the error wraps [ErrUncertain], it may be, or the one before
// that failed so.
func (j *Journal) Append(entry *routingv1.JournalEntry) error {
	body, err := proto.Marshal(entry)
	if err != nil {
		return err
	}
	if err := j.mend(); err != nil {
		return fmt.Errorf("%w (%w)", err, ErrUncertain)
	}
	sum := sha256.Sum256(body)
	data := binary.BigEndian.AppendUint32(make([]byte, 0, headLength+len(body)), uint32(len(body)))
	data = binary.BigEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
	data = append(append(data, sum[:]...), body...)
	j.torn = true
	_, err = j.f.WriteAt(data, j.size)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		if again := j.mend(); again != nil {
			return fmt.Errorf("%w; %w (%w)", err, again, ErrUncertain)
		}
		return err
	}
	j.size, j.torn = j.size+int64(len(data)), false
	return nil
}

// Clear removes all entries, once the whole state is written that they have led to.
func (j *Journal) Clear() error {
	j.size, j.torn = int64(len(journalMagic)), true
	return j.mend()
}

// mend cuts off what is not known to be whole.
func (j *Journal) mend() error {
	if !j.torn {
		return nil
	}
	if err := errors.Join(j.f.Truncate(j.size), j.f.Sync()); err != nil {
		return err
	}
	j.torn = false
	return nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.f.Close() }
