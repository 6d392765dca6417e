package gateway

import (
	"errors"
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
	"sluice/routing"
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
	reasonShed             = "SHED"
	reasonBudget           = "BUDGET"
	reasonDeadline         = "DEADLINE"
	reasonEvicted          = "BUFFERS_FULL"
	reasonUnreachable      = "UPSTREAM_UNREACHABLE"
	reasonLost             = "UPSTREAM_LOST"
	reasonReset            = "UPSTREAM_RESET"
	reasonUnprocessed      = "UPSTREAM_REFUSED"
	reasonInvalidAnswer    = "UPSTREAM_ANSWER_INVALID"
	reasonFault            = "FAULT_INJECTED"
	reasonOutrun           = "OUTRUN"           // of an attempt alone, never of a call
	reasonNotKept          = "REQUEST_NOT_KEPT" // only counted: no second chance for a request that was too long
	reasonNoFallback       = "NO_FALLBACK"
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

// unnamedModel refuses a call that nothing names a model for, nor a route its
// service.
func unnamedModel(m identify.Method) *refusal {
	switch m.Class {
	case identify.ClassForeign:
		return refuse(codes.Unimplemented, reasonServiceNotRouted,
			"no route lists the service %q, and no metadata (sluice-model) names a model", clip(m.Service))
	case identify.ClassManagement:
		return refuse(codes.PermissionDenied, reasonManagement,
			"%s/%s manages a model server, and no metadata (sluice-model) names a model whose route says allow_management: true",
			m.Service, clip(m.Name))
	default:
		return refuse(codes.InvalidArgument, reasonModelMissing,
			"%s/%s names no model: neither its message nor its metadata (sluice-model) does", m.Service, clip(m.Name))
	}
}

func managementRefusal(s *call) *refusal {
	return refuse(codes.PermissionDenied, reasonManagement,
		"%s/%s manages the model server, and route %q does not say allow_management: true",
		s.method.Service, clip(s.method.Name), s.route.Model)
}

// versionRefusal turns an error about a forced version into a refusal.
func versionRefusal(err error) *refusal {
	switch {
	case errors.Is(err, routing.ErrForceNotAllowed):
		return refuse(codes.PermissionDenied, reasonForceNotAllowed, "%v", err)
	case errors.Is(err, routing.ErrSharedVersion):
		return refuse(codes.InvalidArgument, reasonVersionConflict, "%v", err)
	}
	return refuse(codes.NotFound, reasonVersionNotFound, "%v", err)
}

func tooMuchHeld() *refusal {
	return &refusal{
		code: codes.ResourceExhausted, reason: reasonEvicted, retry: retryAfter,
		msg: fmt.Sprintf("compressed messages that are not complete fill %d bytes already: send fewer at once, or uncompressed", maxHeld),
	}
}

// clip keeps a caller's text in a message short.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
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
	case relay.Outrun:
		return reasonOutrun, 0
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
