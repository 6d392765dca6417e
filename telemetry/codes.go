package telemetry

import "google.golang.org/genproto/googleapis/rpc/code"

// other stands in labels for what a client or a server made up.
const other = "_OTHER"

// codeNames are the labels of the gRPC status codes.
var codeNames = func() (names [code.Code_UNAUTHENTICATED + 1]string) {
	for i := range names {
		names[i] = code.Code(i).String()
	}
	return names
}()

// CodeName returns a status code in upper case, as it is written everywhere but in Go. Servers may send
// numbers that stand for nothing: those share one name.
func CodeName(c uint32) string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return other
}
