package inference_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/proto/inference"
)

// The protocol's methods as its definition has them: request -> answer.
var wireMethods = map[string]string{
	"ServerLive":            "ServerLiveRequest -> ServerLiveResponse",
	"ServerReady":           "ServerReadyRequest -> ServerReadyResponse",
	"ServerMetadata":        "ServerMetadataRequest -> ServerMetadataResponse",
	"ModelReady":            "ModelReadyRequest -> ModelReadyResponse",
	"ModelMetadata":         "ModelMetadataRequest -> ModelMetadataResponse",
	"ModelInfer":            "ModelInferRequest -> ModelInferResponse",
	"ModelStreamInfer":      "stream ModelInferRequest -> stream ModelStreamInferResponse",
	"ModelConfig":           "ModelConfigRequest -> ModelConfigResponse",
	"ModelStatistics":       "ModelStatisticsRequest -> ModelStatisticsResponse",
	"RepositoryIndex":       "RepositoryIndexRequest -> RepositoryIndexResponse",
	"RepositoryModelLoad":   "RepositoryModelLoadRequest -> RepositoryModelLoadResponse",
	"RepositoryModelUnload": "RepositoryModelUnloadRequest -> RepositoryModelUnloadResponse",
}

// The protocol's fields as its definition has them: message -> "name number type", * for repeated.
var wireFields = map[string][]string{
	"ServerLiveRequest":      {},
	"ServerLiveResponse":     {"live 1 bool"},
	"ServerReadyRequest":     {},
	"ServerReadyResponse":    {"ready 1 bool"},
	"ServerMetadataRequest":  {},
	"ServerMetadataResponse": {"name 1 string", "version 2 string", "extensions 3 string*"},
	"ModelReadyRequest":      {"name 1 string", "version 2 string"},
	"ModelReadyResponse":     {"ready 1 bool"},
	"ModelMetadataRequest":   {"name 1 string", "version 2 string"},
	"ModelMetadataResponse": {"name 1 string", "versions 2 string*", "platform 3 string",
		"inputs 4 ModelMetadataResponse.TensorMetadata*", "outputs 5 ModelMetadataResponse.TensorMetadata*"},
	"ModelMetadataResponse.TensorMetadata": {"name 1 string", "datatype 2 string", "shape 3 int64*"},
	"InferParameter": {"bool_param 1 bool", "int64_param 2 int64", "string_param 3 string",
		"double_param 4 double", "uint64_param 5 uint64"},
	"InferTensorContents": {"bool_contents 1 bool*", "int_contents 2 int32*", "int64_contents 3 int64*",
		"uint_contents 4 uint32*", "uint64_contents 5 uint64*", "fp32_contents 6 float*",
		"fp64_contents 7 double*", "bytes_contents 8 bytes*"},
	"ModelInferRequest": {"model_name 1 string", "model_version 2 string", "id 3 string",
		"parameters 4 map<string, InferParameter>", "inputs 5 ModelInferRequest.InferInputTensor*",
		"outputs 6 ModelInferRequest.InferRequestedOutputTensor*", "raw_input_contents 7 bytes*"},
	"ModelInferRequest.InferInputTensor": {"name 1 string", "datatype 2 string", "shape 3 int64*",
		"parameters 4 map<string, InferParameter>", "contents 5 InferTensorContents"},
	"ModelInferRequest.InferRequestedOutputTensor": {"name 1 string", "parameters 2 map<string, InferParameter>"},
	"ModelInferResponse": {"model_name 1 string", "model_version 2 string", "id 3 string",
		"parameters 4 map<string, InferParameter>", "outputs 5 ModelInferResponse.InferOutputTensor*",
		"raw_output_contents 6 bytes*"},
	"ModelInferResponse.InferOutputTensor": {"name 1 string", "datatype 2 string", "shape 3 int64*",
		"parameters 4 map<string, InferParameter>", "contents 5 InferTensorContents"},
	"ModelStreamInferResponse": {"error_message 1 string", "infer_response 2 ModelInferResponse"},
	"ModelConfigRequest":       {"name 1 string", "version 2 string"},
	"ModelConfigResponse":      {"config 1 ModelConfig"},
	"ModelConfig":              {"name 1 string", "platform 2 string", "max_batch_size 4 int32", "backend 17 string"},
	"ModelStatisticsRequest":   {"name 1 string", "version 2 string"},
	"ModelStatisticsResponse":  {"model_stats 1 ModelStatistics*"},
	"StatisticDuration":        {"count 1 uint64", "ns 2 uint64"},
	"InferStatistics": {"success 1 StatisticDuration", "fail 2 StatisticDuration", "queue 3 StatisticDuration",
		"compute_input 4 StatisticDuration", "compute_infer 5 StatisticDuration",
		"compute_output 6 StatisticDuration", "cache_hit 7 StatisticDuration", "cache_miss 8 StatisticDuration"},
	"InferResponseStatistics": {"compute_infer 1 StatisticDuration", "compute_output 2 StatisticDuration",
		"success 3 StatisticDuration", "fail 4 StatisticDuration", "empty_response 5 StatisticDuration",
		"cancel 6 StatisticDuration"},
	"InferBatchStatistics": {"batch_size 1 uint64", "compute_input 2 StatisticDuration",
		"compute_infer 3 StatisticDuration", "compute_output 4 StatisticDuration"},
	"MemoryUsage": {"type 1 string", "id 2 int64", "byte_size 3 uint64"},
	"ModelStatistics": {"name 1 string", "version 2 string", "last_inference 3 uint64",
		"inference_count 4 uint64", "execution_count 5 uint64", "inference_stats 6 InferStatistics",
		"batch_stats 7 InferBatchStatistics*", "memory_usage 8 MemoryUsage*",
		"response_stats 9 map<string, InferResponseStatistics>"},
	"RepositoryIndexRequest":             {"repository_name 1 string", "ready 2 bool"},
	"RepositoryIndexResponse":            {"models 1 RepositoryIndexResponse.ModelIndex*"},
	"RepositoryIndexResponse.ModelIndex": {"name 1 string", "version 2 string", "state 3 string", "reason 4 string"},
	"ModelRepositoryParameter":           {"bool_param 1 bool", "int64_param 2 int64", "string_param 3 string", "bytes_param 4 bytes"},
	"RepositoryModelLoadRequest": {"repository_name 1 string", "model_name 2 string",
		"parameters 3 map<string, ModelRepositoryParameter>"},
	"RepositoryModelLoadResponse": {},
	"RepositoryModelUnloadRequest": {"repository_name 1 string", "model_name 2 string",
		"parameters 3 map<string, ModelRepositoryParameter>"},
	"RepositoryModelUnloadResponse": {},
}

