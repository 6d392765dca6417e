package gateway

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
)

// domain is the domain of every ErrorInfo that the gateway makes.
const domain = "sluice"

// The reasons that stand in ErrorInfo beside those of [identify.Reason].
const (
	reasonMethodUnknown    = "METHOD_UNKNOWN"
	reasonModelMissing     = "MODEL_MISSING"
	reasonModelNotFound    = "MODEL_NOT_FOUND"
	reasonServiceNotRouted = "SERVICE_NOT_ROUTED"
	reasonVersionNotFound  = "VERSION_NOT_FOUND"
	reasonVersionConflict  = "VERSION_CONFLICT"
	reasonForceNotAllowed  = "FORCE_NOT_ALLOWED"
	reasonManagement       = "MANAGEMENT_NOT_ALLOWED"
	reasonRename           = "RENAME_NOT_POSSIBLE"
	reasonNoEndpoint       = "NO_ENDPOINT"
	reasonBreakerOpen      = "BREAKER_OPEN"
	reasonInFlight         = "IN_FLIGHT_LIMIT"
	reasonBudget           = "BUDGET"
	reasonDeadline         = "DEADLINE"
	reasonEvicted          = "BUFFERS_FULL"
	reasonUnreachable      = "UPSTREAM_UNREACHABLE"
	reasonLost             = "UPSTREAM_LOST"
	reasonReset            = "UPSTREAM_RESET"
	reasonUnprocessed      = "UPSTREAM_REFUSED"
	reasonInvalidAnswer    = "UPSTREAM_ANSWER_INVALID"
	reasonBadRequest       = "BAD_REQUEST"
)

// retryAfter is what RetryInfo says where waiting helps: time for a connection to
// come back, short enough not to be felt as an outage.
const retryAfter = time.Second

// refusal is why the gateway ends a call by itself.
type refusal struct {
	code   codes.Code
	reason string
	msg    string
	retry  time.Duration // after which trying again may help; 0 if waiting does not
}

func refuse(code codes.Code, reason, format string, args ...any) *refusal {
	return &refusal{code: code, reason: reason, msg: fmt.Sprintf(format, args...)}
}

// identifyRefusal turns an error of the identify package into a refusal.
func identifyRefusal(err *identify.Error) *refusal {
	code := codes.InvalidArgument
	switch err.Reason {
	case identify.TooLarge:
		code = codes.ResourceExhausted
	case identify.Unsupported:
		code = codes.Unimplemented
	case identify.BadFrame:
		code = codes.Internal
	case identify.Malformed, identify.Conflict:
	}
	return &refusal{code: code, reason: err.Reason.String(), msg: err.Detail}
}

// outcomeReason names the reason for a status that the relay makes.
func outcomeReason(k relay.OutcomeKind) (reason string, retry time.Duration) {
	switch k {
	case relay.DeadlineExceeded:
		return reasonDeadline, 0
	case relay.Evicted:
		return reasonEvicted, retryAfter
	case relay.Unreachable:
		return reasonUnreachable, retryAfter
	case relay.Lost:
		return reasonLost, retryAfter
	case relay.Reset:
		return reasonReset, 0
	case relay.Unprocessed:
		return reasonUnprocessed, retryAfter
	case relay.Invalid:
		return reasonInvalidAnswer, 0
	case relay.Answered, relay.Canceled, relay.Refused:
	}
	return reasonBadRequest, 0
}

// details serializes a google.rpc.Status with ErrorInfo and, where waiting
// helps, RetryInfo.
func (r *refusal) details(metadata map[string]string) []byte {
	st := &spb.Status{Code: int32(r.code), Message: r.msg}
	add := func(m protoadapt.MessageV2) {
		if a, err := anypb.New(m); err == nil {
			st.Details = append(st.Details, a)
		}
	}
	add(&errdetails.ErrorInfo{Reason: r.reason, Domain: domain, Metadata: metadata})
	if r.retry > 0 {
		add(&errdetails.RetryInfo{RetryDelay: durationpb.New(r.retry)})
	}
	b, err := proto.Marshal(st)
	if err != nil {
		return nil // only invalid UTF-8 fails; the status itself still says everything
	}
	return b
}
