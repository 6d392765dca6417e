package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"sluice/gateway/admin"
)

// failure is what went wrong with a gateway, in words for the one who asked.
type failure struct {
	text string
	try  string // what may help; may be empty
	lost bool   // another operator was faster
	err  error
}

// Error says what happened and what to try.
func (f *failure) Error() string {
	if f.try == "" {
		return f.text
	}
	return fmt.Sprintf("%s (try: %s)", f.text, f.try)
}

// Unwrap returns the gateway's own error.
func (f *failure) Unwrap() error { return f.err }

// hints say what to try, by the reason that a gateway gives.
var hints = map[string]string{
	admin.ReasonConflict:         "sluice history, then the command again",
	admin.ReasonModelNotFound:    "sluice get",
	admin.ReasonNoState:          "sluice status; where nobody has made routes yet, sluice apply -f routes.yaml",
	admin.ReasonNoHistory:        "sluice history",
	admin.ReasonUnreachable:      "--force to send calls there all the same; that is recorded",
	admin.ReasonStoreUnavailable: "sluice status; routes stay as they are meanwhile",
	admin.ReasonOutcomeUnknown:   "sluice history, to see whether it was made",
	admin.ReasonStoreRefused:     "sluice status",
	admin.ReasonTokenMissing:     "--token-file or SLUICE_TOKEN_FILE",
	admin.ReasonRoleMissing:      "--token-file with a token that may operate",
}

// explainFailure words an error of a call to the gateway at a URL, for a command
// that runs until ctx ends.
func explainFailure(ctx context.Context, err error, where string) error {
	var c *connect.Error
	if !errors.As(err, &c) {
		return err
	}
	if reason := reasonOf(c); reason != "" {
		return &failure{text: c.Message(), try: hints[reason], lost: reason == admin.ReasonConflict, err: err}
	}
	var network net.Error
	foreign := strings.Contains(c.Message(), "looked like an HTTP/1.1 header") || // some web server
		c.Code() == connect.CodeUnimplemented || c.Code() == connect.CodeUnknown || c.Code() == connect.CodeInternal
	switch {
	case ctx.Err() != nil:
		return &failure{text: "interrupted", err: err}
	case c.Code() == connect.CodeDeadlineExceeded:
		return &failure{text: fmt.Sprintf("the gateway at %s does not answer", where), err: err}
	case foreign:
		return &failure{
			text: fmt.Sprintf("what answers at %s is no admin address of sluice: %s", where, c.Message()),
			try:  "--admin with another address; the data address is another one", err: err,
		}
	case errors.As(err, &network) || c.Code() == connect.CodeUnavailable || c.Code() == connect.CodeCanceled:
		return &failure{
			text: fmt.Sprintf("no gateway answers at %s: %s", where, rootCause(err)),
			try:  "sluice serve, or say where one is with --admin or SLUICE_ADMIN", err: err,
		}
	}
	return &failure{text: c.Message(), err: err}
}

// reasonOf returns the reason of the gateway's ErrorInfo; "" if it sent none.
func reasonOf(c *connect.Error) string {
	for _, d := range c.Details() {
		m, err := d.Value()
		if err != nil {
			continue
		}
		if info, ok := m.(*errdetails.ErrorInfo); ok && info.GetDomain() == admin.Domain {
			return info.GetReason()
		}
	}
	return ""
}

// rootCause leaves out the layers around a failed connection.
func rootCause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return strings.TrimPrefix(op.Err.Error(), "connect: ")
	}
	var c *connect.Error
	if errors.As(err, &c) {
		return c.Message()
	}
	return err.Error()
}
