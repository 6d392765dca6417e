package load

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
)

// Constants of RFC 9113.
const (
	frameHeaderLen = 9
	initialWindow  = 65535
	// maxFrame is the largest payload of a frame that either side sends unless the
	// other has said otherwise; this client does not.
	maxFrame = 16384
)

// frame is a received frame. Its payload is valid until the next read.
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	stream  uint32
	payload []byte
}

// parseFrame returns the first frame in b and its length, or 0 if b holds no complete one.
func parseFrame(b []byte) (f frame, n int, err error) {
	if len(b) < frameHeaderLen {
		return frame{}, 0, nil
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > maxFrame {
		return frame{}, 0, fmt.Errorf("frame of %d bytes, the limit is %d", length, maxFrame)
	}
	n = frameHeaderLen + length
	if len(b) < n {
		return frame{}, 0, nil
	}
	return frame{
		kind: http2.FrameType(b[3]), flags: http2.Flags(b[4]),
		stream:  binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
		payload: b[frameHeaderLen:n],
	}, n, nil
}

// content returns the payload of DATA or HEADERS without padding and priority.
func (f frame) content() ([]byte, error) {
	p := f.payload
	if f.flags.Has(http2.FlagDataPadded) { // the same bit in HEADERS
		if len(p) == 0 || int(p[0]) >= len(p) {
			return nil, fmt.Errorf("%v padded beyond its length", f.kind)
		}
		p = p[1 : len(p)-int(p[0])]
	}
	if f.kind == http2.FrameHeaders && f.flags.Has(http2.FlagHeadersPriority) {
		if len(p) < 5 {
			return nil, fmt.Errorf("%v too short for a priority", f.kind)
		}
		p = p[5:]
	}
	return p, nil
}

func appendFrameHeader(b []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// appendBlock makes frames of the header block that b ends with, from a place on: HEADERS and, for what is over a frame,
// CONTINUATIONs (RFC 9113, 6.10).
func appendBlock(b []byte, from int, stream uint32) []byte {
	block := bytes.Clone(b[from:])
	b = b[:from]
	for kind := http2.FrameHeaders; ; kind = http2.FrameContinuation {
		n := min(len(block), maxFrame)
		var flags http2.Flags
		if n == len(block) {
			flags = http2.FlagHeadersEndHeaders // the same bit in CONTINUATION
		}
		b = append(appendFrameHeader(b, n, kind, flags, stream), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
	}
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, stream), uint32(n))
}

func appendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(b, 4, http2.FrameRSTStream, 0, stream), uint32(code))
}
