package labels

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	// keySize is that of a key, in bytes.
	keySize = 32
	// maxID bounds an id, in characters.
	maxID = 3072
	// maxKeys bounds a file of keys.
	maxKeys = 8
)

// Signer signs identities, with a MAC (AES-CMAC), and checks those that come back. Neither keeps an id secret: whoever has
// it can read it, and nobody can make one.
type Signer struct {
	keys []*key // the first one signs
}

type key struct {
	print [4]byte // tells it from others, and nothing of it
	mac   *cmac
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

// newKey derives what a key is used for from its secret (RFC 5869), so that neither tells of the other.
func newKey(secret []byte) *key {
	k := &key{mac: newCMAC(derive(secret, "sluice: the key that signs ids", macSize))}
	copy(k.print[:], derive(secret, "sluice: which key is this?", len(k.print)))
	return k
}

func derive(secret []byte, what string, n int) []byte {
	b, err := hkdf.Key(sha256.New, secret, nil, what, n)
	if err != nil {
		panic(err) // more bytes than there can be
	}
	return b
}

// Append writes the id of a prediction behind dst: letters, digits, - and _. It allocates nothing if dst has room for twice
// the id.
func (s *Signer) Append(dst []byte, id *Identity) []byte {
	k, start := s.keys[0], len(dst)
	dst = append(append(dst, format), k.print[:]...)
	dst = k.mac.appendTo(id.append(dst), start)
	plain := len(dst) - start
	dst = base64.RawURLEncoding.AppendEncode(dst, dst[start:])
	return dst[:start+copy(dst[start:], dst[start+plain:])]
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
		mac := k.mac.appendTo(bytes.Clone(message), 0)[len(message):]
		if subtle.ConstantTimeCompare(signature, mac) != 1 {
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
