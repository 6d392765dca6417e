package tape

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxLine bounds one call as it is written, in bytes: twice what a gateway copies of one.
const maxLine = 32 << 20

// Folder is where the calls of a route are kept below dir.
func Folder(dir, model string) string { return filepath.Join(dir, escape(model)) }

// escape makes a name of a folder of a model's, which is visible ASCII: what is not
// harmless in one is written as its code.
func escape(model string) string {
	var b strings.Builder
	for i := range len(model) {
		c := model[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Files returns the files of a route, the oldest first. Without a name all of them,
// else the one of that name.
func Files(dir, model, name string) ([]string, error) {
	folder := Folder(dir, model)
	if name != "" {
		if !isFile(name) {
			return nil, fmt.Errorf("from: got %q, want the name of a file in %s", name, folder)
		}
		_, err := os.Stat(filepath.Join(folder, name))
		return []string{filepath.Join(folder, name)}, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var files []string
	for _, e := range entries { // in the order of their names, which is that of time
		if e.Type().IsRegular() && isFile(e.Name()) {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	return files, nil
}

// isFile reports whether a name is one of a recorder's files.
func isFile(name string) bool {
	return strings.HasSuffix(name, suffix) && filepath.Base(name) == name && !strings.HasPrefix(name, ".")
}

// suffix ends the names of files.
const suffix = ".jsonl"

// Read calls f with the calls in files, one after the other, until it returns an error,
// which is returned. A last line that is cut off, because it is just being written or a
// gateway was killed, is left out.
func Read(files []string, f func(*Call) error) error {
	for _, name := range files {
		if err := readFile(name, f); err != nil {
			return err
		}
	}
	return nil
}

func readFile(name string, f func(*Call) error) error {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its time was over meanwhile
	}
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
		call := new(Call)
		if err := json.Unmarshal(line, call); err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
		if call.Path == "" {
			return fmt.Errorf("%s:%d: path: got none, want that of a call", name, number)
		}
		if err := f(call); err != nil {
			return err
		}
	}
}

// readLine returns a line that is ended; io.EOF if there is none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
}
