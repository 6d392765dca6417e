package shadow

import (
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// credentials are fields by which callers show who they are. A shadow gets them only
// where the route allows it: it may be somebody's experiment.
var credentialFields = []string{
	"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey", "x-goog-api-key",
	"x-auth-token", "x-access-token", "x-id-token", "x-amz-security-token", "x-csrf-token", "x-forwarded-client-cert",
	"x-forwarded-access-token", "x-goog-iam-authorization-token", "x-serverless-authorization",
}

// IsCredential reports whether a field of that name, in lower case, is taken for one
// by which callers show who they are.
func IsCredential(name string) bool { return slices.Contains(credentialFields, name) }

// passedOn appends the fields of a shadow's call, which are those of the caller's but
// for its credentials.
func passedOn(dst []hpack.HeaderField, c *Copy, allowed []string) []hpack.HeaderField {
	kind := "application/grpc"
	for i := 0; i+1 < len(c.Metadata); i += 2 {
		name, value := c.Metadata[i], c.Metadata[i+1]
		switch {
		case name == "content-type":
			kind = value
		case ownField(name) || IsCredential(name) && !slices.Contains(allowed, name):
		case name == "x-request-id" && c.RequestID != "":
		default:
			dst = append(dst, literal(name, value))
		}
	}
	if c.RequestID != "" {
		dst = append(dst, literal("x-request-id", c.RequestID))
	}
	return append(dst, hpack.HeaderField{Name: "content-type", Value: kind})
}

// literal is a field that is spelt out each time: what callers say is another thing
// with every call, or a secret, and would drive out what is always the same.
func literal(name, value string) hpack.HeaderField {
	return hpack.HeaderField{Name: name, Value: value, Sensitive: true}
}

// ownField reports a field that belongs to the call that was copied, to its
// connection, or to this gateway.
func ownField(name string) bool {
	switch name {
	case "content-length", "te", "user-agent", "host", "grpc-timeout", "grpc-encoding",
		"grpc-accept-encoding", "grpc-previous-rpc-attempts", "traceparent", "tracestate":
		return true
	}
	return name == "" || name[0] == ':' || strings.HasPrefix(name, "sluice-")
}
