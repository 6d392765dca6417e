package identify_test

import (
	"bytes"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"sluice/gateway/identify"
	"sluice/proto/inference"
)

// drawMessage makes a random message of a dialect with the given names, in the
// order of field numbers, as encoders write it.
func drawMessage(t *rapid.T, d dialect, n names) proto.Message {
	id := rapid.StringN(0, 40, -1).Draw(t, "id")
	tensor := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "tensor")
	m := d.new()
	switch m := m.(type) {
	case *inference.ModelInferRequest:
		m.ModelName, m.ModelVersion, m.Id = n.Model, n.Version, id
		m.Inputs = []*inference.ModelInferRequest_InferInputTensor{
			{Name: id, Datatype: "FP32", Shape: rapid.SliceOf(rapid.Int64()).Draw(t, "shape")},
		}
		m.RawInputContents = [][]byte{tensor, {}}
	case *inference.ModelMetadataRequest:
		m.Name, m.Version = n.Model, n.Version
	case *inference.RepositoryModelLoadRequest:
		m.RepositoryName, m.ModelName = id, n.Model
	default:
		r := m.ProtoReflect()
		fields := r.Descriptor().Fields()
		if n != (names{}) {
			s := r.Mutable(fields.ByName("model_spec")).Message()
			set := func(field string, v protoreflect.Value) {
				s.Set(s.Descriptor().Fields().ByName(protoreflect.Name(field)), v)
			}
			set("name", protoreflect.ValueOfString(n.Model))
			set("signature_name", protoreflect.ValueOfString(id))
			switch {
			case n.Version != "":
				set("version", protoreflect.ValueOfMessage(int64Value(n.Version)))
			case n.Label != "":
				set("version_label", protoreflect.ValueOfString(n.Label))
			}
		}
		r.Set(fields.ByName("inputs"), protoreflect.ValueOfBytes(tensor))
	}
	return m
}

func int64Value(decimal string) protoreflect.Message {
	v, err := strconv.ParseInt(decimal, 10, 64)
	if err != nil {
		panic(err) // drawNames makes no others
	}
	return wrapperspb.Int64(v).ProtoReflect()
}

// drawNames makes names a dialect can say.
func drawNames(t *rapid.T, d dialect) names {
	n := names{Model: rapid.StringN(0, 80, identify.MaxName).Draw(t, "model")}
	switch d.scope {
	case identify.ScopeRepositoryModel:
	case identify.ScopeModelSpec:
		switch rapid.IntRange(0, 2).Draw(t, "choice") {
		case 1:
			n.Version = rapid.StringMatching(`[1-9][0-9]{0,17}`).Draw(t, "version")
		case 2:
			n.Label = rapid.StringMatching(`[a-z]{1,10}`).Draw(t, "label")
		}
	default:
		n.Version = rapid.StringN(0, 10, -1).Draw(t, "version")
	}
	return n
}

func drawCut(t *rapid.T) func(left int) int {
	most := rapid.SampledFrom([]int{1, 7, 100, 1 << 20}).Draw(t, "largest piece")
	return func(left int) int { return rapid.IntRange(1, min(left, most)).Draw(t, "piece") }
}

// TestScannerReadsWhatAServerReads: however a request is cut into pieces, the
// names are those the real decoder finds, and the bytes go on as they came.
func TestScannerReadsWhatAServerReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(dialects).Draw(t, "dialect")
		n := drawNames(t, d)
		var request, plain []byte
		for i := range rapid.IntRange(1, 3).Draw(t, "messages") {
			says := n
			if i > 0 && rapid.Bool().Draw(t, "silent") {
				says = names{} // a later message may leave its names out
			}
			body, err := proto.MarshalOptions{Deterministic: true}.Marshal(drawMessage(t, d, says))
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				read := d.new()
				if err := proto.Unmarshal(body, read); err != nil {
					t.Fatal(err)
				}
				n = d.names(read) // "0" and "" differ only here
			}
			if rapid.Bool().Draw(t, "compressed") {
				request = append(request, pack(t, "gzip", body)...)
			} else {
				request = append(request, frame(body)...)
			}
			plain = append(plain, frame(body)...)
		}
		m, _ := identify.Lookup(d.path)
		var s identify.Scanner
		s.Reset(m, identify.Options{Encoding: "gzip"})
		out, err := feed(&s, request, drawCut(t))
		if err != nil {
			t.Fatalf("Feed: %v", err)
		}
		if !bytes.Equal(out, plain) {
			t.Fatalf("let out %x, want %x", out, plain)
		}
		known, ok := s.Known()
		if got := (names{string(known.Model), string(known.Version), string(known.Label)}); got != n || ok != (n.Model != "") {
			t.Fatalf("Known() = %+v, %v, want %+v", got, ok, n)
		}
	})
}

