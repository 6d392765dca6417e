package identify

import "strings"

// Kind says how many messages a method's call carries.
type Kind uint8

// The kinds.
const (
	KindUnknown Kind = iota // the method is not known, it may stream
	KindUnary               // one request message, one answer message
	KindStream              // a stream in at least one direction
)

// Scope says where a request message names its model.
type Scope uint8

// The scopes.
const (
	ScopeNone            Scope = iota // nowhere: metadata or the service decides
	ScopeModelName                    // model_name 1, model_version 2
	ScopeName                         // name 1, version 2
	ScopeRepositoryModel              // model_name 2, no version
	ScopeModelSpec                    // model_spec 1 of TensorFlow Serving: name 1, version 2, version_label 4
)

// Class says who is to treat a method, and how.
type Class uint8

// The classes.
const (
	ClassForeign    Class = iota // a service that is not known here
	ClassInference               // a method of a known inference service
	ClassManagement              // changes the server or shows its inside; needs allow_management
	ClassLocal                   // the gateway answers
)

// Method is what a path says of a call.
type Method struct {
	Service string // "inference.GRPCInferenceService"
	Name    string // "ModelInfer"
	Kind    Kind
	Scope   Scope
	Class   Class
}

// Predicts reports a method that asks a model for predictions, and that is known to
// change nothing where it is asked. A stream among them is one whose messages can be
// sent again in the same way.
func (m *Method) Predicts() bool {
	switch m.Service {
	case openInference:
		return m.Name == "ModelInfer" || m.Name == "ModelStreamInfer"
	case tfPrediction:
		return m.Name == "Predict" || m.Name == "Classify" || m.Name == "Regress" || m.Name == "MultiInference"
	case torchInference:
		return m.Name == "Predictions"
	}
	return false
}

// Infers reports the Open Inference Protocol's ModelInfer, whose messages are tensors.
func (m *Method) Infers() bool { return m.Name == "ModelInfer" && m.Service == openInference }

// Services known by name.
const (
	openInference   = "inference.GRPCInferenceService"
	tfPrediction    = "tensorflow.serving.PredictionService"
	tfModel         = "tensorflow.serving.ModelService"
	tfSession       = "tensorflow.serving.SessionService"
	torchInference  = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
	torchManagement = "org.pytorch.serve.grpc.management.ManagementAPIsService"
	health          = "grpc.health.v1.Health"
	feedback        = "sluice.feedback.v1.FeedbackService"
	reflection      = "grpc.reflection.v1.ServerReflection"
	reflectionAlpha = "grpc.reflection.v1alpha.ServerReflection"
)

