package identify

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// FirstMessage returns the first of the messages in body, which are as gRPC puts them
// on the wire, decompressed by its grpc-encoding if need be. At most limit bytes are
// made; a message that is not compressed is part of body.
func FirstMessage(body []byte, encoding string, limit int) ([]byte, error) {
	const prefix = 5
	if len(body) < prefix {
		return nil, errors.New("there is no message")
	}
	n := binary.BigEndian.Uint32(body[1:])
	if uint64(n) > uint64(len(body)-prefix) {
		return nil, fmt.Errorf("got %d bytes of a message of %d", len(body)-prefix, n)
	}
	message := body[prefix:][:n]
	switch {
	case body[0] == 0:
		return message, nil
	case codecs[encoding] == nil:
		return nil, fmt.Errorf("grpc-encoding: got %q, want one of %s", encoding, AcceptEncoding)
	}
	return decompress(nil, message, encoding, limit)
}
