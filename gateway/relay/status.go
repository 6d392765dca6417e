package relay

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The gRPC codes that the relay makes itself (google.rpc.Code).
const (
	codeCanceled          = 1
	codeUnknown           = 2
	codeDeadlineExceeded  = 4
	codePermissionDenied  = 7
	codeResourceExhausted = 8
	codeUnimplemented     = 12
	codeInternal          = 13
	codeUnavailable       = 14
	codeUnauthenticated   = 16
)

// resetToCode maps an upstream's RST_STREAM as gRPC over HTTP/2 defines it.
func resetToCode(e http2.ErrCode) uint32 {
	switch e {
	case http2.ErrCodeRefusedStream:
		return codeUnavailable
	case http2.ErrCodeCancel:
		return codeCanceled
	case http2.ErrCodeEnhanceYourCalm:
		return codeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codePermissionDenied
	}
	return codeInternal
}

// httpToCode maps an answer without grpc-status as gRPC defines it.
func httpToCode(status int) uint32 {
	switch status {
	case 400:
		return codeInternal
	case 401:
		return codeUnauthenticated
	case 403:
		return codePermissionDenied
	case 404:
		return codeUnimplemented
	case 429, 502, 503, 504:
		return codeUnavailable
	}
	return codeUnknown
}

// statusFields appends the fields of a status to dst.
func statusFields(dst []hpack.HeaderField, code uint32, msg string, details []byte) []hpack.HeaderField {
	dst = append(dst, hpack.HeaderField{Name: "grpc-status", Value: strconv.FormatUint(uint64(code), 10)})
	if msg != "" {
		dst = append(dst, hpack.HeaderField{Name: "grpc-message", Value: percentEncode(msg), Sensitive: true})
	}
	if len(details) > 0 {
		dst = append(dst, hpack.HeaderField{Name: "grpc-status-details-bin",
			Value: base64.RawStdEncoding.EncodeToString(details), Sensitive: true})
	}
	return dst
}

// percentEncode writes a message for grpc-message: printable ASCII but '%' stands
// for itself.
func percentEncode(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '%' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for _, r := range s {
		if r >= ' ' && r <= '~' && r != '%' {
			b = append(b, byte(r))
			continue
		}
		var u [utf8.UTFMax]byte
		for _, c := range u[:utf8.EncodeRune(u[:], r)] {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}
