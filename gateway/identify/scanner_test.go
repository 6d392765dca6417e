package identify_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gateway/identify"
)

const (
	streamPath  = "/inference.GRPCInferenceService/ModelStreamInfer"
	readyPath   = "/inference.GRPCInferenceService/ModelReady"
	loadPath    = "/inference.GRPCInferenceService/RepositoryModelLoad"
	predictPath = "/tensorflow.serving.PredictionService/Predict"
	torchPath   = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
	foreignPath = "/grpc.testing.TestService/UnaryCall"
)

// cuts are ways to split a request; a rule holds for all of them.
var cuts = map[string]func(left int) int{"whole": whole, "byte by byte": single}

func TestNames(t *testing.T) {
	tensor := str(7, "0123456789")
	tests := []struct {
		name     string
		path     string
		metadata string
		messages [][]byte
		want     names
	}{
		{name: "OIP", path: inferPath, messages: [][]byte{join(str(1, "m"), str(2, "7"), tensor)}, want: names{Model: "m", Version: "7"}},
		{name: "OIP without version", path: inferPath, messages: [][]byte{join(str(1, "m"), tensor)}, want: names{Model: "m"}},
		{name: "name last", path: inferPath, messages: [][]byte{join(tensor, str(1, "m"))}, want: names{Model: "m"}},
		{name: "every wire type before it", path: inferPath, messages: [][]byte{join(
			num(9, 1<<40), protowire.AppendFixed32(protowire.AppendTag(nil, 10, protowire.Fixed32Type), 1),
			protowire.AppendFixed64(protowire.AppendTag(nil, 11, protowire.Fixed64Type), 1), str(1, "m"))}, want: names{Model: "m"}},
		{name: "same name twice", path: inferPath, messages: [][]byte{join(str(1, "m"), tensor, str(1, "m"))}, want: names{Model: "m"}},
		{name: "names inside tensors do not count", path: inferPath, messages: [][]byte{join(str(1, "m"), str(5, str(1, "input")))}, want: names{Model: "m"}},
		{name: "per-model method", path: readyPath, messages: [][]byte{join(str(1, "m"), str(2, "7"))}, want: names{Model: "m", Version: "7"}},
		{name: "repository", path: loadPath, messages: [][]byte{join(str(1, "repo"), str(2, "m"))}, want: names{Model: "m"}},
		{name: "torchserve", path: torchPath, messages: [][]byte{join(str(1, "m"), str(2, "1.0"), tensor)}, want: names{Model: "m", Version: "1.0"}},
		{name: "tensorflow", path: predictPath, messages: [][]byte{join(spec(str(1, "m"), version(7), str(3, "serving_default")), tensor)}, want: names{Model: "m", Version: "7"}},
		{name: "tensorflow label", path: predictPath, messages: [][]byte{spec(str(1, "m"), str(4, "stable"))}, want: names{Model: "m", Label: "stable"}},
		{name: "tensorflow version 0", path: predictPath, messages: [][]byte{spec(str(1, "m"), str(2, ""))}, want: names{Model: "m", Version: "0"}},
		{name: "tensorflow negative version", path: predictPath, messages: [][]byte{spec(str(1, "m"), version(1<<63))}, want: names{Model: "m", Version: "-9223372036854775808"}},
		{name: "tensorflow specs merge", path: predictPath, messages: [][]byte{join(spec(version(7)), spec(), tensor, spec(str(1, "m")), spec(str(2, "")), spec(version(7), str(1, "m")))}, want: names{Model: "m", Version: "7"}},
		{name: "metadata alone", path: inferPath, metadata: "m", messages: [][]byte{tensor}, want: names{Model: "m"}},
		{name: "metadata agrees", path: inferPath, metadata: "m", messages: [][]byte{str(1, "m")}, want: names{Model: "m"}},
		{name: "metadata beside an empty name", path: inferPath, metadata: "m", messages: [][]byte{str(1, "")}, want: names{Model: "m"}},
		{name: "metadata and no message", path: inferPath, metadata: "m", want: names{Model: "m"}},
		{name: "no name at all", path: inferPath, messages: [][]byte{tensor}},
		{name: "empty name", path: inferPath, messages: [][]byte{str(1, "")}},
		{name: "empty message", path: inferPath, messages: [][]byte{{}}},
		{name: "later names are equal", path: streamPath, messages: [][]byte{join(str(1, "m"), str(2, "7")), join(str(1, "m"), str(2, "7"))}, want: names{Model: "m", Version: "7"}},
		{name: "later empty names mean the first", path: streamPath, messages: [][]byte{join(str(1, "m"), str(2, "7")), {}, join(str(1, ""), str(2, "")), str(1, "m")}, want: names{Model: "m", Version: "7"}},
		{name: "service without names", path: foreignPath, metadata: "m", messages: [][]byte{str(1, "other"), {0xff}}, want: names{Model: "m"}},
		{name: "long name", path: inferPath, messages: [][]byte{join(str(1, strings.Repeat("m", identify.MaxName)), tensor, str(1, strings.Repeat("m", identify.MaxName)))},
			want: names{Model: strings.Repeat("m", identify.MaxName)}},
		{name: "not ASCII", path: inferPath, messages: [][]byte{str(1, "modèle")}, want: names{Model: "modèle"}},
	}
	for _, tt := range tests {
		for how, cut := range cuts {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				var s identify.Scanner
				s.Reset(lookup(t, tt.path), identify.Options{Model: tt.metadata})
				request := frame(tt.messages...)
				out, err := feed(&s, request, cut)
				if err != nil {
					t.Fatalf("Feed: %v", err)
				}
				if !bytes.Equal(out, request) {
					t.Errorf("let out %x, want the request as it came", out)
				}
				checkNames(t, &s, tt.want)
				if s.Messages() != len(tt.messages) {
					t.Errorf("Messages() = %d, want %d", s.Messages(), len(tt.messages))
				}
			})
		}
	}
}

