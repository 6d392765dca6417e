package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"sluice/routing"
)

// Domain is that of every ErrorInfo the service makes.
const Domain = "sluice"

// The reasons in ErrorInfo.
const (
	ReasonConflict         = "CONFLICT"           // another operator was faster
	ReasonInvalid          = "INVALID"            // fields are wrong; a BadRequest says which
	ReasonModelNotFound    = "MODEL_NOT_FOUND"    // no route for the model
	ReasonIncidentNotFound = "INCIDENT_NOT_FOUND" // no incident, or more than one, has an id that begins so
	ReasonNoIncidents      = "NO_INCIDENTS"       // this gateway keeps none
	ReasonNoState          = "NO_STATE"           // the gateway has no routes at all, perhaps because its store is away
	ReasonNoHistory        = "NO_HISTORY"         // no change to undo, or no such revision
	ReasonUnreachable      = "UNREACHABLE"        // the guard has refused, force overrules it
	ReasonStoreUnavailable = "STORE_UNAVAILABLE"  // this request has changed nothing; of earlier ones with its key it tells nothing
	ReasonOutcomeUnknown   = "OUTCOME_UNKNOWN"    // repeat with the same request key to find out
	ReasonStoreRefused     = "STORE_REFUSED"      // the store would not do it; metadata store_reason says why
	ReasonTokenMissing     = "TOKEN_MISSING"      // no token, or one that is not known
	ReasonRoleMissing      = "ROLE_MISSING"       // the token's role does not suffice
)

// unknownModelError says that there is no route.
type unknownModelError struct {
	model string
	known []string // models that there are
}

// Error names the model, and what there is instead.
func (e *unknownModelError) Error() string {
	return fmt.Sprintf("no route for model %q, want one of %s", e.model, firstOf(e.known))
}

// noStateError says that there are no routes at all.
type noStateError struct{ problem error } // nil if the store is well and empty

// Error says why.
func (e *noStateError) Error() string {
	if e.problem == nil {
		return "there are no routes yet"
	}
	return fmt.Sprintf("this gateway has no routing state yet: %v", e.problem)
}

// noRoute returns why a model has no route here: nobody has made one, or this
// gateway has no routes at all.
func (s *Service) noRoute(model string) error {
	if status := s.cfg.Watcher.Status(); !status.Ready() {
		return &noStateError{status.Err}
	}
	e := &unknownModelError{model: model}
	for _, entry := range entries(s.cfg.Watcher.State()) {
		e.known = append(e.known, entry.GetModel())
	}
	if len(e.known) == 0 {
		e.known = []string{"none, for nobody has made one yet"}
	}
	return e
}

// noHistoryError says that the past does not hold what was asked for.
type noHistoryError struct{ text string }

// Error says what is missing.
func (e *noHistoryError) Error() string { return e.text }

// failure turns an error into what the caller gets. Places of problems in a
// document are renamed to those in the request.
func failure(err error, rename func(string) string) *connect.Error {
	var (
		overtaken    *overtakenError
		lost         *lostError
		conflict     *routing.ConflictError
		unavailable  *routing.UnavailableError
		refused      *routing.RefusedError
		field        *routing.FieldError
		unknownModel *unknownModelError
		noState      *noStateError
		noHistory    *noHistoryError
		unreachable  *unreachableError
	)
	switch {
	case errors.As(err, &overtaken):
		return refuse(connect.CodeAborted, ReasonConflict, err, revisions(overtaken.expected, overtaken.current))
	case errors.As(err, &lost):
		return refuse(connect.CodeAborted, ReasonConflict, err, nil)
	case errors.As(err, &conflict):
		return refuse(connect.CodeAborted, ReasonConflict, err, revisions(conflict.Expected, conflict.Current))
	case errors.As(err, &field):
		return invalid(err, rename)
	case errors.As(err, &unknownModel):
		return refuse(connect.CodeNotFound, ReasonModelNotFound, err, map[string]string{"model": unknownModel.model})
	case errors.As(err, &noState):
		return refuse(connect.CodeUnavailable, ReasonNoState, err, nil)
	case errors.As(err, &noHistory):
		return refuse(connect.CodeNotFound, ReasonNoHistory, err, nil)
	case errors.As(err, &unreachable):
		return refuse(connect.CodeFailedPrecondition, ReasonUnreachable, err, nil)
	case errors.As(err, &unavailable) && unavailable.Unknown:
		return refuse(connect.CodeUnavailable, ReasonOutcomeUnknown, err, nil)
	case errors.As(err, &unavailable):
		return refuse(connect.CodeUnavailable, ReasonStoreUnavailable, err, nil)
	case errors.As(err, &refused):
		return refuse(connect.CodeFailedPrecondition, ReasonStoreRefused, err, map[string]string{"store_reason": refused.Reason})
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(connect.CodeUnavailable, ReasonStoreUnavailable, errors.New("the store did not answer in time"), nil)
	default:
		return connect.NewError(connect.CodeInternal, err)
	}
}

func revisions(expected, current uint64) map[string]string {
	return map[string]string{"expected": strconv.FormatUint(expected, 10), "current": strconv.FormatUint(current, 10)}
}

// invalid lists all wrong fields, as text and as a BadRequest.
func invalid(err error, rename func(string) string) *connect.Error {
	bad := new(errdetails.BadRequest)
	var texts []error
	for _, f := range fieldErrors(err) {
		named := *f
		switch f.Field {
		case "actor", "reason", "request_key":
			named.Field = "intent." + f.Field
		default:
			named.Field = rename(f.Field)
		}
		texts = append(texts, &named)
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: named.Field, Description: fmt.Sprintf("got %s, want %s", f.Got, f.Want),
		})
	}
	e := refuse(connect.CodeInvalidArgument, ReasonInvalid, errors.Join(texts...), nil)
	attach(e, bad)
	return e
}

// fieldErrors returns all of them, from however deep in an error.
func fieldErrors(err error) []*routing.FieldError {
	switch e := err.(type) { //nolint:errorlint // the tree of wrapped errors is walked here
	case *routing.FieldError:
		return []*routing.FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*routing.FieldError
		for _, inner := range e.Unwrap() {
			all = append(all, fieldErrors(inner)...)
		}
		return all
	case interface{ Unwrap() error }:
		return fieldErrors(e.Unwrap())
	}
	return nil
}

func refuse(code connect.Code, reason string, err error, metadata map[string]string) *connect.Error {
	e := connect.NewError(code, err)
	attach(e, &errdetails.ErrorInfo{Reason: reason, Domain: Domain, Metadata: metadata})
	return e
}

func attach(e *connect.Error, detail proto.Message) {
	if d, err := connect.NewErrorDetail(detail); err == nil { // only invalid UTF-8 fails
		e.AddDetail(d)
	}
}
