package relay

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A header block is collected whole before it is decoded, so that a reader never
// waits inside one. Above these bounds the connection ends: the block cannot be
// skipped without losing the compression state.
const (
	maxBlockBytes    = 128 << 10
	maxContinuations = 32
)

// headerBlock is a HEADERS frame waiting for its CONTINUATIONs.
type headerBlock struct {
	open   bool
	stream uint32
	end    bool  // END_STREAM
	n      int   // CONTINUATIONs so far
	since  int64 // when it began, see Relay.since
	b      []byte
}

// fieldList is the decoded block: the fields, and what is wrong with them.
type fieldList struct {
	maxBytes, maxFields int
	dropHopByHop        bool // instead of finding fault: in answers
	sound               soundFields

	decoded
}

// decoded is what a block says.
type decoded struct {
	fields  []hpack.HeaderField
	size    int
	tooBig  bool
	pseudo  bool // a regular field has been seen: no pseudo-field may follow
	problem string
}

func (l *fieldList) reset() {
	clear(l.fields)
	l.decoded = decoded{fields: l.fields[:0]}
}

// add is the decoder's sink. Fields over the limit are discarded, while the
// decoder's state stays right.
func (l *fieldList) add(f hpack.HeaderField) {
	l.size += int(f.Size())
	if l.size > l.maxBytes || len(l.fields) >= l.maxFields {
		l.tooBig = true
		return
	}
	sound := l.sound.know(&f)
	if !sound {
		if l.dropHopByHop && (hopByHop(f.Name) || f.Name == "te") {
			return
		}
		f.Sensitive = f.Sensitive || volatile(f.Name)
	}
	l.fields = append(l.fields, f)
	if l.problem != "" {
		return
	}
	if l.problem = l.checkPlace(&f); l.problem != "" || sound {
		return
	}
	if l.problem = check(&f); l.problem == "" && !f.Sensitive {
		l.sound.learn(&f)
	}
}

// checkPlace finds fault with where a field stands (RFC 9113, 8.3).
func (l *fieldList) checkPlace(f *hpack.HeaderField) string {
	if !strings.HasPrefix(f.Name, ":") {
		l.pseudo = true
		return ""
	}
	if l.pseudo {
		return "pseudo-field " + f.Name + " after a regular field"
	}
	for i := range l.fields[:len(l.fields)-1] {
		if l.fields[i].Name == f.Name {
			return "duplicate " + f.Name
		}
	}
	return ""
}

// check applies RFC 9113, 8.2: what makes a message malformed whatever its kind.
func check(f *hpack.HeaderField) string {
	if !strings.HasPrefix(f.Name, ":") {
		if !validName(f.Name) {
			return fmt.Sprintf("invalid field name %q", f.Name)
		}
		if hopByHop(f.Name) || (f.Name == "te" && f.Value != "trailers") {
			return "connection-specific field " + f.Name
		}
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) || padded(f.Value) {
		return fmt.Sprintf("invalid value of field %q", f.Name)
	}
	return ""
}

// padded reports white space around a value (RFC 9113, 8.2.1).
func padded(s string) bool {
	return s != "" && (s[0] == ' ' || s[0] == '\t' || s[len(s)-1] == ' ' || s[len(s)-1] == '\t')
}

// validName reports whether a regular field's name is a lower-case token.
func validName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !nameChars[s[i]] {
			return false
		}
	}
	return true
}

var nameChars = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// hopByHop names the fields that HTTP/2 forbids (RFC 9113, 8.2.2).
func hopByHop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// volatile names fields whose values are new with nearly every call: indexing
// them would evict what repeats from the compression tables.
func volatile(name string) bool {
	switch name {
	case "traceparent", "tracestate", "x-request-id", "grpc-timeout", "content-length",
		"grpc-message", "grpc-status-details-bin", "date", "x-b3-traceid", "x-b3-spanid", "grpc-trace-bin":
		return true
	}
	return false
}

// request is what a call's header fields say to the relay itself.
type request struct {
	announced
	method, contentType string
	badTimeout          string // what stands in the timeout's place, if it is none
}

// announced is the part of a request that matters for as long as the call lasts.
type announced struct {
	path          string
	timeout       time.Duration // 0: none
	hasTimeout    bool
	contentLength int64 // -1: not announced
}

