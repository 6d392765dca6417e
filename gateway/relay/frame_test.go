package relay

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"
)

// FuzzFrameHeader compares the frames taken from foreign bytes with those that
// http2.Framer finds there.
func FuzzFrameHeader(f *testing.F) {
	f.Add(appendPing(appendSettings(nil), false, make([]byte, 8)))
	f.Add(append(appendFrameHeader(nil, 10, http2.FrameData, http2.FlagDataPadded, 1), 3, 1, 2, 3, 4, 5, 6, 0, 0, 0))
	f.Add(appendGoAway(appendRSTStream(appendWindowUpdate(nil, 3, 5), 1, 2), 7, 0, "why"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := http2.NewFramer(nil, bytes.NewReader(b))
		fr.SetMaxReadFrameSize(maxFrameLen)
		for rest := b; len(rest) >= frameHeaderLen; {
			h := parseFrameHeader(rest)
			if h.length > maxFrameLen || len(rest) < frameHeaderLen+h.length {
				return
			}
			p := rest[frameHeaderLen : frameHeaderLen+h.length]
			rest = rest[frameHeaderLen+h.length:]
			want, err := fr.ReadFrame()
			if err != nil {
				return // the framer judges contents too
			}
			w := want.Header()
			if w.Type != h.typ || w.Flags != h.flags || w.StreamID != h.stream || int(w.Length) != h.length {
				t.Fatalf("got %+v, http2.Framer says %v", h, w)
			}
			if d, ok := want.(*http2.DataFrame); ok {
				got, ok := unpad(h, p)
				if !ok || !bytes.Equal(got, d.Data()) {
					t.Fatalf("DATA %x, http2.Framer says %x", got, d.Data())
				}
			}
		}
	})
}

// FuzzUnpad checks that padding is judged as http2.Framer judges it.
func FuzzUnpad(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add([]byte{0}, true)
	f.Add([]byte{1}, true)
	f.Add([]byte{2, 'x', 0, 0}, true)
	f.Add([]byte{4, 'x', 0, 0}, true)
	f.Fuzz(func(t *testing.T, p []byte, padded bool) {
		if len(p) > maxFrameLen {
			return
		}
		h := frameHeader{length: len(p), typ: http2.FrameData, stream: 1}
		if padded {
			h.flags = http2.FlagDataPadded
		}
		got, ok := unpad(h, p)
		b := append(appendFrameHeader(nil, len(p), h.typ, h.flags, 1), p...)
		want, err := http2.NewFramer(nil, bytes.NewReader(b)).ReadFrame()
		if ok != (err == nil) {
			t.Fatalf("unpad says %v, http2.Framer %v", ok, err)
		}
		if ok && !bytes.Equal(got, want.(*http2.DataFrame).Data()) {
			t.Fatalf("got %x", got)
		}
	})
}

func TestFramesAreReadAsWritten(t *testing.T) {
	var b []byte
	b = appendSettings(b, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	b = appendSettingsAck(b)
	b = appendWindowUpdate(b, 3, 77)
	b = appendRSTStream(b, 5, http2.ErrCodeCancel)
	b = appendPing(b, true, []byte("12345678"))
	b = appendGoAway(b, 9, http2.ErrCodeEnhanceYourCalm, "calm")
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	next := func() frame {
		t.Helper()
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		return toFrame(f)
	}
	if f := next(); len(f.settings) != 1 || f.settings[0].Val != 1<<20 || f.ack {
		t.Errorf("SETTINGS: %+v", f)
	}
	if f := next(); f.typ != http2.FrameSettings || !f.ack {
		t.Errorf("SETTINGS acknowledgement: %+v", f)
	}
	if f := next(); f.id != 3 || f.incr != 77 {
		t.Errorf("WINDOW_UPDATE: %+v", f)
	}
	if f := next(); f.id != 5 || f.code != http2.ErrCodeCancel {
		t.Errorf("RST_STREAM: %+v", f)
	}
	if f := next(); !f.ack || string(f.data) != "12345678" {
		t.Errorf("PING: %+v", f)
	}
	if f := next(); f.last != 9 || f.code != http2.ErrCodeEnhanceYourCalm || string(f.data) != "calm" {
		t.Errorf("GOAWAY: %+v", f)
	}
}

// A queue of chunks behaves like a buffer, and gives back every byte it charges.
func TestChunksBehaveLikeABuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q chunks
		var want bytes.Buffer
		b := &budget{limit: 1 << 30}
		fill := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				p := make([]byte, rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, 3*largeChunk)).Draw(t, "n"))
				for i := range p {
					fill++
					p[i] = fill
				}
				q.append(p, b)
				want.Write(p)
			},
			"pop": func(t *rapid.T) {
				front := q.front()
				if want.Len() == 0 {
					if len(front) != 0 {
						t.Fatalf("front of an empty queue has %d bytes", len(front))
					}
					return
				}
				n := rapid.IntRange(1, len(front)).Draw(t, "n")
				if !bytes.Equal(front[:n], want.Next(n)) {
					t.Fatal("other bytes came out")
				}
				q.pop(n, b)
			},
			"free": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "dice") == 0 {
					q.free(b)
					want.Reset()
				}
			},
			"": func(t *rapid.T) {
				if q.n != want.Len() {
					t.Fatalf("%d bytes, want %d", q.n, want.Len())
				}
				if int64(q.charged) != b.used.Load() || q.charged < q.n {
					t.Fatalf("%d bytes charged, %d in the budget, %d in the queue", q.charged, b.used.Load(), q.n)
				}
				var all []byte
				q.each(func(p []byte) { all = append(all, p...) })
				if !bytes.Equal(all, want.Bytes()) {
					t.Fatal("each shows other bytes")
				}
			},
		})
		q.free(b)
		if n := b.used.Load(); n != 0 {
			t.Fatalf("%d bytes stay charged", n)
		}
	})
}
