package identify

import (
	"golang.org/x/net/http2/hpack"
)

// ForceFallback is the metadata key of a token by which tests make a call fall back.
const ForceFallback = "sluice-fallback-force"

// maxRequestID is the longest x-request-id taken over, in bytes.
const maxRequestID = 128

// Metadata is what the request's metadata says about where it wants to go. Feed
// every field to Add; values are opaque bytes and never split at commas.
type Metadata struct {
	Model        string // sluice-model or an alias
	ForceVersion string // sluice-version
	Key          string // sluice-key
	RequestID    string // x-request-id, if it can be used: 1 to 128 visible ASCII characters
	Encoding     string // grpc-encoding
	// Traceparent is traceparent; several name no trace, and are no traceparent together.
	Traceparent string
	// Tracestate reports whether there is a tracestate.
	Tracestate bool
	// ForceFallback is the token of sluice-fallback-force.
	ForceFallback string

	modelFrom string // the key that named the model, for errors
}

// Add takes one field of the request. Fields may repeat, and aliases stand
// beside each other, as long as all their values agree; an empty value names
// nothing. The first usable x-request-id counts: it is a label only. An error
// is always an [*Error].
func (m *Metadata) Add(name, value string) error {
	switch name {
	case "sluice-model", "seldon-model", "mm-model-id", "mm-vmodel-id", "x-gateway-model-name":
		return m.addModel(name, value)
	case "sluice-version":
		return agree(&m.ForceVersion, name, value)
	case "sluice-key":
		return agree(&m.Key, name, value)
	case ForceFallback:
		return agree(&m.ForceFallback, name, value)
	case "grpc-encoding":
		return agree(&m.Encoding, name, value)
	case "traceparent":
		if m.Traceparent != "" {
			value = "several"
		}
		m.Traceparent = value
	case "tracestate":
		m.Tracestate = true
	case "x-request-id":
		if m.RequestID == "" && usableRequestID(value) {
			m.RequestID = value
		}
	}
	return nil
}

func (m *Metadata) addModel(name, value string) error {
	if len(value) > MaxName {
		return refuse(Malformed, "%s: got %d bytes, at most %d are accepted", name, len(value), MaxName)
	}
	if m.Model != "" && value != "" && m.Model != value {
		return refuse(Conflict, "%s: got %s, want %s as in %s", name, shown([]byte(value)), shown([]byte(m.Model)), m.modelFrom)
	}
	if value != "" {
		m.Model, m.modelFrom = value, name
	}
	return nil
}

func agree(have *string, name, value string) error {
	if *have != "" && value != "" && *have != value {
		return refuse(Conflict, "%s: got %s and %s, want one value", name, shown([]byte(*have)), shown([]byte(value)))
	}
	if value != "" {
		*have = value
	}
	return nil
}

func usableRequestID(v string) bool {
	if v == "" || len(v) > maxRequestID {
		return false
	}
	for i := range len(v) {
		if v[i] <= ' ' || v[i] > '~' {
			return false
		}
	}
	return true
}

// Value returns the value of the first field of that name: the sticky key, when
// a route takes it from metadata of its own choice.
func Value(fields []hpack.HeaderField, name string) (string, bool) {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value, true
		}
	}
	return "", false
}