func checkNames(t *testing.T, s *identify.Scanner, want names) {
	t.Helper()
	n, ok := s.Known()
	if got := (names{string(n.Model), string(n.Version), string(n.Label)}); got != want || ok != (want.Model != "") {
		t.Errorf("Known() = %+v, %v, want %+v", got, ok, want)
	}
	if !s.Settled() {
		t.Error("Settled() = false at the end of the request")
	}
}

// TestRefusals also proves the promise behind all of them: when a call is
// refused, the message to blame has not been let out whole.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name     string
		path     string
		metadata string
		messages [][]byte
		reason   identify.Reason
		detail   string // the part of the text that names field, value and what is accepted
	}{
		{name: "last one wins", path: inferPath, messages: [][]byte{join(str(1, "a"), str(7, "tensor"), str(1, "b"))},
			reason: identify.Conflict, detail: `request message 1: model_name: got "b", want "a"`},
		{name: "name taken back", path: inferPath, messages: [][]byte{join(str(1, "a"), str(1, ""))},
			reason: identify.Conflict, detail: `model_name: got "", want "a"`},
		{name: "name after an empty one", path: inferPath, messages: [][]byte{join(str(1, ""), str(1, "b"))},
			reason: identify.Conflict, detail: `model_name: got "b", want ""`},
		{name: "versions", path: inferPath, messages: [][]byte{join(str(1, "a"), str(2, "7"), str(2, "8"))},
			reason: identify.Conflict, detail: `model_version: got "8", want "7"`},
		{name: "later message", path: streamPath, messages: [][]byte{str(1, "a"), str(1, "b")},
			reason: identify.Conflict, detail: `request message 2: model_name: got "b", want "a"`},
		{name: "later version where there was none", path: streamPath, messages: [][]byte{str(1, "a"), join(str(1, "a"), str(2, "8"))},
			reason: identify.Conflict, detail: `model_version: got "8", want ""`},
		{name: "later name where there was none", path: streamPath, messages: [][]byte{{}, str(1, "b")},
			reason: identify.Conflict, detail: `model_name: got "b", want ""`},
		{name: "metadata", path: inferPath, metadata: "a", messages: [][]byte{str(1, "b")},
			reason: identify.Conflict, detail: `model_name: got "b", want "a"`},
		{name: "metadata, second message", path: streamPath, metadata: "a", messages: [][]byte{{}, str(1, "b")},
			reason: identify.Conflict, detail: `model_name: got "b", want "a"`},
		{name: "prefix of the name", path: inferPath, messages: [][]byte{join(str(1, "ab"), str(1, "a"))}, reason: identify.Conflict, detail: `got "a", want "ab"`},
		{name: "per-model method", path: readyPath, messages: [][]byte{join(str(1, "a"), str(1, "b"))}, reason: identify.Conflict, detail: ` name: got "b", want "a"`},
		{name: "repository", path: loadPath, messages: [][]byte{join(str(2, "a"), str(2, "b"))}, reason: identify.Conflict, detail: `model_name: got "b", want "a"`},
		{name: "merged specs", path: predictPath, messages: [][]byte{join(spec(str(1, "a")), str(2, "tensor"), spec(str(1, "b")))},
			reason: identify.Conflict, detail: `model_spec.name: got "b", want "a"`},
		{name: "merged versions", path: predictPath, messages: [][]byte{join(spec(str(1, "a"), version(7)), spec(version(8)))},
			reason: identify.Conflict, detail: `model_spec.version: got "8", want "7"`},
		{name: "version twice in one Int64Value", path: predictPath, messages: [][]byte{spec(str(1, "a"), str(2, join(num(1, 7), num(1, 8))))},
			reason: identify.Conflict, detail: `model_spec.version: got "8", want "7"`},
		{name: "version and label", path: predictPath, messages: [][]byte{join(spec(str(1, "a"), version(7)), spec(str(4, "stable")))},
			reason: identify.Conflict, detail: "version_label"},
		{name: "labels", path: predictPath, messages: [][]byte{join(spec(str(1, "a"), str(4, "x")), spec(str(4, "y")))},
			reason: identify.Conflict, detail: `model_spec.version_label: got "y", want "x"`},
		{name: "not UTF-8", path: inferPath, messages: [][]byte{str(1, "a\xff")}, reason: identify.Malformed, detail: `model_name is not valid UTF-8: "a\xff"`},
		{name: "name too long", path: inferPath, messages: [][]byte{str(1, strings.Repeat("m", identify.MaxName+1))},
			reason: identify.Malformed, detail: "model_name is 1025 bytes long, at most 1024"},
		{name: "field number 0", path: inferPath, messages: [][]byte{{0x02, 0}}, reason: identify.Malformed, detail: "field number 0, want 1 to"},
		{name: "field number over 29 bits", path: inferPath, messages: [][]byte{protowire.AppendVarint(nil, 1<<32|1<<3|2)},
			reason: identify.Malformed, detail: "field number 536870913, want 1 to 536870911"},
		{name: "name as a number", path: inferPath, messages: [][]byte{num(1, 7)}, reason: identify.Malformed, detail: "model_name has wire type 0, want 2"},
		{name: "group", path: inferPath, messages: [][]byte{{3<<3 | 3, 3<<3 | 4}}, reason: identify.Malformed, detail: "field 3 is a group"},
		{name: "end of no group", path: inferPath, messages: [][]byte{{3<<3 | 4}}, reason: identify.Malformed, detail: "field 3 is a group"},
		{name: "wire type 6", path: inferPath, messages: [][]byte{{3<<3 | 6}}, reason: identify.Malformed, detail: "field 3 has wire type 6"},
		{name: "cut off behind a tag", path: inferPath, messages: [][]byte{{0x0a}}, reason: identify.Malformed, detail: "cut off inside field 1"},
		{name: "cut off inside a tag", path: inferPath, messages: [][]byte{{0x8a}}, reason: identify.Malformed, detail: "cut off inside a field's number"},
		{name: "cut off inside a number", path: inferPath, messages: [][]byte{{3 << 3, 0x80}}, reason: identify.Malformed, detail: "cut off inside field 3"},
		{name: "longer than the message", path: inferPath, messages: [][]byte{{0x0a, 5, 'a'}}, reason: identify.Malformed, detail: "field 1 is 5 bytes long, 1 are left"},
		{name: "length of 64 bits", path: inferPath, messages: [][]byte{protowire.AppendVarint([]byte{0x0a}, 1<<63)}, reason: identify.Malformed, detail: "9223372036854775808 bytes long"},
		{name: "fixed64 cut off", path: inferPath, messages: [][]byte{{3<<3 | 1, 0, 0}}, reason: identify.Malformed, detail: "field 3 is 8 bytes long, 2 are left"},
		{name: "varint of 11 bytes", path: inferPath, messages: [][]byte{append([]byte{3 << 3}, bytes.Repeat([]byte{0x80}, 11)...)}, reason: identify.Malformed, detail: "varint over 64 bits"},
		{name: "varint over 64 bits", path: inferPath, messages: [][]byte{append(append([]byte{3 << 3}, bytes.Repeat([]byte{0x80}, 9)...), 2)}, reason: identify.Malformed, detail: "varint over 64 bits"},
		{name: "spec longer than the message", path: predictPath, messages: [][]byte{{0x0a, 9, 0x0a, 1, 'a'}}, reason: identify.Malformed, detail: "9 bytes long, 3 are left"},
		{name: "name longer than its spec", path: predictPath, messages: [][]byte{join(str(1, []byte{0x0a, 2, 'a'}), str(1, spec()))}, reason: identify.Malformed, detail: "2 bytes long, 1 are left"},
		{name: "spec cut off inside a tag", path: predictPath, messages: [][]byte{join(str(1, []byte{0x8a}), []byte{1, 'a'})}, reason: identify.Malformed, detail: "cut off"},
		{name: "version as text", path: predictPath, messages: [][]byte{spec(str(2, str(1, "7")))}, reason: identify.Malformed, detail: "model_spec.version has wire type 2, want 0"},
		{name: "spec as a number", path: predictPath, messages: [][]byte{num(1, 7)}, reason: identify.Malformed, detail: "model_spec has wire type 0, want 2"},
	}
	for _, tt := range tests {
		for how, cut := range cuts {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				var s identify.Scanner
				s.Reset(lookup(t, tt.path), identify.Options{Model: tt.metadata})
				out, err := feedOpen(&s, frame(tt.messages...), cut)
				checkReason(t, err, tt.reason)
				if !strings.Contains(err.Error(), tt.detail) {
					t.Errorf("error %q, want %q in it", err, tt.detail)
				}
				if bodies, _ := unframe(out); len(bodies) >= len(tt.messages) {
					t.Errorf("all %d messages were let out", len(bodies))
				}
				if _, again := s.Feed(frame(str(1, "a")), true); !errors.Is(again, err) {
					t.Errorf("Feed after the error = %v, want the same again", again)
				}
			})
		}
	}
}