// TestEveryOtherNameIsRefused: one message among agreeing ones that names
// something else ends the call, before it is let out whole.
func TestEveryOtherNameIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(dialects).Draw(t, "dialect")
		n := names{Model: "m"}
		other := names{Model: rapid.StringN(1, 80, identify.MaxName).Filter(func(s string) bool { return s != "m" }).Draw(t, "other")}
		count := rapid.IntRange(1, 4).Draw(t, "messages")
		culprit := rapid.IntRange(0, count-1).Draw(t, "culprit")
		var request []byte
		for i := range count {
			body, err := proto.Marshal(drawMessage(t, d, n))
			if err != nil {
				t.Fatal(err)
			}
			if i == culprit {
				more, err := proto.Marshal(drawMessage(t, d, other))
				if err != nil {
					t.Fatal(err)
				}
				if i > 0 && rapid.Bool().Draw(t, "other name alone") {
					body = more
				} else {
					body = append(body, more...) // protobuf merges: the last one wins
				}
			}
			request = append(request, frame(body)...)
		}
		m, _ := identify.Lookup(d.path)
		var s identify.Scanner
		s.Reset(m, identify.Options{})
		out, err := feed(&s, request, drawCut(t))
		if err == nil {
			t.Fatalf("let out, want a refusal of %q beside %q", other.Model, n.Model)
		}
		if bodies, _ := unframe(out); len(bodies) > culprit {
			t.Fatalf("%d messages were let out, want at most %d", len(bodies), culprit)
		}
	})
}

// TestServerReadsTheRename: behind a Rewriter a server reads the new names, and
// everything else as the caller wrote it.
func TestServerReadsTheRename(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(dialects).Draw(t, "dialect")
		rename := identify.Rename{
			Model:   rapid.StringN(0, 20, -1).Draw(t, "rename.model"),
			Version: rapid.StringMatching(`([1-9][0-9]{0,17})?`).Draw(t, "rename.version"),
		}
		rename.ClearVersion = d.scope != identify.ScopeModelSpec && rapid.Bool().Draw(t, "clear")
		r, err := identify.NewRewrite(d.scope, rename)
		if err != nil {
			t.Fatal(err)
		}
		var request []byte
		var sent []proto.Message
		for range rapid.IntRange(1, 3).Draw(t, "messages") {
			m := drawMessage(t, d, drawNames(t, d))
			body, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			request = append(request, frame(body)...)
			sent = append(sent, m)
		}
		var w identify.Rewriter
		w.Reset(r)
		out := appendAll(&w, request, drawCut(t))
		bodies, rest := unframe(out)
		if len(bodies) != len(sent) || len(rest) > 0 || w.Grown() != len(out)-len(request) {
			t.Fatalf("%d messages, %d bytes more, grown by %d of %d", len(bodies), len(rest), w.Grown(), len(out)-len(request))
		}
		for i, body := range bodies {
			checkRenamed(t, d, rename, sent[i], body)
		}
	})
}

// checkRenamed compares what a server reads with what was sent. It empties sent of its names.
func checkRenamed(t fataler, d dialect, r identify.Rename, sent proto.Message, body []byte) {
	read := d.new()
	if err := proto.Unmarshal(body, read); err != nil {
		t.Fatalf("server cannot read it: %v", err)
	}
	want := d.names(sent)
	if r.Model != "" {
		want.Model = r.Model
	}
	switch {
	case d.scope == identify.ScopeRepositoryModel:
	case r.Version != "":
		want.Version, want.Label = r.Version, ""
	case r.ClearVersion:
		want.Version = ""
	}
	if got := d.names(read); got != want {
		t.Fatalf("server reads %+v, want %+v", got, want)
	}
	dropEmptySpec(sent)
	dropEmptySpec(read)
	if !proto.Equal(sent, read) {
		t.Fatalf("the rest became %v, want %v", read, sent)
	}
}

// dropEmptySpec removes a model_spec in which nothing is left: the rename may
// have brought the only one.
func dropEmptySpec(m proto.Message) {
	r := m.ProtoReflect()
	if fd := r.Descriptor().Fields().ByName("model_spec"); fd != nil && proto.Size(r.Get(fd).Message().Interface()) == 0 {
		r.Clear(fd)
	}
}