func TestServiceIsTheProtocols(t *testing.T) {
	file := inference.File_inference_inference_proto
	service := file.Services().ByName("GRPCInferenceService")
	if service == nil || file.Services().Len() != 1 {
		t.Fatalf("services = %v, want GRPCInferenceService alone", file.Services())
	}
	if got, want := service.FullName(), protoreflect.FullName("inference.GRPCInferenceService"); got != want {
		t.Errorf("service = %s, want %s", got, want)
	}
	got := make(map[string]string)
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		got[string(method.Name())] = fmt.Sprintf("%s%s -> %s%s",
			stream(method.IsStreamingClient()), localName(method.Input()),
			stream(method.IsStreamingServer()), localName(method.Output()))
	}
	if !maps.Equal(got, wireMethods) {
		t.Errorf("methods:\n got %v\nwant %v", got, wireMethods)
	}
}

func TestFieldsAreTheProtocols(t *testing.T) {
	got := make(map[string][]string)
	collect(got, inference.File_inference_inference_proto.Messages())
	for name, fields := range got {
		want, known := wireFields[name]
		if !known {
			t.Errorf("%s is not in the protocol", name)
		} else if !slices.Equal(fields, want) {
			t.Errorf("%s:\n got %v\nwant %v", name, fields, want)
		}
	}
	for name := range wireFields {
		if _, defined := got[name]; !defined {
			t.Errorf("%s is missing", name)
		}
	}
}

// The choices of a parameter exclude each other; as separate fields they would look the same on the wire
// but let a message carry two values.
func TestParameterValuesAreOneof(t *testing.T) {
	messages := inference.File_inference_inference_proto.Messages()
	for _, name := range []protoreflect.Name{"InferParameter", "ModelRepositoryParameter"} {
		fields := messages.ByName(name).Fields()
		for i := range fields.Len() {
			oneof := fields.Get(i).ContainingOneof()
			if oneof == nil || oneof.Name() != "parameter_choice" {
				t.Errorf("%s is in oneof %v, want parameter_choice", fields.Get(i).FullName(), oneof)
			}
		}
	}
}

// collect describes messages and those nested in them, by name within the package.
func collect(into map[string][]string, messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		message := messages.Get(i)
		if message.IsMapEntry() {
			continue // shown as the type of the map's field
		}
		fields := []string{}
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			fields = append(fields, fmt.Sprintf("%s %d %s", field.Name(), field.Number(), typeOf(field)))
		}
		into[localName(message)] = fields
		collect(into, message.Messages())
	}
}

func typeOf(field protoreflect.FieldDescriptor) string {
	if field.IsMap() {
		return fmt.Sprintf("map<%s, %s>", typeOf(field.MapKey()), typeOf(field.MapValue()))
	}
	name := field.Kind().String()
	if field.Message() != nil {
		name = localName(field.Message())
	}
	if field.IsList() {
		name += "*"
	}
	return name
}

func localName(message protoreflect.MessageDescriptor) string {
	return strings.TrimPrefix(string(message.FullName()), "inference.")
}

func stream(is bool) string {
	if is {
		return "stream "
	}
	return ""
}