func TestFrames(t *testing.T) {
	message := frame(str(1, "m"))
	gzipped := pack(t, "gzip", str(1, "m"))
	tests := []struct {
		name    string
		path    string
		options identify.Options
		request []byte
		reason  identify.Reason // 0 = accepted
	}{
		{name: "nothing sent", path: inferPath},
		{name: "ends inside a prefix", path: inferPath, request: message[:3], reason: identify.Malformed},
		{name: "ends behind a prefix", path: inferPath, request: message[:5], reason: identify.Malformed},
		{name: "ends inside a body", path: inferPath, request: message[:6], reason: identify.Malformed},
		{name: "ends inside a compressed body", path: inferPath, options: identify.Options{Encoding: "gzip"}, request: gzipped[:9], reason: identify.Malformed},
		{name: "ends early, foreign service", path: foreignPath, request: message[:6], reason: identify.Malformed},
		{name: "flag 2", path: inferPath, request: append([]byte{2}, message[1:]...), reason: identify.BadFrame},
		{name: "flag 2, foreign service", path: foreignPath, request: append([]byte{2}, message[1:]...), reason: identify.BadFrame},
		{name: "compressed, not announced", path: inferPath, request: gzipped, reason: identify.BadFrame},
		{name: "compressed, announced as identity", path: inferPath, options: identify.Options{Encoding: "identity"}, request: gzipped, reason: identify.BadFrame},
		{name: "compression not known", path: inferPath, options: identify.Options{Encoding: "snappy"}, request: gzipped, reason: identify.Unsupported},
		{name: "compression not known, not used", path: inferPath, options: identify.Options{Encoding: "snappy"}, request: message},
		{name: "compression not known, nothing to read", path: foreignPath, options: identify.Options{Encoding: "snappy"}, request: gzipped},
		{name: "broken compression", path: inferPath, options: identify.Options{Encoding: "deflate"}, request: gzipped, reason: identify.Malformed},
		{name: "compressed nothing", path: inferPath, options: identify.Options{Encoding: "gzip"}, request: []byte{1, 0, 0, 0, 0}, reason: identify.Malformed},
		{name: "bytes behind the gzip", path: inferPath, options: identify.Options{Encoding: "gzip"},
			request: func() []byte { f := frame(append(bytes.Clone(gzipped[5:]), 0xff)); f[0] = 1; return f }(), reason: identify.Malformed},
		{name: "at the limit", path: inferPath, options: identify.Options{MaxMessage: 3}, request: message},
		{name: "over the limit", path: inferPath, options: identify.Options{MaxMessage: 2}, request: message, reason: identify.TooLarge},
		{name: "over the limit, foreign service", path: foreignPath, options: identify.Options{MaxMessage: 2}, request: message, reason: identify.TooLarge},
		{name: "over the default limit", path: inferPath, request: []byte{0, 4, 0, 0, 1}, reason: identify.TooLarge},
		{name: "over protobuf's limit", path: inferPath, options: identify.Options{MaxMessage: 1 << 40}, request: []byte{0, 0x80, 0, 0, 0}, reason: identify.TooLarge},
		{name: "conflict in a compressed message", path: inferPath, options: identify.Options{Encoding: "gzip"},
			request: pack(t, "gzip", join(str(1, "a"), str(1, "b"))), reason: identify.Conflict},
	}
	for _, tt := range tests {
		for how, cut := range cuts {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				var s identify.Scanner
				s.Reset(lookup(t, tt.path), tt.options)
				out, err := feed(&s, tt.request, cut)
				if tt.reason != 0 {
					checkReason(t, err, tt.reason)
					return
				}
				if err != nil {
					t.Fatalf("Feed: %v", err)
				}
				if !bytes.Equal(out, tt.request) {
					t.Errorf("let out %x, want the request as it came", out)
				}
			})
		}
	}
}

