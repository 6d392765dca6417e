package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"sluice/breaker"
	"sluice/gateway"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/proto/sluice/feedback/v1/feedbackv1connect"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/shadow"
	"sluice/telemetry"
	"sluice/telemetry/incident"
	"sluice/telemetry/labels"
)

// Watcher is what the service needs of the gateway's one writer of routes, a
// [routing.Watcher].
type Watcher interface {
	State() *routing.State
	Entry(model string) (entry *routingv1.StoredRoute, revision uint64, ok bool)
	Status() routing.Status
	Update(ctx context.Context, u *routing.Update) (*routingv1.Change, error)
	History(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error)
}

// Gateway is what the service asks the gateway it belongs to, a
// [gateway.Gateway].
type Gateway interface {
	Endpoints(v *routing.Version) []gateway.EndpointStatus
	Guard(v *routing.Version) *breaker.Version
	Budget(v *routing.Version) *breaker.Budget
	SubscribeBreakers(room int) *breaker.Subscription
	Struck(v *routing.Version, f routing.Fault) uint64
	Shadow(v *routing.Version) (gateway.ShadowStatus, bool)
	Replay(ctx context.Context, r gateway.Replay, tell func(read uint64, at shadow.Status) error) error
	IsReady() bool
}

// Prober finds out whether an endpoint takes calls, now.
type Prober interface {
	// Probe connects to one endpoint as written in a version and returns nil if
	// something healthy answers before ctx ends.
	Probe(ctx context.Context, v *routing.Version, endpoint string) error
}

// Config says what a service speaks for. Watcher, Router and Gateway have to be set.
type Config struct {
	Watcher Watcher
	Router  *routing.Router
	Gateway Gateway
	// Incidents keeps incidents; nil if nothing does.
	Incidents *incident.Tracker
	// Drift watches the versions' data; nil if nobody does.
	Drift Drift
	// Labels says what labels tell of the versions, and takes some; nil if nobody does.
	Labels *labels.Monitor
	// Prober defaults to one that asks the endpoint's grpc.health.v1.
	Prober Prober
	// ProbeTimeout bounds what a request waits for endpoints that do not answer; default 800 ms.
	ProbeTimeout time.Duration
	// Tokens, unless nil, are required of every caller.
	Tokens *TokenFile
	// Failures returns the calls that failed last, for the page at /debug/; nil for none.
	Failures func() []telemetry.Failure
	// Fallbacks returns the calls that another version than the chosen one answered last, likewise.
	Fallbacks func() []telemetry.Failure
	// Version is what the program says of itself.
	Version string
	Logger  *slog.Logger // default slog.Default()
}

// Service answers operators. Its methods may be called concurrently; their errors
// are [*connect.Error]s with details.
type Service struct {
	cfg       Config
	started   time.Time
	histories chan struct{} // has room for those who read the history
}

var (
	_ adminv1connect.AdminServiceHandler    = (*Service)(nil)
	_ adminv1connect.BreakerServiceHandler  = (*Service)(nil)
	_ adminv1connect.FaultServiceHandler    = (*Service)(nil)
	_ adminv1connect.IncidentServiceHandler = (*Service)(nil)
	_ adminv1connect.DriftServiceHandler    = (*Service)(nil)
	_ adminv1connect.ShadowServiceHandler   = (*Service)(nil)
	_ adminv1connect.LabelServiceHandler    = (*Service)(nil)

	_ feedbackv1connect.FeedbackServiceHandler = (*Service)(nil)
)

// New returns a service.
func New(cfg Config) (*Service, error) {
	if cfg.Watcher == nil || cfg.Router == nil || cfg.Gateway == nil {
		return nil, errors.New("admin: Watcher, Router and Gateway have to be set")
	}
	if cfg.Prober == nil {
		cfg.Prober = healthProber{}
	}
	if cfg.ProbeTimeout == 0 {
		cfg.ProbeTimeout = defaultProbeTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Service{cfg: cfg, started: time.Now(), histories: make(chan struct{}, historiesAtOnce)}, nil
}

// maxMessage bounds a request, in bytes: a document of some 100,000 routes.
const maxMessage = 64 << 20

// Handler serves the service at its own paths, and a page for people at /debug/.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	options := connect.WithHandlerOptions(
		connect.WithInterceptors(authorizer{s.cfg.Tokens}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCodec(strictJSON{"json"}), connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	)
	mux.Handle(adminv1connect.NewAdminServiceHandler(s, options))
	mux.Handle(adminv1connect.NewBreakerServiceHandler(s, options))
	mux.Handle(adminv1connect.NewFaultServiceHandler(s, options))
	mux.Handle(adminv1connect.NewIncidentServiceHandler(s, options))
	mux.Handle(adminv1connect.NewDriftServiceHandler(s, options))
	mux.Handle(adminv1connect.NewLabelServiceHandler(s, options))
	mux.Handle(feedbackv1connect.NewFeedbackServiceHandler(s, options))
	mux.Handle("/debug/", s.debugHandler())
	mux.Handle(adminv1connect.NewShadowServiceHandler(s, options))
	if s.cfg.Tokens == nil {
		return onlyFromHere(mux)
	}
	return mux
}
