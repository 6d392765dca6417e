package identify_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/gateway/identify"
	"sluice/proto/inference"
)

func rewrite(tb testing.TB, scope identify.Scope, r identify.Rename) *identify.Rewrite {
	tb.Helper()
	w, err := identify.NewRewrite(scope, r)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func TestRewrite(t *testing.T) {
	tests := []struct {
		name    string
		dialect int
		body    []byte
		rename  identify.Rename
		want    names
	}{
		{name: "model", dialect: 0, body: str(1, "m"), rename: identify.Rename{Model: "x"}, want: names{Model: "x"}},
		{name: "model, version kept", dialect: 0, body: join(str(1, "m"), str(2, "7")), rename: identify.Rename{Model: "x"}, want: names{Model: "x", Version: "7"}},
		{name: "both", dialect: 0, body: join(str(1, "m"), str(2, "v7")), rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x", Version: "7"}},
		{name: "version alone", dialect: 0, body: str(1, "m"), rename: identify.Rename{Version: "7"}, want: names{Model: "m", Version: "7"}},
		{name: "version cleared", dialect: 0, body: join(str(1, "m"), str(2, "v7")), rename: identify.Rename{Model: "x", ClearVersion: true}, want: names{Model: "x"}},
		{name: "version set rather than cleared", dialect: 0, body: join(str(1, "m"), str(2, "v7")), rename: identify.Rename{Version: "7", ClearVersion: true}, want: names{Model: "m", Version: "7"}},
		{name: "no name before", dialect: 0, body: str(3, "id"), rename: identify.Rename{Model: "x"}, want: names{Model: "x"}},
		{name: "empty message", dialect: 0, rename: identify.Rename{Model: "x"}, want: names{Model: "x"}},
		{name: "nothing", dialect: 0, body: str(1, "m"), want: names{Model: "m"}},
		{name: "per-model method", dialect: 2, body: join(str(1, "m"), str(2, "v7")), rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x", Version: "7"}},
		{name: "repository", dialect: 3, body: join(str(1, "repo"), str(2, "m")), rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x"}},
		{name: "tensorflow", dialect: 4, body: spec(str(1, "m"), version(8), str(3, "sig")), rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x", Version: "7"}},
		{name: "tensorflow, version kept", dialect: 4, body: spec(str(1, "m"), version(8)), rename: identify.Rename{Model: "x"}, want: names{Model: "x", Version: "8"}},
		{name: "tensorflow, version 0", dialect: 4, body: spec(str(1, "m"), version(8)), rename: identify.Rename{Version: "0"}, want: names{Model: "m", Version: "0"}},
		{name: "tensorflow, version takes the label's place", dialect: 4, body: spec(str(1, "m"), str(4, "stable")), rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x", Version: "7"}},
		{name: "tensorflow, label kept", dialect: 4, body: spec(str(1, "m"), str(4, "stable")), rename: identify.Rename{Model: "x"}, want: names{Model: "x", Label: "stable"}},
		{name: "tensorflow, no spec before", dialect: 4, rename: identify.Rename{Model: "x", Version: "7"}, want: names{Model: "x", Version: "7"}},
	}
	for _, tt := range tests {
		for how, cut := range cuts {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				d := dialects[tt.dialect]
				var w identify.Rewriter
				w.Reset(rewrite(t, d.scope, tt.rename))
				in := frame(tt.body, tt.body)
				out := appendAll(&w, in, cut)
				if w.Grown() != len(out)-len(in) {
					t.Errorf("Grown() = %d, want %d", w.Grown(), len(out)-len(in))
				}
				bodies, rest := unframe(out)
				if len(bodies) != 2 || len(rest) > 0 {
					t.Fatalf("%d messages and %d bytes came out, want 2 messages", len(bodies), len(rest))
				}
				for _, body := range bodies {
					before, after := d.new(), d.new()
					if err := proto.Unmarshal(tt.body, before); err != nil {
						t.Fatal(err)
					}
					if err := proto.Unmarshal(body, after); err != nil {
						t.Fatal(err)
					}
					d.names(before)
					if got := d.names(after); got != tt.want {
						t.Errorf("server reads %+v, want %+v", got, tt.want)
					}
					if tt.dialect != 4 && !proto.Equal(before, after) {
						t.Errorf("the rest became %v, want %v", after, before)
					}
				}
			})
		}
	}
}

// appendAll rewrites request in the pieces that cut chooses.
func appendAll(w *identify.Rewriter, request []byte, cut func(left int) int) (out []byte) {
	for len(request) > 0 {
		n := cut(len(request))
		out = w.Append(out, request[:n])
		request = request[n:]
	}
	return out
}

func TestNewRewriteRefuses(t *testing.T) {
	tests := []struct {
		name   string
		scope  identify.Scope
		rename identify.Rename
		want   string
	}{
		{"long model", identify.ScopeModelName, identify.Rename{Model: strings.Repeat("m", 1025)}, "rename.model: got 1025 bytes, want at most 1024"},
		{"long version", identify.ScopeModelName, identify.Rename{Version: strings.Repeat("7", 1025)}, "rename.version: got 1025 bytes, want at most 1024"},
		{"not UTF-8", identify.ScopeNone, identify.Rename{Model: "\xff"}, `rename.model: got "\xff", want valid UTF-8`},
		{"version is no number", identify.ScopeModelSpec, identify.Rename{Version: "v7"}, `rename.version: got "v7", want a whole number as TensorFlow Serving has it`},
		{"version cannot be cleared", identify.ScopeModelSpec, identify.Rename{Model: "x", ClearVersion: true}, "rename.version: got none, want a number: a model_spec's version can be replaced, not removed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := identify.NewRewrite(tt.scope, tt.rename); err == nil || err.Error() != tt.want {
				t.Errorf("NewRewrite = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestRewriterWithoutRenameCopies(t *testing.T) {
	in := append(frame([]byte("opaque")), 1, 0xff, 0xff) // not even whole messages
	var w identify.Rewriter
	for _, r := range []*identify.Rewrite{nil, rewrite(t, identify.ScopeNone, identify.Rename{Model: "x"}), rewrite(t, identify.ScopeModelName, identify.Rename{})} {
		w.Reset(r)
		if w.Changes() {
			t.Error("Changes() = true, want false")
		}
		if out := appendAll(&w, in, single); !bytes.Equal(out, in) || w.Grown() != 0 {
			t.Errorf("came out as %x, grown by %d, want it unchanged", out, w.Grown())
		}
	}
}

// TestRewriterCorrectsTheLargestLength: the largest message a Scanner lets out
// and the longest rename still fit the prefix.
func TestRewriterCorrectsTheLargestLength(t *testing.T) {
	name := strings.Repeat("n", identify.MaxName)
	var w identify.Rewriter
	w.Reset(rewrite(t, identify.ScopeModelName, identify.Rename{Model: name, Version: name}))
	got := w.Append(nil, []byte{0, 0x7f, 0xff, 0xff, 0xff})
	// Two fields of 1024 bytes, each with a tag of one byte and a length of two.
	want := []byte{0, 0x80, 0x00, 0x08, 0x05}
	if !bytes.Equal(got, want) {
		t.Errorf("prefix became %x, want %x", got, want)
	}
}

func TestRewriterStartsOverAfterReset(t *testing.T) {
	r := rewrite(t, identify.ScopeModelName, identify.Rename{Model: "x"})
	in := frame(str(1, "m"))
	var fresh, used identify.Rewriter
	fresh.Reset(r)
	want := fresh.Append(nil, in)
	for stop := range in {
		used.Reset(r)
		used.Append(nil, in[:stop])
		used.Reset(r)
		if got := used.Append(nil, in); !bytes.Equal(got, want) {
			t.Errorf("after an attempt given up at byte %d: %x, want %x", stop, got, want)
		}
	}
}

func TestRewriterDoesNotAllocate(t *testing.T) {
	r := rewrite(t, identify.ScopeModelName, identify.Rename{Model: "x", Version: "7"})
	in := frame(str(1, "m"))
	dst := make([]byte, 0, 1024)
	var w identify.Rewriter
	if n := testing.AllocsPerRun(100, func() {
		w.Reset(r)
		w.Append(dst, in)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func ExampleRewriter() {
	body, err := proto.Marshal(&inference.ModelInferRequest{ModelName: "fraud", Id: "1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	rename, err := identify.NewRewrite(identify.ScopeModelName, identify.Rename{Model: "fraud_xgb", Version: "7"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var w identify.Rewriter
	w.Reset(rename)
	out := w.Append(nil, frame(body))

	var at inference.ModelInferRequest
	if err := proto.Unmarshal(out[5:], &at); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(at.ModelName, at.ModelVersion, at.Id)
	// Output: fraud_xgb 7 1
}