// TestKnownBeforeTheTensors: a call is routed as soon as its names are read, not
// when all of its tensors have come.
func TestKnownBeforeTheTensors(t *testing.T) {
	tests := []struct {
		name, path string
		head       []byte
		want       bool
	}{
		{"the name alone", inferPath, str(1, "m"), false}, // its version may follow
		{"name and version", inferPath, join(str(1, "m"), str(2, "7")), false},
		{"the next field has begun", inferPath, join(str(1, "m"), []byte{7<<3 | 2}), true},
		{"the tensor has begun", inferPath, join(str(1, "m"), str(2, "7"), []byte{7<<3 | 2, 90, 1}), true},
		{"the next field has passed", inferPath, join(str(1, "m"), str(3, "id")), true},
		{"a field before the name came behind it", loadPath, join(str(2, "m"), str(1, "repo")), false},
		{"the tensor came first", inferPath, join(str(7, "tensor"), str(1, "m")), false},
		{"spec", predictPath, spec(str(1, "m")), false},
		{"behind the spec", predictPath, join(spec(str(1, "m"), version(7)), []byte{2<<3 | 2}), true},
		{"inside the spec", predictPath, []byte{1<<3 | 2, 80, 1<<3 | 2, 1, 'm', 3<<3 | 2}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s identify.Scanner
			s.Reset(lookup(t, tt.path), identify.Options{})
			if _, err := s.Feed(append([]byte{0, 0, 0, 0, 100}, tt.head...), false); err != nil {
				t.Fatal(err)
			}
			if _, ok := s.Known(); ok != tt.want {
				t.Errorf("Known() = %v, want %v", ok, tt.want)
			}
		})
	}
	t.Run("no names in messages", func(t *testing.T) {
		var s identify.Scanner
		s.Reset(lookup(t, foreignPath), identify.Options{Model: "m"})
		if _, ok := s.Known(); !ok {
			t.Error("Known() = false before the first byte, want true")
		}
	})
}

