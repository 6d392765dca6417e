package admin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// Role is what a token allows.
type Role uint8

// The roles, weakest first.
const (
	NoRole  Role = iota
	View         // all that has no side effects
	Operate      // everything
)

// roles are as written in a file of tokens.
var roles = map[string]Role{"view": View, "operate": Operate}

// minToken is the least length of a token, in bytes: 16 random bytes are 22
// characters in base64 and 32 in hexadecimal.
const minToken = 16

// TokenFile holds the tokens of a file with lines of a role and a token,
//
//	operate 5f2c1d4be8a94c0f
//	view    c0ffee5eb3a147d2
//
// and comments after #. The file is read again when it has changed; one that
// cannot be read leaves the last good tokens. It is safe for concurrent use.
type TokenFile struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	stamp  string
	tokens []token
}

// token is kept as a digest, so that comparing takes the same time for all.
type token struct {
	digest [sha256.Size]byte
	role   Role
}

// OpenTokens reads a file of tokens. Errors name the line, never a token.
func OpenTokens(path string, log *slog.Logger) (*TokenFile, error) {
	f := &TokenFile{path: path, log: log}
	f.stamp = f.stampNow()
	var err error
	if f.tokens, err = readTokens(path); err != nil {
		return nil, err
	}
	f.warnIfOpen()
	return f, nil
}

// Role returns what a token allows.
func (f *TokenFile) Role(text string) Role {
	digest := sha256.Sum256([]byte(text))
	found := NoRole
	for _, t := range f.current() {
		if subtle.ConstantTimeCompare(digest[:], t.digest[:]) == 1 {
			found = max(found, t.role)
		}
	}
	return found
}

// current returns the tokens, read again if the file is another one.
func (f *TokenFile) current() []token {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp := f.stampNow()
	if stamp == f.stamp {
		return f.tokens
	}
	f.stamp = stamp
	tokens, err := readTokens(f.path)
	if err != nil {
		f.log.Error("the tokens cannot be read again, the last good ones stay", "error", err)
		return f.tokens
	}
	f.warnIfOpen()
	f.log.Info("tokens read again", "file", f.path, "tokens", len(tokens))
	f.tokens = tokens
	return tokens
}

// warnIfOpen tells of a file that everybody on this machine can read, or some can alter.
func (f *TokenFile) warnIfOpen() {
	info, err := os.Stat(f.path)
	if err == nil && info.Mode().Perm()&0o026 != 0 {
		f.log.Warn("the file of tokens is open to others on this machine; try: chmod 600, or 640 for a group that may read it",
			"file", f.path, "mode", info.Mode().Perm().String())
	}
}

func (f *TokenFile) stampNow() string {
	info, err := os.Stat(f.path)
	if err != nil {
		return "missing"
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

func readTokens(path string) ([]token, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	var tokens []token
	var problems []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		role := roles[words[0]]
		if len(words) != 2 || role == NoRole || len(words[1]) < minToken {
			problems = append(problems, fmt.Errorf(
				"%s:%d: want a role (view or operate), a space, and a token of at least %d characters", path, n, minToken))
			continue
		}
		tokens = append(tokens, token{sha256.Sum256([]byte(words[1])), role})
	}
	if err := errors.Join(append(problems, lines.Err())...); err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s: got no token, want at least one line of a role and a token", path)
	}
	return tokens, nil
}
