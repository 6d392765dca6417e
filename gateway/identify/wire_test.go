package identify_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/wrapperspb" // Int64Value, which ModelSpec imports

	"sluice/gateway/identify"
	"sluice/proto/inference"
)

// frame puts gRPC's prefix before each message.
func frame(bodies ...[]byte) []byte {
	var out []byte
	for _, b := range bodies {
		out = append(out, 0)
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out
}

// fataler is what tests, benchmarks and properties share.
type fataler interface {
	Fatalf(format string, args ...any)
}

// pack frames one message, compressed.
func pack(tb fataler, encoding string, body []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	default:
		tb.Fatalf("no writer for %q", encoding)
	}
	if _, err := w.Write(body); err != nil {
		tb.Fatalf("compress: %v", err)
	}
	if err := w.Close(); err != nil {
		tb.Fatalf("compress: %v", err)
	}
	out := frame(b.Bytes())
	out[0] = 1
	return out
}

// unframe returns the bodies of all complete messages, and what is left behind them.
func unframe(p []byte) (bodies [][]byte, rest []byte) {
	for len(p) >= 5 {
		n := binary.BigEndian.Uint32(p[1:])
		if uint64(len(p)-5) < uint64(n) {
			break
		}
		bodies = append(bodies, p[5:5+n])
		p = p[5+n:]
	}
	return bodies, p
}

// str is a length-delimited field.
func str[T string | []byte](number protowire.Number, v T) []byte {
	b := protowire.AppendTag(nil, number, protowire.BytesType)
	return protowire.AppendBytes(b, []byte(v))
}

// num is a varint field.
func num(number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// spec is a model_spec field with the given fields inside.
func spec(parts ...[]byte) []byte { return str(1, join(parts...)) }

// version is a ModelSpec's version field.
func version(v uint64) []byte { return str(2, num(1, v)) }

// predictRequest describes TensorFlow Serving's PredictRequest as far as names
// go, so that the real protobuf decoder judges how model specs are merged.
var predictRequest = func() protoreflect.MessageDescriptor {
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		if of != "" {
			f.TypeName = proto.String(of)
		}
		return f
	}
	const (
		message = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		text    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		raw     = descriptorpb.FieldDescriptorProto_TYPE_BYTES
	)
	number := field("version", 2, message, ".google.protobuf.Int64Value")
	label := field("version_label", 4, text, "")
	number.OneofIndex, label.OneofIndex = proto.Int32(0), proto.Int32(0)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("predict.proto"), Syntax: proto.String("proto3"), Package: proto.String("tensorflow.serving"),
		Dependency: []string{"google/protobuf/wrappers.proto"},
		MessageType: []*descriptorpb.DescriptorProto{
			{
				Name:      proto.String("ModelSpec"),
				Field:     []*descriptorpb.FieldDescriptorProto{field("name", 1, text, ""), number, label, field("signature_name", 3, text, "")},
				OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("version_choice")}},
			},
			{
				Name:  proto.String("PredictRequest"),
				Field: []*descriptorpb.FieldDescriptorProto{field("model_spec", 1, message, ".tensorflow.serving.ModelSpec"), field("inputs", 2, raw, "")},
			},
		},
	}, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return file.Messages().ByName("PredictRequest")
}()

// dialect is one way of naming a model, with the real decoder of its messages.
type dialect struct {
	scope identify.Scope
	path  string
	new   func() proto.Message
	// names takes the names out of a decoded message and leaves the rest.
	names func(proto.Message) names
}

// names as a server reads them. Version is as identify.Names has it.
type names struct{ Model, Version, Label string }

var dialects = []dialect{
	{
		identify.ScopeModelName, inferPath,
		func() proto.Message { return new(inference.ModelInferRequest) },
		func(m proto.Message) names { return takeStrings(m, "model_name", "model_version") },
	},
	{
		identify.ScopeModelName, "/inference.GRPCInferenceService/ModelStreamInfer",
		func() proto.Message { return new(inference.ModelInferRequest) },
		func(m proto.Message) names { return takeStrings(m, "model_name", "model_version") },
	},
	{
		identify.ScopeName, "/inference.GRPCInferenceService/ModelMetadata",
		func() proto.Message { return new(inference.ModelMetadataRequest) },
		func(m proto.Message) names { return takeStrings(m, "name", "version") },
	},
	{
		identify.ScopeRepositoryModel, "/inference.GRPCInferenceService/RepositoryModelLoad",
		func() proto.Message { return new(inference.RepositoryModelLoadRequest) },
		func(m proto.Message) names { return takeStrings(m, "model_name", "") },
	},
	{
		identify.ScopeModelSpec, "/tensorflow.serving.PredictionService/Predict",
		func() proto.Message { return dynamicpb.NewMessage(predictRequest) },
		takeSpec,
	},
}

// take returns a field and clears it.
func take(m protoreflect.Message, field string) protoreflect.Value {
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(field))
	v := m.Get(fd)
	m.Clear(fd)
	return v
}

func takeStrings(m proto.Message, model, version string) names {
	n := names{Model: take(m.ProtoReflect(), model).String()}
	if version != "" {
		n.Version = take(m.ProtoReflect(), version).String()
	}
	return n
}

func takeSpec(m proto.Message) names {
	r := m.ProtoReflect()
	if !r.Has(r.Descriptor().Fields().ByName("model_spec")) {
		return names{}
	}
	s := r.Mutable(r.Descriptor().Fields().ByName("model_spec")).Message()
	n := names{Model: take(s, "name").String()}
	fields := s.Descriptor().Fields()
	if s.Has(fields.ByName("version")) {
		value := take(s, "version").Message()
		n.Version = value.Get(value.Descriptor().Fields().ByName("value")).String()
	}
	if s.Has(fields.ByName("version_label")) {
		n.Label = take(s, "version_label").String()
	}
	return n
}

func lookup(tb testing.TB, path string) identify.Method {
	tb.Helper()
	m, ok := identify.Lookup(path)
	if !ok {
		tb.Fatalf("Lookup(%q) finds nothing", path)
	}
	return m
}

// feed gives a whole request to a Scanner in the pieces that cut chooses and
// returns what was let out until the first error.
func feed(s *identify.Scanner, request []byte, cut func(left int) int) (out []byte, err error) {
	if out, err = feedOpen(s, request, cut); err != nil {
		return out, err
	}
	_, err = s.Feed(nil, true)
	return out, err
}

// feedOpen is feed for a request that does not end yet.
func feedOpen(s *identify.Scanner, request []byte, cut func(left int) int) (out []byte, err error) {
	for len(request) > 0 {
		n := cut(len(request))
		o, err := s.Feed(request[:n], false)
		if err != nil {
			return out, err
		}
		out = append(out, o...)
		request = request[n:]
	}
	return out, nil
}

func whole(left int) int { return left }
func single(int) int     { return 1 }