// TestLateVersion: a version behind the tensors counts as long as nobody has
// been told that there is none.
func TestLateVersion(t *testing.T) {
	request := frame(join(str(1, "m"), str(7, "tensor"), str(2, "8")))
	var s identify.Scanner
	s.Reset(lookup(t, inferPath), identify.Options{})
	if _, err := feed(&s, request, whole); err != nil {
		t.Fatalf("in one piece: %v", err)
	}
	checkNames(t, &s, names{Model: "m", Version: "8"})

	s.Reset(lookup(t, inferPath), identify.Options{})
	out, err := feed(&s, request, func(left int) int { return min(left, len(request)/2) })
	checkReason(t, err, identify.Conflict)
	if bodies, _ := unframe(out); len(bodies) > 0 {
		t.Error("the message was let out")
	}
}

func TestMaxUnsettled(t *testing.T) {
	const most = 64
	late := frame(join(str(7, make([]byte, 2*most)), str(1, "m")))
	early := frame(join(str(1, "m"), str(7, make([]byte, 2*most))))
	for _, tt := range []struct {
		name    string
		request []byte
		model   string
		refused bool
	}{
		{"name first", early, "", false},
		{"name behind the tensors", late, "", true},
		{"name behind the tensors and in metadata", late, "m", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s identify.Scanner
			s.Reset(lookup(t, inferPath), identify.Options{Model: tt.model, MaxUnsettled: most})
			out, err := feed(&s, tt.request, single)
			if !tt.refused {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			checkReason(t, err, identify.TooLarge)
			if len(out) != 5+most {
				t.Errorf("%d bytes passed, want prefix and %d", len(out), most)
			}
		})
	}
}