// methods holds every method whose kind is known, by its path.
var methods = byPath([]Method{
	{openInference, "ServerLive", KindUnary, ScopeNone, ClassLocal},
	{openInference, "ServerReady", KindUnary, ScopeNone, ClassLocal},
	{openInference, "ServerMetadata", KindUnary, ScopeNone, ClassLocal},
	{openInference, "RepositoryIndex", KindUnary, ScopeNone, ClassLocal},
	{openInference, "ModelReady", KindUnary, ScopeName, ClassInference},
	{openInference, "ModelMetadata", KindUnary, ScopeName, ClassInference},
	{openInference, "ModelConfig", KindUnary, ScopeName, ClassInference},
	{openInference, "ModelStatistics", KindUnary, ScopeName, ClassInference},
	{openInference, "ModelInfer", KindUnary, ScopeModelName, ClassInference},
	{openInference, "ModelStreamInfer", KindStream, ScopeModelName, ClassInference},
	{openInference, "RepositoryModelLoad", KindUnary, ScopeRepositoryModel, ClassManagement},
	{openInference, "RepositoryModelUnload", KindUnary, ScopeRepositoryModel, ClassManagement},
	{openInference, "SystemSharedMemoryStatus", KindUnary, ScopeNone, ClassManagement},
	{openInference, "SystemSharedMemoryRegister", KindUnary, ScopeNone, ClassManagement},
	{openInference, "SystemSharedMemoryUnregister", KindUnary, ScopeNone, ClassManagement},
	{openInference, "CudaSharedMemoryStatus", KindUnary, ScopeNone, ClassManagement},
	{openInference, "CudaSharedMemoryRegister", KindUnary, ScopeNone, ClassManagement},
	{openInference, "CudaSharedMemoryUnregister", KindUnary, ScopeNone, ClassManagement},
	{openInference, "TraceSetting", KindUnary, ScopeNone, ClassManagement},
	{openInference, "LogSettings", KindUnary, ScopeNone, ClassManagement},

	{tfPrediction, "Predict", KindUnary, ScopeModelSpec, ClassInference},
	{tfPrediction, "PredictStreamed", KindStream, ScopeModelSpec, ClassInference},
	{tfPrediction, "Classify", KindUnary, ScopeModelSpec, ClassInference},
	{tfPrediction, "Regress", KindUnary, ScopeModelSpec, ClassInference},
	{tfPrediction, "GetModelMetadata", KindUnary, ScopeModelSpec, ClassInference},
	// The specs of MultiInference stand inside repeated tasks, one for each.
	{tfPrediction, "MultiInference", KindUnary, ScopeNone, ClassInference},
	{tfModel, "GetModelStatus", KindUnary, ScopeModelSpec, ClassInference},
	{tfModel, "HandleReloadConfigRequest", KindUnary, ScopeNone, ClassManagement},
	{tfSession, "SessionRun", KindUnary, ScopeModelSpec, ClassInference},

	{torchInference, "Ping", KindUnary, ScopeNone, ClassInference},
	{torchInference, "Predictions", KindUnary, ScopeModelName, ClassInference},
	{torchInference, "StreamPredictions", KindStream, ScopeModelName, ClassInference},
	{torchInference, "StreamPredictions2", KindStream, ScopeModelName, ClassInference},
	{torchManagement, "RegisterModel", KindUnary, ScopeNone, ClassManagement},
	{torchManagement, "UnregisterModel", KindUnary, ScopeNone, ClassManagement},
	{torchManagement, "ScaleWorker", KindUnary, ScopeNone, ClassManagement},
	{torchManagement, "ListModels", KindUnary, ScopeNone, ClassManagement},
	{torchManagement, "DescribeModel", KindUnary, ScopeNone, ClassManagement},
	{torchManagement, "SetDefault", KindUnary, ScopeNone, ClassManagement},

	{health, "Check", KindUnary, ScopeNone, ClassLocal},
	{health, "List", KindUnary, ScopeNone, ClassLocal},
	{health, "Watch", KindStream, ScopeNone, ClassLocal},
	{feedback, "Send", KindUnary, ScopeNone, ClassLocal},
	{reflection, "ServerReflectionInfo", KindStream, ScopeNone, ClassLocal},
	{reflectionAlpha, "ServerReflectionInfo", KindStream, ScopeNone, ClassLocal},
})

// OnlyAsks reports whether a call of the method asks a model something and changes
// nothing, with one message each way: sent twice, it does no more than if sent once.
func (m Method) OnlyAsks() bool {
	return m.Kind == KindUnary && m.Class == ClassInference &&
		m.Service != tfSession // which runs whatever graph the client names
}

// Acts reports whether a call of the method may change something where it is asked. Of
// methods that are not known here that is not known: their servers are trusted to say
// UNAVAILABLE of what they have not done, as gRPC's own retries do.
func (m Method) Acts() bool { return m.Class == ClassManagement || m.Service == tfSession }

func byPath(known []Method) map[string]Method {
	m := make(map[string]Method, len(known))
	for _, k := range known {
		m["/"+k.Service+"/"+k.Name] = k
	}
	return m
}

// Lookup finds the method a :path means. Paths are compared byte for byte.
// It reports false for what is not "/service/method". Like gRPC's own servers
// it takes the last slash as the border, so that gateway and server read the
// same service out of an odd path.
//
// The strings of a method that is not known are parts of path.
func Lookup(path string) (Method, bool) {
	if m, ok := methods[path]; ok {
		return m, true
	}
	border := strings.LastIndexByte(path, '/')
	if border < 2 || border == len(path)-1 || path[0] != '/' {
		return Method{}, false
	}
	m := Method{Service: path[1:border], Name: path[border+1:]}
	m.Class = classOf(m.Service, m.Name)
	return m, true
}

// classOf places a method that is not in the table: a method younger than this
// code belongs where its service does.
func classOf(service, name string) Class {
	switch service {
	case openInference:
		if strings.HasPrefix(name, "SystemSharedMemory") || strings.HasPrefix(name, "CudaSharedMemory") {
			return ClassManagement
		}
		return ClassInference
	case tfPrediction, tfModel, tfSession, torchInference:
		return ClassInference
	case torchManagement:
		return ClassManagement
	case health, feedback, reflection, reflectionAlpha:
		return ClassLocal
	}
	return ClassForeign
}
