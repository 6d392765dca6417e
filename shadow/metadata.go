package shadow

import (
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// credentialWords are the words in names of fields by which callers, or the proxies before
// them, show who they are. A shadow gets such fields only where the route allows it: it may be
// somebody's experiment.
var credentialWords = func() map[string]bool {
	words := make(map[string]bool)
	for _, w := range []string{
		"auth", "authorization", "authentication", "bearer", "oidc", "saml", "jwt", "assertion", "token", "accesstoken", "idtoken",
		"cookie", "cookie2", "secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey", "cert", "certificate", "signature",
	} {
		words[w] = true
	}
	return words
}()

// keyWords are the words after which a key is one that opens something.
var keyWords = map[string]bool{"api": true, "access": true, "secret": true, "private": true, "subscription": true, "functions": true, "master": true}

// IsCredential reports whether a field of that name, in lower case, is taken for one
// by which callers show who they are. Names are looked at word by word: there are too many
// proxies that have names of their own.
func IsCredential(name string) bool {
	before := ""
	for word := range strings.FieldsFuncSeq(name, func(c rune) bool { return c == '-' || c == '_' || c == '.' }) {
		if credentialWords[word] || word == "key" && keyWords[before] {
			return true
		}
		before = word
	}
	return false
}

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