// TestCompressed: compressed messages that must be read go on as if they had
// never been compressed, wherever they stand among others.
func TestCompressed(t *testing.T) {
	a, b, c := join(str(1, "m"), str(7, "first")), join(str(1, "m"), str(7, bytes.Repeat([]byte("second"), 500))), []byte{}
	for _, encoding := range []string{"gzip", "deflate"} {
		packed := func(body []byte) []byte { return pack(t, encoding, body) }
		tests := []struct {
			name    string
			request []byte
			want    []byte
		}{
			{"alone", packed(a), frame(a)},
			{"empty", packed(c), frame(c)},
			{"two", join(packed(a), packed(b)), frame(a, b)},
			{"behind a plain one", join(frame(a), packed(b)), frame(a, b)},
			{"before a plain one", join(packed(b), frame(a)), frame(b, a)},
			{"between", join(frame(a), packed(b), frame(c, a), packed(a)), frame(a, b, c, a, a)},
		}
		for _, tt := range tests {
			for how, cut := range map[string]func(int) int{
				"whole": whole, "byte by byte": single, "by 7": func(left int) int { return min(left, 7) },
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", encoding, tt.name, how), func(t *testing.T) {
					var s identify.Scanner
					s.Reset(lookup(t, streamPath), identify.Options{Encoding: encoding})
					out, err := feed(&s, tt.request, cut)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(out, tt.want) {
						t.Errorf("let out %x, want %x", out, tt.want)
					}
					if s.Held() != 0 {
						t.Errorf("Held() = %d behind the last message", s.Held())
					}
				})
			}
		}
	}
}

func TestMayChange(t *testing.T) {
	for _, tt := range []struct {
		path, encoding string
		want           bool
	}{
		{inferPath, "", false}, {inferPath, "identity", false}, {inferPath, "gzip", true}, {foreignPath, "gzip", false},
	} {
		var s identify.Scanner
		s.Reset(lookup(t, tt.path), identify.Options{Encoding: tt.encoding})
		if s.MayChange() != tt.want {
			t.Errorf("%s with grpc-encoding %q: MayChange() = %v, want %v", tt.path, tt.encoding, !tt.want, tt.want)
		}
	}
}

