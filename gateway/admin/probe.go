package admin

import (
	"context"

	"sluice/gateway"
	"sluice/routing"
)

// healthProber asks endpoints as the gateway does all the time.
type healthProber struct{}

// Probe implements [Prober].
func (healthProber) Probe(ctx context.Context, v *routing.Version, endpoint string) error {
	return gateway.AskEndpoint(ctx, v, endpoint)
}
