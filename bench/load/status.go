package load

import (
	"strconv"

	"google.golang.org/grpc/codes"
)

// statusName returns the name of a grpc-status as gRPC's documents write it, UNAVAILABLE
// for "14", and the text itself for one they do not know.
func statusName(text string) string {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n >= uint64(len(statusNames)) {
		return "grpc-status " + strconv.Quote(text)
	}
	return statusNames[n]
}

var statusNames = [...]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN",
	codes.InvalidArgument: "INVALID_ARGUMENT", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED",
	codes.OutOfRange: "OUT_OF_RANGE", codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL",
	codes.Unavailable: "UNAVAILABLE", codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}
