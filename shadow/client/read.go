package client

import (
	"bufio"
	"errors"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxBlock bounds the fields of one answer as they are encoded, in bytes.
const maxBlock = 64 << 10

// maxOut is how much may wait for the socket when the server wants more of it, such as
// the answers to its pings, and reads nothing.
const maxOut = 2 * writeLimit

var (
	errBlock   = errors.New("more fields than are read")
	errBacklog = errors.New("the server provokes answers and does not read them")
)

// readAll handles what the server sends until the connection ends. What has to be
// written, and the calls that are over, wait until there is nothing more to handle.
func (c *conn) readAll(r *bufio.Reader) {
	for {
		f, err := c.frames.ReadFrame()
		if err == nil {
			err = c.handle(f, time.Now())
		}
		var stream http2.StreamError
		switch {
		case errors.As(err, &stream):
			c.mu.Lock()
			_ = c.frames.WriteRSTStream(stream.StreamID, stream.Code)
			if k := c.calls[stream.StreamID]; k != nil {
				c.finish(k, Lost, time.Now())
			}
			c.mu.Unlock()
		case err != nil:
			return
		}
		if !buffered(r) {
			c.mu.Lock()
			c.stir()
			c.mu.Unlock()
			c.handOver()
		}
	}
}

// buffered reports whether a complete frame is there to be read.
func buffered(r *bufio.Reader) bool {
	const header = 9
	if r.Buffered() < header {
		return false
	}
	b, _ := r.Peek(header)
	return r.Buffered() >= header+int(b[0])<<16+int(b[1])<<8+int(b[2])
}

// handle handles one frame.
func (c *conn) handle(f http2.Frame, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = now
	if len(c.out.b) > maxOut {
		return errBacklog
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		c.data(f, now)
	case *http2.HeadersFrame:
		c.current, c.stream, c.last, c.length = c.calls[f.StreamID], f.StreamID, f.StreamEnded(), 0
		return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded(), now)
	case *http2.ContinuationFrame:
		return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded(), now)
	case *http2.RSTStreamFrame:
		c.reset(f, now)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
		} else if k := c.calls[f.StreamID]; k != nil {
			c.widen(k, int(f.Increment))
		}
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.frames.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		for id, k := range c.calls {
			if id > f.LastStreamID {
				c.finish(k, Unsent, now)
			}
		}
		c.retireLocked()
	}
	return nil
}

// fragment decodes a piece of a block, and what a whole one says. All of them are
// decoded: they share a table.
func (c *conn) fragment(b []byte, end bool, now time.Time) error {
	if c.length += len(b); c.length > maxBlock {
		return errBlock
	}
	if _, err := c.decoder.Write(b); err != nil {
		return err
	}
	if !end {
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	if k := c.current; k != nil {
		if !k.begun && len(k.http) == 3 && k.http[0] != '1' { // 1xx is only the prelude
			k.begun = true
			k.began(now)
		}
		if c.last {
			c.answered(k, now)
		}
	}
	return nil
}

// field takes one field of the block being decoded.
func (c *conn) field(f hpack.HeaderField) {
	if c.current == nil {
		return
	}
	switch f.Name {
	case ":status":
		c.current.http = f.Value
	case "grpc-status":
		c.current.status = f.Value
	case "grpc-encoding":
		c.current.Encoding = f.Value
	}
}

// answered ends a call whose answer is complete, be its request or not.
func (c *conn) answered(k *Call, now time.Time) {
	if len(k.rest) > 0 {
		_ = c.frames.WriteRSTStream(k.id, http2.ErrCodeNo)
	}
	k.Code = k.code()
	c.finish(k, Answered, now)
}

// data keeps a piece of an answer. Windows are for the whole payload, padding too.
func (c *conn) data(f *http2.DataFrame, now time.Time) {
	n := int(f.Length)
	if c.received += n; c.received >= connWindow/2 {
		_ = c.frames.WriteWindowUpdate(0, uint32(c.received))
		c.received = 0
	}
	k := c.calls[f.StreamID]
	if k == nil {
		return
	}
	if len(k.Answer)+len(f.Data()) > k.Limit {
		_ = c.frames.WriteRSTStream(k.id, http2.ErrCodeCancel)
		c.finish(k, Oversized, now)
		return
	}
	k.Answer = append(k.Answer, f.Data()...)
	if f.StreamEnded() {
		c.answered(k, now)
		return
	}
	if k.credit += n; k.credit >= streamWindow/2 {
		_ = c.frames.WriteWindowUpdate(k.id, uint32(k.credit))
		k.credit = 0
	}
}

// reset ends a call that the server has cut off.
func (c *conn) reset(f *http2.RSTStreamFrame, now time.Time) {
	k := c.calls[f.StreamID]
	switch {
	case k == nil:
	case f.ErrCode == http2.ErrCodeRefusedStream:
		c.finish(k, Unsent, now)
	case k.begun:
		k.Code = resetCode(f.ErrCode)
		c.finish(k, Answered, now)
	default:
		c.finish(k, Lost, now)
	}
}

// settings obeys the server's.
func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			by := int(s.Val) - c.initial
			c.initial = int(s.Val)
			for _, k := range c.calls {
				c.widen(k, by)
			}
		case http2.SettingMaxConcurrentStreams:
			c.streams = min(s.Val, 1<<31-1)
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(s.Val, initialTable))
		}
		return nil
	})
	if err == nil {
		err = c.frames.WriteSettingsAck()
	}
	return err
}

// widen changes the window of a stream, which may then send again.
func (c *conn) widen(k *Call, by int) {
	shut := k.window <= 0
	if k.window += by; shut && k.window > 0 && len(k.rest) > 0 {
		c.queue(k)
	}
}
