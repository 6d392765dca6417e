package identify_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/identify"
)

// seeds are requests worth starting from: each rule, kept and broken.
func seeds(f *testing.F) [][]byte {
	return [][]byte{
		inferRequest(f, 64),
		frame(join(str(1, "m"), str(2, "7")), join(str(1, "m"), str(2, "7")), nil),
		frame(join(str(1, "m"), str(7, "tensor"), str(1, "other"))),
		frame(str(1, "m"), str(1, "other")),
		frame(join(str(7, "tensor"), str(1, "m"), str(2, "7"))),
		frame(join(spec(str(1, "m"), version(7)), str(2, "tensor"), spec(str(1, "m"), str(3, "sig")))),
		frame(join(spec(str(1, "m"), version(7)), spec(str(4, "stable")))),
		frame(join(spec(str(1, "m")), spec(str(1, "other")))),
		frame(join(spec(), spec(str(2, "")), spec(version(1<<63)))),
		frame([]byte{3<<3 | 3, 3<<3 | 4}),
		frame(append([]byte{3 << 3}, bytes.Repeat([]byte{0x80}, 11)...)),
		frame([]byte{0x8a, 0x80, 0x00, 1, 'm'}), // an overlong tag is a tag
		frame(protowire.AppendVarint(nil, 1<<32|1<<3|2)),
		pack(f, "gzip", join(str(1, "m"), str(1, "other"))),
		join(frame(str(1, "m")), pack(f, "gzip", str(1, "m"))),
		{1, 0, 0, 0, 0},
		{2},
	}
}

// fuzzCut turns fuzzed bytes into piece sizes, over and over.
func fuzzCut(sizes []byte) func(left int) int {
	i := 0
	return func(left int) int {
		if len(sizes) == 0 {
			return left
		}
		i++
		return min(left, 1+int(sizes[i%len(sizes)]))
	}
}

// FuzzFeed: whatever comes in, in whatever pieces, every message let out whole
// names the call's model and version to the decoder a server uses, or none.
func FuzzFeed(f *testing.F) {
	for i, request := range seeds(f) {
		f.Add(uint8(i), request, []byte{0}, "")
		f.Add(uint8(i+1), request, []byte{3, 0, 9}, "m")
		f.Add(uint8(4), request, []byte{}, "")
	}
	f.Fuzz(func(t *testing.T, which uint8, request, sizes []byte, model string) {
		d := dialects[int(which)%len(dialects)]
		if len(model) > identify.MaxName {
			return // Metadata refuses such a name
		}
		// Small, so that the fuzzer finds it.
		options := identify.Options{Model: model, Encoding: "gzip", MaxMessage: 4096}

		var s identify.Scanner
		s.Reset(lookup(t, d.path), options)
		out, err := feed(&s, request, fuzzCut(sizes))
		checkLetOut(t, d, &s, out, model)
		checkRewritten(t, d, out, sizes)

		var e *identify.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error %v is no *Error", err)
		}
		if err == nil && len(request) > 0 && s.Held() != 0 {
			t.Fatalf("%d bytes held behind the end", s.Held())
		}
		checkPiecesDoNotMatter(t, d, options, request, out, err)
	})
}

// checkLetOut reads every complete message of out as a server does.
func checkLetOut(t *testing.T, d dialect, s *identify.Scanner, out []byte, model string) {
	t.Helper()
	known, _ := s.Known()
	call := names{string(known.Model), string(known.Version), string(known.Label)}
	if model != "" && call.Model != model {
		t.Fatalf("the call is for %q, its metadata said %q", call.Model, model)
	}
	bodies, _ := unframe(out)
	for i, body := range bodies {
		m := d.new()
		if err := proto.Unmarshal(body, m); err != nil {
			continue // a server refuses it, too
		}
		read := d.names(m)
		if read.Model != "" && read.Model != call.Model ||
			read.Version != "" && read.Version != call.Version ||
			read.Label != "" && read.Label != call.Label {
			t.Fatalf("message %d of a call for %+v reads %+v", i+1, call, read)
		}
		if i == 0 && model == "" && read != call {
			t.Fatalf("the first message reads %+v, the call is for %+v", read, call)
		}
	}
}

// checkRewritten renames what was let out and reads it as a server does.
func checkRewritten(t *testing.T, d dialect, out, sizes []byte) {
	t.Helper()
	rename := identify.Rename{Model: "renamed", Version: "42"}
	var w identify.Rewriter
	w.Reset(rewrite(t, d.scope, rename))
	renamed := appendAll(&w, out, fuzzCut(sizes))
	before, _ := unframe(out)
	after, _ := unframe(renamed)
	if len(after) != len(before) {
		t.Fatalf("%d messages became %d", len(before), len(after))
	}
	for i := range before {
		sent := d.new()
		if proto.Unmarshal(before[i], sent) == nil {
			checkRenamed(t, d, rename, sent, after[i])
		}
	}
}

// checkPiecesDoNotMatter feeds the request again, whole. Only a version that
// comes late may be refused in pieces and accepted at once.
func checkPiecesDoNotMatter(t *testing.T, d dialect, o identify.Options, request, out []byte, err error) {
	t.Helper()
	var s identify.Scanner
	s.Reset(lookup(t, d.path), o)
	atOnce, errAtOnce := feed(&s, request, whole)
	if err == nil && (errAtOnce != nil || !bytes.Equal(out, atOnce)) {
		t.Fatalf("in pieces: %x; at once: %x, %v", out, atOnce, errAtOnce)
	}
	var e *identify.Error
	if errAtOnce == nil && err != nil && (!errors.As(err, &e) || e.Reason != identify.Conflict) {
		t.Fatalf("in pieces: %v; at once accepted", err)
	}
}

// FuzzRewriter: a Rewriter is never upset, and how a request is cut into pieces
// changes nothing.
func FuzzRewriter(f *testing.F) {
	for _, request := range seeds(f) {
		f.Add(request, []byte{2, 0, 7}, "renamed")
	}
	f.Fuzz(func(t *testing.T, request, sizes []byte, model string) {
		r, err := identify.NewRewrite(identify.ScopeModelName, identify.Rename{Model: model})
		if err != nil {
			return // not a name
		}
		var w identify.Rewriter
		w.Reset(r)
		atOnce := w.Append(nil, request)
		w.Reset(r)
		if pieces := appendAll(&w, request, fuzzCut(sizes)); !bytes.Equal(pieces, atOnce) {
			t.Fatalf("in pieces: %x; at once: %x", pieces, atOnce)
		}
	})
}

// FuzzLookup: what is found is what the path says, byte for byte.
func FuzzLookup(f *testing.F) {
	f.Add(inferPath)
	f.Add("/a/b/c")
	f.Add("//")
	f.Fuzz(func(t *testing.T, path string) {
		if m, ok := identify.Lookup(path); ok && "/"+m.Service+"/"+m.Name != path {
			t.Fatalf("Lookup(%q) = %+v", path, m)
		}
	})
}