func TestCompressedIsHeldUntilComplete(t *testing.T) {
	packed := pack(t, "gzip", str(1, "m"))
	var s identify.Scanner
	s.Reset(lookup(t, inferPath), identify.Options{Encoding: "gzip"})
	for i := range len(packed) - 1 {
		out, err := s.Feed(packed[i:i+1], false)
		if err != nil || len(out) > 0 {
			t.Fatalf("byte %d: let out %x, %v", i, out, err)
		}
		if s.Held() != i+1 {
			t.Fatalf("Held() = %d, want %d", s.Held(), i+1)
		}
	}
	if out, err := s.Feed(packed[len(packed)-1:], true); err != nil || !bytes.Equal(out, frame(str(1, "m"))) {
		t.Fatalf("let out %x, %v", out, err)
	}
}

func TestCompressedBesidesScopePassesUntouched(t *testing.T) {
	packed := pack(t, "gzip", str(1, "m"))
	var s identify.Scanner
	s.Reset(lookup(t, foreignPath), identify.Options{Encoding: "gzip", Model: "m"})
	if out, err := feed(&s, packed, single); err != nil || !bytes.Equal(out, packed) {
		t.Fatalf("let out %x, %v, want it as it came", out, err)
	}
}

// TestBombIsBounded: a few KiB that would become some MiB cost no more than the limit.
func TestBombIsBounded(t *testing.T) {
	const limit = 128 << 10
	for _, encoding := range []string{"gzip", "deflate"} {
		var s identify.Scanner
		open := func(size int) error {
			s.Reset(lookup(t, inferPath), identify.Options{Encoding: encoding, MaxMessage: limit})
			_, err := s.Feed(pack(t, encoding, join(str(1, "m"), str(7, make([]byte, size)))), true)
			return err
		}
		overhead := len(join(str(1, "m"), str(7, make([]byte, limit/2)))) - limit/2
		if err := open(limit - overhead); err != nil {
			t.Errorf("%s: %v, want a message of exactly the limit accepted", encoding, err)
		}
		checkReason(t, open(limit-overhead+1), identify.TooLarge)
		checkReason(t, open(16*limit), identify.TooLarge)
	}
}

// TestOutputBelongsToTheCaller: decompressed bytes are not overwritten by what comes later.
func TestOutputBelongsToTheCaller(t *testing.T) {
	first, second := join(str(1, "m"), str(7, "AAAAAAAA")), join(str(1, "m"), str(7, "BBBBBBBB"))
	var s identify.Scanner
	s.Reset(lookup(t, streamPath), identify.Options{Encoding: "gzip"})
	out, err := s.Feed(pack(t, "gzip", first), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Feed(pack(t, "gzip", second), true); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, frame(first)) {
		t.Errorf("the first message became %x", out)
	}
}

func TestPlainPathDoesNotAllocate(t *testing.T) {
	for _, d := range dialects {
		m := lookup(t, d.path)
		body := join(str(1, "fraud"), str(2, "7"), str(7, make([]byte, 1000)))
		if d.scope == identify.ScopeModelSpec {
			body = join(spec(str(1, "fraud"), version(7)), str(7, make([]byte, 1000)))
		}
		request := frame(body, body)
		for how, cut := range cuts {
			var s identify.Scanner
			n := testing.AllocsPerRun(20, func() {
				s.Reset(m, identify.Options{})
				for at := 0; at < len(request); {
					n := cut(len(request) - at)
					if _, err := s.Feed(request[at:at+n], at+n == len(request)); err != nil {
						t.Fatal(err)
					}
					at += n
				}
				if _, ok := s.Known(); !ok {
					t.Fatal("no model known")
				}
			})
			if n != 0 {
				t.Errorf("%s, %s: %v allocations, want 0", d.path, how, n)
			}
		}
	}
}
