package identify_test

import (
	"testing"

	"sluice/gateway/identify"
	"sluice/proto/inference"
)

func TestLookup(t *testing.T) {
	tests := []struct {
		path string
		want identify.Method
	}{
		{"/inference.GRPCInferenceService/ModelInfer", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "ModelInfer",
			Kind: identify.KindUnary, Scope: identify.ScopeModelName, Class: identify.ClassInference,
		}},
		{"/inference.GRPCInferenceService/ModelStreamInfer", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "ModelStreamInfer",
			Kind: identify.KindStream, Scope: identify.ScopeModelName, Class: identify.ClassInference,
		}},
		{"/inference.GRPCInferenceService/ModelReady", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "ModelReady",
			Kind: identify.KindUnary, Scope: identify.ScopeName, Class: identify.ClassInference,
		}},
		{"/inference.GRPCInferenceService/ServerLive", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "ServerLive",
			Kind: identify.KindUnary, Class: identify.ClassLocal,
		}},
		{"/inference.GRPCInferenceService/RepositoryModelLoad", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "RepositoryModelLoad",
			Kind: identify.KindUnary, Scope: identify.ScopeRepositoryModel, Class: identify.ClassManagement,
		}},
		{"/inference.GRPCInferenceService/SystemSharedMemoryOfTomorrow", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "SystemSharedMemoryOfTomorrow",
			Class: identify.ClassManagement,
		}},
		{"/inference.GRPCInferenceService/MethodOfTomorrow", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "MethodOfTomorrow", Class: identify.ClassInference,
		}},
		{"/tensorflow.serving.PredictionService/Predict", identify.Method{
			Service: "tensorflow.serving.PredictionService", Name: "Predict",
			Kind: identify.KindUnary, Scope: identify.ScopeModelSpec, Class: identify.ClassInference,
		}},
		{"/tensorflow.serving.PredictionService/MultiInference", identify.Method{
			Service: "tensorflow.serving.PredictionService", Name: "MultiInference",
			Kind: identify.KindUnary, Class: identify.ClassInference,
		}},
		{"/tensorflow.serving.ModelService/HandleReloadConfigRequest", identify.Method{
			Service: "tensorflow.serving.ModelService", Name: "HandleReloadConfigRequest",
			Kind: identify.KindUnary, Class: identify.ClassManagement,
		}},
		{"/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions", identify.Method{
			Service: "org.pytorch.serve.grpc.inference.InferenceAPIsService", Name: "StreamPredictions",
			Kind: identify.KindStream, Scope: identify.ScopeModelName, Class: identify.ClassInference,
		}},
		{"/org.pytorch.serve.grpc.management.ManagementAPIsService/MethodOfTomorrow", identify.Method{
			Service: "org.pytorch.serve.grpc.management.ManagementAPIsService", Name: "MethodOfTomorrow",
			Class: identify.ClassManagement,
		}},
		{"/grpc.health.v1.Health/Watch", identify.Method{
			Service: "grpc.health.v1.Health", Name: "Watch", Kind: identify.KindStream, Class: identify.ClassLocal,
		}},
		{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", identify.Method{
			Service: "grpc.reflection.v1alpha.ServerReflection", Name: "ServerReflectionInfo",
			Kind: identify.KindStream, Class: identify.ClassLocal,
		}},
		{"/grpc.testing.TestService/UnaryCall", identify.Method{Service: "grpc.testing.TestService", Name: "UnaryCall"}},
		// As gRPC's own servers split it: this is not a method of service "a".
		{"/a/b/c", identify.Method{Service: "a/b", Name: "c"}},
		{"//inference.GRPCInferenceService/ModelInfer", identify.Method{Service: "/inference.GRPCInferenceService", Name: "ModelInfer"}},
		{"/inference.GRPCInferenceService/modelinfer", identify.Method{
			Service: "inference.GRPCInferenceService", Name: "modelinfer", Class: identify.ClassInference,
		}},
	}
	for _, tt := range tests {
		if got, ok := identify.Lookup(tt.path); !ok || got != tt.want {
			t.Errorf("Lookup(%q) = %+v, %v, want %+v", tt.path, got, ok, tt.want)
		}
	}
}

func TestLookupRefusesWhatIsNoMethod(t *testing.T) {
	for _, path := range []string{"", "/", "//", "*", "a/b", "/a", "/a/", "//b", "service/method", "?/x"} {
		if m, ok := identify.Lookup(path); ok {
			t.Errorf("Lookup(%q) = %+v, want none", path, m)
		}
	}
}

// TestEveryMethodOfTheSchemaIsKnown keeps the table and the schema together.
func TestEveryMethodOfTheSchemaIsKnown(t *testing.T) {
	desc := inference.GRPCInferenceService_ServiceDesc
	kinds := map[string]identify.Kind{}
	for _, m := range desc.Methods {
		kinds[m.MethodName] = identify.KindUnary
	}
	for _, s := range desc.Streams {
		kinds[s.StreamName] = identify.KindStream
	}
	for name, kind := range kinds {
		if m, ok := identify.Lookup("/" + desc.ServiceName + "/" + name); !ok || m.Kind != kind {
			t.Errorf("Lookup(%s) = %+v, %v, want kind %d", name, m, ok, kind)
		}
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	for _, path := range []string{inferPath, "/grpc.testing.TestService/UnaryCall", "nonsense"} {
		if n := testing.AllocsPerRun(100, func() { identify.Lookup(path) }); n != 0 {
			t.Errorf("Lookup(%q) allocates %v times, want 0", path, n)
		}
	}
}
