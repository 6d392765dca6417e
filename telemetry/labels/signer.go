package labels

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"sync"
)

const (
	// keySize is that of a key, in bytes.
	keySize = 32
	// macSize is to how much a MAC is cut, in bytes: guessing one takes 2^127 tries on average.
	macSize = 16
	// maxID bounds an id, in characters.
	maxID = 2048
	// maxKeys bounds a file of keys.
	maxKeys = 8
)

// Signer signs identities, with HMAC-SHA-256 cut to 16 bytes (RFC 2104), and checks those that come back. Neither
// keeps an id secret: whoever has it can read it, and nobody can make one.
type Signer struct {
	keys []*key // the first one signs
}

type key struct {
	print [4]byte   // tells it from others, and nothing of it
	macs  sync.Pool // of *mac
}

// mac is what signing takes, so that it allocates nothing once it is warm.
type mac struct {
	hash    hash.Hash
	message []byte // with room for the MAC behind it
}

// NewSigner returns a signer whose key nobody else has: what it signs means nothing to other gateways, nor after a
// restart.
func NewSigner() *Signer {
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // it never fails
	return &Signer{keys: []*key{newKey(secret)}}
}

// ReadSigner reads the keys that gateways share from a file: each line 32 random bytes in hexadecimal, such as openssl
// rand -hex 32 prints. The first one signs, and the others are known too, so that keys can be changed one gateway
// after the other. Text after # is a comment. Errors name lines, never keys.
func ReadSigner(path string) (*Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keys of labels: %w", err)
	}
	s := new(Signer)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		secret, err := hex.DecodeString(text)
		if err != nil || len(secret) != keySize {
			return nil, fmt.Errorf("%s:%d: got something else, want a key of %d hexadecimal digits, such as openssl rand -hex %d prints", path, n, 2*keySize, keySize)
		}
		if len(s.keys) == maxKeys {
			return nil, fmt.Errorf("%s:%d: got one key more, want at most %d", path, n, maxKeys)
		}
		s.keys = append(s.keys, newKey(secret))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("keys of labels: %s: %w", path, err)
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("%s: got no key, want at least one", path)
	}
	return s, nil
}

func newKey(secret []byte) *key {
	k := &key{macs: sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, secret)} }}}
	h := hmac.New(sha256.New, secret)
	_, _ = h.Write([]byte("sluice: which key is this?")) // it never fails
	copy(k.print[:], h.Sum(nil))
	return k
}

// sign appends the MAC of the message to it.
func (m *mac) sign() {
	m.hash.Reset()
	_, _ = m.hash.Write(m.message) // it never fails
	n := len(m.message)
	m.message = m.hash.Sum(m.message)[:n+macSize]
}

// Append writes the id of a prediction behind dst: letters, digits, - and _.
func (s *Signer) Append(dst []byte, id *Identity) []byte {
	k := s.keys[0]
	m := k.macs.Get().(*mac)
	m.message = id.append(append(append(m.message[:0], format), k.print[:]...))
	m.sign()
	dst = base64.RawURLEncoding.AppendEncode(dst, m.message)
	k.macs.Put(m)
	return dst
}

// Errors of [Signer.Parse].
var (
	ErrMalformed = errors.New("it is not an id of a prediction, or not all of it")
	ErrKey       = errors.New("it was signed with a key that this gateway does not have: by a gateway with another --label-key-file, or, without one, by another process")
	ErrSignature = errors.New("its signature is wrong")
)

// strict accepts one spelling of an id alone.
var strict = base64.RawURLEncoding.Strict()

// Parse reads an id that one of the signer's keys has signed. Errors are those above.
func (s *Signer) Parse(text string) (*Identity, error) {
	if len(text) > maxID {
		return nil, ErrMalformed
	}
	plain, err := strict.DecodeString(text)
	if err != nil || len(plain) < 1+len(key{}.print)+macSize || plain[0] != format || strings.ContainsAny(text, "\r\n") {
		return nil, ErrMalformed
	}
	message, signature := plain[:len(plain)-macSize], plain[len(plain)-macSize:]
	for _, k := range s.keys {
		if !bytes.Equal(k.print[:], message[1:1+len(k.print)]) {
			continue
		}
		m := k.macs.Get().(*mac)
		m.message = append(m.message[:0], message...)
		m.sign()
		right := hmac.Equal(signature, m.message[len(message):])
		k.macs.Put(m)
		if !right {
			return nil, ErrSignature
		}
		id := new(Identity)
		if err := id.parse(message[1+len(k.print):]); err != nil {
			return nil, ErrMalformed // signed by a gateway that knows more than this one
		}
		return id, nil
	}
	return nil, ErrKey
}
