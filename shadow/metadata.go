package shadow

import (
	"encoding/base64"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
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

// passedOn makes a shadow call's metadata of the caller's.
func passedOn(fields, allowed []string) metadata.MD {
	md := make(metadata.MD, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		name, value := fields[i], fields[i+1]
		if ownField(name) || (IsCredential(name) && !slices.Contains(allowed, name)) {
			continue
		}
		if strings.HasSuffix(name, "-bin") { // grpc-go encodes it again
			b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				continue
			}
			value = string(b)
		}
		md[name] = append(md[name], value)
	}
	return md
}

// ownField reports a field that belongs to the call that was copied, to its
// connection, or to this gateway.
func ownField(name string) bool {
	switch name {
	case "content-type", "content-length", "te", "user-agent", "host", "grpc-timeout", "grpc-encoding",
		"grpc-accept-encoding", "grpc-previous-rpc-attempts", "traceparent", "tracestate":
		return true
	}
	return name == "" || name[0] == ':' || strings.HasPrefix(name, "sluice-")
}
