package admin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"sluice/gateway"
	"sluice/routing"
)

// healthProber asks grpc.health.v1. A server that does not know that service
// answers nevertheless, which is enough; one that accepts connections and hangs
// does not.
type healthProber struct{}

var errNotServing = errors.New("its health service says that it is not serving")

// Probe implements [Prober].
func (healthProber) Probe(ctx context.Context, v *routing.Version, endpoint string) error {
	target, host := targetOf(endpoint)
	creds := insecure.NewCredentials()
	if v.TLS != nil {
		cfg, err := gateway.ClientTLS(*v.TLS, host)
		if err != nil {
			return err
		}
		creds = credentials.NewTLS(cfg)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.OK:
		if resp.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING {
			return errNotServing
		}
		return nil
	case codes.Unavailable:
		return errors.New(cause(status.Convert(err).Message()))
	case codes.DeadlineExceeded, codes.Canceled:
		return errors.New("no answer")
	default: // an answer, if only that there is no such service
		return nil
	}
}

// targetOf returns what grpc-go calls an endpoint, and its host.
func targetOf(endpoint string) (target, host string) {
	address := strings.TrimPrefix(endpoint, "dns:///")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "passthrough:///" + address, host
	}
	return "dns:///" + address, host
}

// cause leaves out what grpc-go says around the cause of a failed connection.
func cause(message string) string {
	const marker = `desc = "`
	if i := strings.LastIndex(message, marker); i >= 0 {
		message = strings.TrimSuffix(message[i+len(marker):], `"`)
	}
	return strings.TrimPrefix(message, "transport: Error while dialing: ")
}
