package relay

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Frames are taken apart here rather than by http2.Framer: the relay works on
// chunks that hold many frames, and a Framer would copy every payload once and
// allocate a value per frame. Types, flags and codes are the library's.

const (
	frameHeaderLen = 9
	// maxFrameLen is the largest payload accepted: SETTINGS_MAX_FRAME_SIZE stays
	// at its initial value (RFC 9113, 6.5.2).
	maxFrameLen = 16384
	// maxWindow is the largest flow-control window (RFC 9113, 6.9.1).
	maxWindow = 1<<31 - 1
	// initialWindow is every window's size before SETTINGS say otherwise.
	initialWindow = 65535
)

// frameHeader is the fixed part of a frame (RFC 9113, 4.1).
type frameHeader struct {
	length int
	typ    http2.FrameType
	flags  http2.Flags
	stream uint32
}

// parseFrameHeader reads the first nine bytes of b.
func parseFrameHeader(b []byte) frameHeader {
	_ = b[8]
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    http2.FrameType(b[3]),
		flags:  http2.Flags(b[4]),
		stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// unpad strips the padding of a DATA or HEADERS payload. It reports false when
// the padding is as long as the payload or longer, a PROTOCOL_ERROR.
func unpad(h frameHeader, p []byte) ([]byte, bool) {
	if !h.flags.Has(http2.FlagDataPadded) { // the same bit for HEADERS
		return p, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}

func appendFrameHeader(b []byte, length int, typ http2.FrameType, flags http2.Flags, stream uint32) []byte {
	return append(b,
		byte(length>>16), byte(length>>8), byte(length), byte(typ), byte(flags),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func setFrameLength(b []byte, length int) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendRSTStream(b []byte, stream uint32, code http2.ErrCode) []byte {
	b = appendFrameHeader(b, 4, http2.FrameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, debug string) []byte {
	b = appendFrameHeader(b, 8+len(debug), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

func appendPing(b []byte, ack bool, data []byte) []byte {
	var f http2.Flags
	if ack {
		f = http2.FlagPingAck
	}
	return append(appendFrameHeader(b, 8, http2.FramePing, f, 0), data[:8]...)
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}
