package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/proto/sluice/feedback/v1/feedbackv1connect"
)

const (
	// defaultAdmin is the admin address of sluice serve, and where commands look
	// for it.
	defaultAdmin = "127.0.0.1:8002"
	// callTimeout bounds one question to a gateway: it answers within 2 s even if
	// its store is gone.
	callTimeout = 10 * time.Second
)

// clientOptions are the flags of every command that talks to a gateway.
type clientOptions struct {
	admin     string
	tokenFile string
	caFile    string
	insecure  bool
}

func (o *clientOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.admin, "admin", cmp.Or(os.Getenv("SLUICE_ADMIN"), defaultAdmin), "admin `address` of a gateway, https://... with TLS; also SLUICE_ADMIN")
	f.StringVar(&o.tokenFile, "token-file", os.Getenv("SLUICE_TOKEN_FILE"), "`file` with a token; also SLUICE_TOKEN_FILE")
	f.StringVar(&o.caFile, "admin-ca", "", "`file` with the certificates (PEM) that may sign the gateway's (default the system's)")
	f.BoolVar(&o.insecure, "insecure-admin", false, "send the token without TLS to another machine")
}

// client asks one gateway.
type client struct {
	adminv1connect.AdminServiceClient
	adminv1connect.BreakerServiceClient
	adminv1connect.ShadowServiceClient
	adminv1connect.FaultServiceClient
	adminv1connect.IncidentServiceClient
	adminv1connect.DriftServiceClient
	adminv1connect.LabelServiceClient
	feedbackv1connect.FeedbackServiceClient
	where string // the gateway's URL
	close func()
}

// connect returns a client; it contacts nobody yet. The caller closes it.
func (o *clientOptions) connect() (*client, error) {
	base, err := adminURL(o.admin)
	if err != nil {
		return nil, err
	}
	token, err := o.token(base)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	if base.Scheme == "https" {
		transport.Protocols.SetHTTP1(true) // there may be a proxy in between
	}
	if transport.TLSClientConfig, err = o.tls(); err != nil {
		return nil, err
	}
	web, authorized := &http.Client{Transport: transport}, connect.WithInterceptors(bearer(token))
	return &client{
		AdminServiceClient:    adminv1connect.NewAdminServiceClient(web, base.String(), authorized),
		BreakerServiceClient:  adminv1connect.NewBreakerServiceClient(web, base.String(), authorized),
		FaultServiceClient:    adminv1connect.NewFaultServiceClient(web, base.String(), authorized),
		IncidentServiceClient: adminv1connect.NewIncidentServiceClient(web, base.String(), authorized),
		DriftServiceClient:    adminv1connect.NewDriftServiceClient(web, base.String(), authorized),
		LabelServiceClient:    adminv1connect.NewLabelServiceClient(web, base.String(), authorized),
		FeedbackServiceClient: feedbackv1connect.NewFeedbackServiceClient(web, base.String(), authorized),
		ShadowServiceClient:   adminv1connect.NewShadowServiceClient(web, base.String(), authorized),

		where: base.String(),
		close: transport.CloseIdleConnections,
	}, nil
}

// adminURL takes host:port, or a URL.
func adminURL(text string) (*url.URL, error) {
	full := text
	bare := !strings.Contains(text, "://")
	if bare {
		full = "http://" + text
	}
	if strings.HasPrefix(text, ":") { // as in :8002, which is how a server says it
		full = "http://127.0.0.1" + text
	}
	u, err := url.Parse(full)
	if err != nil || u.Hostname() == "" || bare && u.Port() == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, &usageError{fmt.Errorf("--admin: got %q, want host:port, http://host:port or https://host:port", text), "sluice"}
	}
	return u, nil
}

// token reads the token, if there is one, and keeps it from crossing a network
// in the clear.
func (o *clientOptions) token(base *url.URL) (string, error) {
	if o.tokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	words := strings.Fields(string(data))
	if len(words) != 1 {
		return "", fmt.Errorf("%s: got %d words, want one token and nothing else", o.tokenFile, len(words))
	}
	if base.Scheme == "http" && !o.insecure && !isLoopback(net.JoinHostPort(base.Hostname(), "0")) {
		return "", &usageError{fmt.Errorf("--admin: got %s, where the token would be sent without TLS: "+
			"use https:// or, in a network that can be trusted, --insecure-admin", base), "sluice"}
	}
	return words[0], nil
}

func (o *clientOptions) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.caFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return nil, fmt.Errorf("--admin-ca: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--admin-ca %s: no PEM certificate in it", o.caFile)
	}
	return cfg, nil
}

// bearer adds a token to every request.
type bearer string

// WrapUnary implements [connect.Interceptor].
func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		b.add(req.Header())
		return next(ctx, req)
	}
}

// WrapStreamingClient implements [connect.Interceptor].
func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		b.add(conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler implements [connect.Interceptor]; there are no handlers here.
func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (b bearer) add(h http.Header) {
	if b != "" {
		h.Set("Authorization", "Bearer "+string(b))
	}
}

// ask puts one question to a gateway and words what goes wrong.
func ask[T any](ctx context.Context, o *clientOptions, question func(context.Context, *client) (T, error)) (T, error) {
	var none T
	c, err := o.connect()
	if err != nil {
		return none, err
	}
	defer c.close()
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := question(limited, c)
	if err != nil {
		return none, explainFailure(ctx, err, c.where)
	}
	return answer, nil
}

// errNotConfirmed is what a command says that was not let do it.
var errNotConfirmed = errors.New("not confirmed: nothing has been changed")
