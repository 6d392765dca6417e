package shadow

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// prefixSize is the length of what stands before a message: a flag that it is
// compressed, and its length in four bytes.
const prefixSize = 5

var (
	errFrames   = errors.New("the messages are cut off")
	errExpanded = errors.New("more than is read when it is decompressed")
)

// split returns the messages of a body, as parts of it.
func split(body []byte) (messages [][]byte, compressed bool, err error) {
	for len(body) > 0 {
		if len(body) < prefixSize {
			return nil, false, errFrames
		}
		n := uint64(binary.BigEndian.Uint32(body[1:]))
		if n > uint64(len(body)-prefixSize) {
			return nil, false, errFrames
		}
		compressed = compressed || body[0] != 0
		messages = append(messages, body[prefixSize:][:n:n])
		body = body[prefixSize+n:]
	}
	return messages, compressed, nil
}

// expand returns body with its compressed messages decompressed. In more than limit bytes
// it is errExpanded. What is not compressed is returned as it is.
func expand(body []byte, encoding string, limit int) ([]byte, error) {
	messages, compressed, err := split(body)
	if err != nil || !compressed {
		return body, err
	}
	if encoding != "gzip" {
		return nil, fmt.Errorf("a message compressed by %q", encoding)
	}
	var out bytes.Buffer
	flag := 0
	for _, m := range messages {
		at := out.Len()
		out.Write(make([]byte, prefixSize))
		if body[flag] == 0 {
			out.Write(m)
		} else if err := gunzip(&out, m, limit); err != nil {
			return nil, err
		}
		if out.Len() > limit {
			return nil, errExpanded
		}
		flag += prefixSize + len(m)
		binary.BigEndian.PutUint32(out.Bytes()[at+1:], uint32(out.Len()-at-prefixSize))
	}
	return out.Bytes(), nil
}

// gunzip appends at most limit bytes and one of the decompressed message to out.
func gunzip(out *bytes.Buffer, m []byte, limit int) error {
	z, err := gzip.NewReader(bytes.NewReader(m))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(z, int64(limit-out.Len()+1)))
	return err
}
