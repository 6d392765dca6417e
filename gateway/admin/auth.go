package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"connectrpc.com/connect"

	"sluice/proto/sluice/admin/v1/adminv1connect"
)

// viewing are the procedures without side effects.
var viewing = map[string]bool{
	adminv1connect.AdminServiceGetProcedure:     true,
	adminv1connect.AdminServiceHistoryProcedure: true,
	adminv1connect.AdminServiceWatchProcedure:   true,
	adminv1connect.AdminServiceExplainProcedure: true,
	adminv1connect.AdminServiceStatusProcedure:  true,

	adminv1connect.BreakerServiceListBreakersProcedure:   true,
	adminv1connect.BreakerServiceWatchBreakersProcedure:  true,
	adminv1connect.FaultServiceListFaultsProcedure:       true,
	adminv1connect.IncidentServiceListIncidentsProcedure: true,
	adminv1connect.IncidentServiceGetIncidentProcedure:   true,
	adminv1connect.DriftServiceGetDriftProcedure:         true,
	adminv1connect.LabelServiceGetLabelsProcedure:        true,
	adminv1connect.ShadowServiceListShadowsProcedure:     true,
}

// authorizer lets callers pass whose token's role suffices. Without tokens
// everyone does.
type authorizer struct{ tokens *TokenFile }

// WrapUnary implements [connect.Interceptor].
func (a authorizer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := a.check(req.Spec().Procedure, req.Header()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements [connect.Interceptor]; there are no clients here.
func (a authorizer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements [connect.Interceptor].
func (a authorizer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := a.check(conn.Spec().Procedure, conn.RequestHeader()); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

func (a authorizer) check(procedure string, header http.Header) error {
	if a.tokens == nil {
		return nil
	}
	scheme, token, _ := strings.Cut(header.Get("Authorization"), " ")
	role := a.tokens.Role(strings.TrimSpace(token))
	switch {
	case !strings.EqualFold(scheme, "Bearer"), role == NoRole:
		e := refuse(connect.CodeUnauthenticated, ReasonTokenMissing,
			errors.New("got no token that is known here, want the header Authorization: Bearer TOKEN"), nil)
		e.Meta().Set("WWW-Authenticate", "Bearer")
		return e
	case role == View && !viewing[procedure]:
		return refuse(connect.CodePermissionDenied, ReasonRoleMissing,
			errors.New(`the token has the role "view", want one with the role "operate"`), nil)
	}
	return nil
}

// onlyFromHere guards a service without tokens, which listens on loopback only,
// against web pages: a page of another origin is refused, and so is a name that
// somebody has pointed at this machine.
func onlyFromHere(next http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwnHost(r.Host) {
			http.Error(w, fmt.Sprintf("got the host %q, want an address or localhost", r.Host), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

func isOwnHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	_, err = netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost")
}
