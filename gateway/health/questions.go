package health

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "sluice/proto/inference"
)

// The questions, by their methods.
const (
	check         question = "/grpc.health.v1.Health/Check"
	serverReady   question = "/inference.GRPCInferenceService/ServerReady"
	modelReady    question = "/inference.GRPCInferenceService/ModelReady"
	modelMetadata question = "/tensorflow.serving.PredictionService/GetModelMetadata"
	ping          question = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
)

// aboutServer asks what concerns all models of the server.
func (p *prober) aboutServer(ctx context.Context) finding {
	switch p.server.Kind {
	case OpenInference:
		return p.ask(ctx, serverReady, askServerReady)
	case TorchServe:
		return p.ask(ctx, ping, askPing)
	default:
		return p.ask(ctx, check, askCheck)
	}
}

// aboutModel asks what concerns one model, where the kind of server has such a question.
func (p *prober) aboutModel(ctx context.Context, m Model) finding {
	switch {
	case p.server.Kind == OpenInference:
		return p.ask(ctx, modelReady, func(ctx context.Context, cc grpc.ClientConnInterface) finding {
			return askModelReady(ctx, cc, m)
		})
	case p.server.Kind == TFServing && p.mute[check]:
		return p.ask(ctx, modelMetadata, func(ctx context.Context, cc grpc.ClientConnInterface) finding {
			return askModelMetadata(ctx, cc, m)
		})
	}
	return finding{}
}

func askCheck(ctx context.Context, cc grpc.ClientConnInterface) finding {
	resp, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case err != nil:
		return judge(err)
	case resp.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING:
		return notReady("its health service says that it is not serving")
	}
	return finding{verdict: alive}
}

func askServerReady(ctx context.Context, cc grpc.ClientConnInterface) finding {
	resp, err := pb.NewGRPCInferenceServiceClient(cc).ServerReady(ctx, &pb.ServerReadyRequest{})
	switch {
	case err != nil:
		return judge(err)
	case !resp.GetReady():
		return notReady("the server says that it is not ready")
	}
	return finding{verdict: alive}
}

func askModelReady(ctx context.Context, cc grpc.ClientConnInterface, m Model) finding {
	resp, err := pb.NewGRPCInferenceServiceClient(cc).ModelReady(ctx, &pb.ModelReadyRequest{Name: m.Name, Version: m.Version})
	switch {
	case err != nil:
		return judgeModel(err, m)
	case !resp.GetReady():
		return notReady("the server says that model %s is not ready", m)
	}
	return finding{verdict: alive}
}

// judgeModel is judge for questions about a model: a server that does not have it
// cannot serve it.
func judgeModel(err error, m Model) finding {
	if status.Code(err) == codes.NotFound {
		return notReady("the server says that it has no model %s", m)
	}
	return judge(err)
}

// askModelMetadata asks for a model's signatures. TensorFlow Serving answers for models
// it can serve.
func askModelMetadata(ctx context.Context, cc grpc.ClientConnInterface, m Model) finding {
	if err := cc.Invoke(ctx, string(modelMetadata), metadataRequest(m), new(emptypb.Empty)); err != nil {
		return judgeModel(err, m)
	}
	return finding{verdict: alive}
}

// metadataRequest is a GetModelMetadataRequest: model_spec 1 (name 1, version 2 with
// value 1), metadata_field 2. A version that is no number is a label, which calls name
// in their own way: the model is asked for without.
func metadataRequest(m Model) *emptypb.Empty {
	var spec []byte
	spec = protowire.AppendTag(spec, 1, protowire.BytesType)
	spec = protowire.AppendString(spec, m.Name)
	if n, err := strconv.ParseInt(m.Version, 10, 64); err == nil {
		value := protowire.AppendTag(nil, 1, protowire.VarintType)
		value = protowire.AppendVarint(value, uint64(n))
		spec = protowire.AppendTag(spec, 2, protowire.BytesType)
		spec = protowire.AppendBytes(spec, value)
	}
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, spec)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, "signature_def")
	return raw(b)
}

// askPing asks TorchServe for its workers.
func askPing(ctx context.Context, cc grpc.ClientConnInterface) finding {
	resp := new(emptypb.Empty)
	if err := cc.Invoke(ctx, string(ping), new(emptypb.Empty), resp); err != nil {
		return judge(err)
	}
	// "Healthy", "Partial Healthy" or "Unhealthy", in some releases within JSON.
	if strings.Contains(firstString(resp.ProtoReflect().GetUnknown()), "Unhealthy") {
		return notReady("the server says that none of its workers runs")
	}
	return finding{verdict: alive}
}

// raw is a message of bytes that are encoded already.
func raw(b []byte) *emptypb.Empty {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(b)
	return m
}

// firstString returns field 1 of a message; empty if it has none.
func firstString(b []byte) string {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if number == 1 && kind == protowire.BytesType {
			v, n := protowire.ConsumeString(b)
			if n < 0 {
				return ""
			}
			return v
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return ""
		}
		b = b[n:]
	}
	return ""
}

// String writes the model for people.
func (m Model) String() string {
	if m.Version == "" {
		return strconv.Quote(m.Name)
	}
	return strconv.Quote(m.Name) + " version " + strconv.Quote(m.Version)
}
