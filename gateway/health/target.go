package health

import (
	"time"

	"google.golang.org/grpc/credentials"
)

// Kind is a kind of model server, by what it can be asked.
type Kind uint8

// The kinds.
const (
	// Generic: grpc.health.v1.
	Generic Kind = iota
	// OpenInference: ServerReady and ModelReady.
	OpenInference
	// TFServing: grpc.health.v1 where it is switched on, else the model's metadata.
	TFServing
	// TorchServe: Ping.
	TorchServe
)

// KindOf returns the kind of what a route calls a server; Generic for any name that
// is not known.
func KindOf(server string) Kind {
	switch server {
	case "triton", "mlserver", "kserve", "openvino":
		return OpenInference
	case "tfserving":
		return TFServing
	case "torchserve":
		return TorchServe
	}
	return Generic
}

// Transport says how to encrypt connections. It has to be comparable: servers with
// equal ones are the same server.
type Transport interface {
	// ServerName is what the server's certificate has to be for.
	ServerName() string
	// Credentials returns what a connection is to use. It is asked for each.
	Credentials() (credentials.TransportCredentials, error)
}

// Server is whom to ask.
type Server struct {
	Addr      string    // host:port
	Transport Transport // nil for plaintext
	Kind      Kind
}

// Model is a model by the names its server has for it. Version may be empty.
type Model struct{ Name, Version string }

// Target is a model on a server.
type Target struct {
	Server Server
	Model  Model
}

// Settings say how often a server is asked and how much it takes to be unhealthy.
type Settings struct {
	// Interval is the time between two rounds of questions, give or take a tenth.
	Interval time.Duration
	// Timeout is how long an answer may take, a new connection included.
	Timeout time.Duration
	// FailAfter is how many questions in a row may go without an answer; the last of
	// them makes the target unhealthy. One answer that says so is enough.
	FailAfter int
}