// parseRequest checks a request's pseudo-fields (RFC 9113, 8.3.1). It returns a
// reason if the stream has to be reset.
func parseRequest(l *fieldList) (r request, problem string) {
	if l.problem != "" {
		return r, l.problem
	}
	r.contentLength = -1
	seenMethod, seenScheme, seenPath := false, false, false
	for i := range l.fields {
		f := &l.fields[i]
		switch f.Name {
		case ":method":
			r.method, seenMethod = f.Value, true
		case ":scheme":
			seenScheme = true
		case ":path":
			r.path, seenPath = f.Value, true
		case ":authority":
		case "content-type":
			r.contentType = f.Value
		case "content-length":
			n, ok := parseLength(f.Value)
			if !ok || (r.contentLength >= 0 && r.contentLength != n) {
				return r, "invalid content-length"
			}
			r.contentLength = n
		case "grpc-timeout":
			if r.timeout, r.hasTimeout = parseTimeout(f.Value); !r.hasTimeout {
				r.badTimeout = f.Value
			}
		default:
			if f.Name[0] == ':' {
				return r, "unknown pseudo-field " + f.Name
			}
		}
	}
	if !seenMethod || !seenScheme || !seenPath || r.path == "" {
		return r, "missing pseudo-field"
	}
	return r, ""
}

func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// parseTimeout reads grpc-timeout: at most eight digits and a unit.
func parseTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, ok := parseLength(s[:len(s)-1])
	if !ok {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > int64(maxTimeout/unit) {
		return maxTimeout, true
	}
	return time.Duration(n) * unit, true
}

// maxTimeout stands for any longer timeout; as an int64 of nanoseconds the
// protocol's 99999999H would overflow.
const maxTimeout = 100 * 365 * 24 * time.Hour

// appendTimeout writes d as grpc-timeout, rounding up in the finest unit that
// needs at most eight digits.
func appendTimeout(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, "0n"...)
	}
	units := [...]struct {
		unit time.Duration
		name byte
	}{{time.Nanosecond, 'n'}, {time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}, {time.Hour, 'H'}}
	for _, u := range units {
		if n := (d + u.unit - 1) / u.unit; n <= 99999999 {
			return append(strconv.AppendInt(b, int64(n), 10), u.name)
		}
	}
	return append(b, "99999999H"...)
}

// --- receiving header blocks

func (c *conn) onHeaders(w *worker, h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("HEADERS on stream 0")
	}
	p, ok := unpad(h, p)
	if !ok {
		return protocolError("HEADERS padded beyond their length")
	}
	selfDependent := false
	if h.flags.Has(http2.FlagHeadersPriority) {
		if len(p) < 5 {
			return &connError{http2.ErrCodeFrameSize, "HEADERS too short for a priority"}
		}
		selfDependent = binary.BigEndian.Uint32(p)&(1<<31-1) == h.stream
		p = p[5:]
	}
	c.block.stream, c.block.n = h.stream, 0
	c.block.end = h.flags.Has(http2.FlagHeadersEndStream)
	if !h.flags.Has(http2.FlagHeadersEndHeaders) {
		c.block.open = true
		c.block.since = c.relay.since(w.now)
		c.block.b = append(c.block.b[:0], p...)
		return nil
	}
	return c.decode(w, p, selfDependent)
}

func (c *conn) onContinuation(w *worker, h frameHeader, p []byte) error {
	if !c.block.open {
		return protocolError("CONTINUATION without HEADERS")
	}
	if c.block.n++; c.block.n > maxContinuations || len(c.block.b)+len(p) > maxBlockBytes {
		return &connError{http2.ErrCodeEnhanceYourCalm, "header block too large"}
	}
	c.block.b = append(c.block.b, p...)
	if !h.flags.Has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	c.block.open = false
	b := c.block.b
	c.block.b = nil // rare enough not to be kept
	return c.decode(w, b, false)
}

// decode decodes a complete block, always: the compression state depends on it, except for
// blocks that change nothing there.
func (c *conn) decode(w *worker, p []byte, selfDependent bool) error {
	c.fields.reset()
	if !c.blocks.recall(p, &c.fields) {
		if _, err := c.dec.Write(p); err != nil {
			return &connError{http2.ErrCodeCompression, err.Error()}
		}
		if err := c.dec.Close(); err != nil {
			return &connError{http2.ErrCodeCompression, err.Error()}
		}
		c.blocks.learn(p, &c.fields)
	}
	if selfDependent && c.fields.problem == "" {
		c.fields.problem = "stream depends on itself"
	}
	return c.side.headers(w, c, c.block.stream, c.block.end, &c.fields)
}
