package identify

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"slices"
	"sync"
)

// AcceptEncoding is the grpc-accept-encoding that names every compression a
// [Scanner] can read.
const AcceptEncoding = "identity,deflate,gzip"

// errOverLimit ends a decompression that would make too many bytes.
var errOverLimit = errors.New("over the limit")

// decompressor reads one compressed message and can be used again.
type decompressor interface {
	io.Reader
	reset(io.Reader) error
}

type gzipReader struct{ gzip.Reader }

func (r *gzipReader) reset(src io.Reader) error { return r.Reset(src) }

// zlibReader reads gRPC's deflate, which is the zlib format of RFC 1950.
type zlibReader struct{ io.ReadCloser }

func (r *zlibReader) reset(src io.Reader) (err error) {
	if z, ok := r.ReadCloser.(zlib.Resetter); ok {
		return z.Reset(src, nil)
	}
	r.ReadCloser, err = zlib.NewReader(src)
	return err
}

// codec is a decompressor with the source it reads from.
type codec struct {
	src bytes.Reader
	decompressor
}

// codecs holds idle codecs, by grpc-encoding: each is worth tens of KiB.
var codecs = map[string]*sync.Pool{
	"gzip":    {New: func() any { return &codec{decompressor: new(gzipReader)} }},
	"deflate": {New: func() any { return &codec{decompressor: new(zlibReader)} }},
}

// decompress appends src, decompressed, to dst. What it makes is bounded by
// limit bytes, whatever src claims; past it, the error is errOverLimit.
func decompress(dst, src []byte, encoding string, limit int) ([]byte, error) {
	c := codecs[encoding].Get().(*codec)
	c.src.Reset(src)
	defer func() {
		c.src.Reset(nil) // an idle codec must not keep a message alive
		codecs[encoding].Put(c)
	}()
	if err := c.reset(&c.src); err != nil {
		return nil, err
	}
	base := len(dst)
	dst = slices.Grow(dst, min(limit+1, 512+2*len(src)))
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, min(limit+1, cap(dst)))
		}
		// One byte over the limit is asked for, to tell full from too large.
		n, err := c.Read(dst[len(dst):min(cap(dst), base+limit+1)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-base > limit:
			return nil, errOverLimit
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return nil, err
		}
	}
}
