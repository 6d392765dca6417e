package relay

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Types of records and of handshake messages (RFC 8446, 5.1 and 4).
const (
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23

	messageKeyUpdate = 24
)

// recordPeer is one end of a TLS 1.3 connection whose every record a test decides: how long it is, how it
// is cut when it is sent, and those that crypto/tls has no way of sending. crypto/tls does its handshake.
type recordPeer struct {
	net.Conn
	t testing.TB

	// What Write does; nil: records of the greatest length, in one piece. Set before the first.
	recordLen func() int    // of the next record
	before    func() []byte // sealed records to be sent before the next record
	cut       func([]byte)  // sends sealed records

	mu  sync.Mutex // guards out, and the order of what is sent
	out recordKeys

	in      recordKeys
	r       *bufio.Reader
	rest    []byte // decrypted, and not yet read
	updates int    // KeyUpdates received; guarded by mu
}

// recordKeys protect one direction.
type recordKeys struct {
	hash   func() hash.Hash
	secret []byte
	keyLen int
	aead   cipher.AEAD
	iv     []byte
	n      uint64 // records so far
}

// shakeHands takes over a TCP connection. A client's last flight is kept back until it first writes, as by a
// network that brings both at once.
func shakeHands(t testing.TB, nc net.Conn, cfg *tls.Config, client bool) *recordPeer {
	t.Helper()
	p := &recordPeer{Conn: nc, t: t, r: bufio.NewReaderSize(nc, 64<<10)}
	var secrets bytes.Buffer
	cfg = cfg.Clone()
	cfg.KeyLogWriter = &secrets
	cfg.SessionTicketsDisabled = !client // they would be records of keys that are then ours
	below := &handshakeConn{Conn: nc, r: p.r, client: client}
	var tc *tls.Conn
	in, out := "SERVER", "CLIENT"
	if client {
		tc = tls.Client(below, cfg)
	} else {
		tc = tls.Server(below, cfg)
		in, out = out, in
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	if err := tc.Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
		_ = nc.Close()
		return p
	}
	_ = nc.SetDeadline(time.Time{})
	state := tc.ConnectionState()
	for name, k := range map[string]*recordKeys{in: &p.in, out: &p.out} {
		switch state.CipherSuite {
		case tls.TLS_AES_128_GCM_SHA256:
			k.hash, k.keyLen = sha256.New, 16
		case tls.TLS_AES_256_GCM_SHA384:
			k.hash, k.keyLen = sha512.New384, 32
		default:
			t.Errorf("handshake came to %s, want AES-GCM", tls.CipherSuiteName(state.CipherSuite))
			return p
		}
		for line := range strings.Lines(secrets.String()) {
			if f := strings.Fields(line); f[0] == name+"_TRAFFIC_SECRET_0" {
				k.secret, _ = hex.DecodeString(f[2])
			}
		}
		k.setKeys()
	}
	kept := below.kept
	p.cut = func(b []byte) {
		_, _ = p.Conn.Write(append(kept, b...)) // an error shows in what the test waits for
		kept = nil
	}
	return p
}

// handshakeConn hands out one record at a time, so that tls.Conn takes none that belongs to its successor.
type handshakeConn struct {
	net.Conn
	r      *bufio.Reader
	at     recordCursor
	client bool
	writes int
	kept   []byte
}

func (h *handshakeConn) Read(p []byte) (int, error) {
	if _, err := h.r.Peek(1); err != nil {
		return 0, err
	}
	b, _ := h.r.Peek(min(h.r.Buffered(), len(p)))
	n := copy(p, b[:h.at.pass(b)])
	_, _ = h.r.Discard(n) // it is there
	return n, nil
}

func (h *handshakeConn) Write(p []byte) (int, error) {
	if h.writes++; h.client && h.writes > 1 {
		h.kept = append(h.kept, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (k *recordKeys) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	b, err := hkdf.Expand(k.hash, k.secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return b
}

func (k *recordKeys) setKeys() {
	block, err := aes.NewCipher(k.expand("key", k.keyLen))
	if err != nil {
		panic(err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	k.iv, k.n = k.expand("iv", k.aead.NonceSize()), 0
}

func (k *recordKeys) update() {
	k.secret = k.expand("traffic upd", len(k.secret))
	k.setKeys()
}

func (k *recordKeys) nonce() []byte {
	nonce := bytes.Clone(k.iv)
	low := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)^k.n)
	k.n++
	return nonce
}

// seal returns a record.
func (k *recordKeys) seal(typ byte, content []byte) []byte {
	inner := append(bytes.Clone(content), typ)
	header := []byte{recordData, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(inner)+k.aead.Overhead()))
	return k.aead.Seal(bytes.Clone(header), k.nonce(), inner, header)
}

// sealUpdate returns a KeyUpdate, in as many records as it has bytes if split is set.
func (k *recordKeys) sealUpdate(request, split bool) []byte {
	m := []byte{messageKeyUpdate, 0, 0, 1, 0}
	if request {
		m[4] = 1
	}
	var b []byte
	if split {
		for i := range m {
			b = append(b, k.seal(recordHandshake, m[i:i+1])...)
		}
	} else {
		b = k.seal(recordHandshake, m)
	}
	k.update()
	return b
}

// Write implements net.Conn.
func (p *recordPeer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sealed []byte
	for rest := b; len(rest) > 0; {
		n := 16 << 10
		if p.recordLen != nil {
			n = p.recordLen()
		}
		if p.before != nil {
			sealed = append(sealed, p.before()...)
		}
		n = min(n, len(rest))
		sealed = append(sealed, p.out.seal(recordData, rest[:n])...)
		rest = rest[n:]
	}
	p.cut(sealed)
	return len(b), nil
}

// send sends sealed records.
func (p *recordPeer) send(seal func(k *recordKeys) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut(seal(&p.out))
}

// Read implements net.Conn. It follows the other end's KeyUpdates, and answers them.
func (p *recordPeer) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		typ, content, err := p.next()
		if err != nil {
			return 0, err
		}
		switch typ {
		case recordData:
			p.rest = content
		case recordAlert:
			return 0, alertError(content[1])
		case recordHandshake:
			if content[0] != messageKeyUpdate {
				continue // a ticket
			}
			p.in.update()
			p.mu.Lock()
			p.updates++
			p.mu.Unlock()
			if content[4] == 1 {
				p.send(func(k *recordKeys) []byte { return k.sealUpdate(false, false) })
			}
		default:
			return 0, fmt.Errorf("record of type %d", typ)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// next reads a record.
func (p *recordPeer) next() (byte, []byte, error) {
	header := make([]byte, recordHeaderLen)
	if _, err := io.ReadFull(p.r, header); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(p.r, b); err != nil {
		return 0, nil, err
	}
	inner, err := p.in.aead.Open(b[:0], p.in.nonce(), b, header)
	if err != nil {
		return 0, nil, err
	}
	inner = bytes.TrimRight(inner, "\x00")
	if len(inner) < 2 {
		return 0, nil, errors.New("empty record")
	}
	return inner[len(inner)-1], inner[:len(inner)-1], nil
}

func (p *recordPeer) updated() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.updates
}

// alertError is an alert that the other end has sent.
type alertError byte

func (e alertError) Error() string { return fmt.Sprintf("alert %d", byte(e)) }
