package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"
)

const (
	dnsScheme = "dns:///"
	// resolveEvery is the time between two look-ups of a name: gRPC's own resolver
	// asks at most every 30 s, too.
	resolveEvery = 30 * time.Second
	// resolveRetry is the pause after a look-up that failed.
	resolveRetry   = 2 * time.Second
	resolveTimeout = 5 * time.Second
)

var errNoAddress = errors.New("the name has no address")

// lookup is how names become addresses; tests replace it.
type lookup func(ctx context.Context, host string) ([]string, error)

// isName reports whether an endpoint stands for all addresses of a name. Any other
// is one address, whose name, if it is one, is resolved when it is dialled.
func isName(spec string) bool { return strings.HasPrefix(spec, dnsScheme) }

// addrOf returns the host and port of an endpoint as it is written in a route.
func addrOf(spec string) string { return strings.TrimPrefix(spec, dnsScheme) }

// hostOf returns the host of an endpoint as it is written in a route.
func hostOf(spec string) string {
	host, _, err := net.SplitHostPort(addrOf(spec))
	if err != nil {
		return spec // validated long before
	}
	return host
}

// follow looks the name of an endpoint up again and again until ctx ends, and
// keeps g up to date with its addresses. While it cannot be resolved, the last
// addresses stay.
func follow(ctx context.Context, g *group, spec string, resolve lookup, log *slog.Logger) {
	failing := false
	for {
		pause := resolveEvery
		addrs, err := addresses(ctx, spec, resolve)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = resolveRetry
			if !failing {
				log.Warn("endpoint cannot be resolved, its last addresses stay", "endpoint", spec, "error", err)
			}
		default:
			if failing {
				log.Info("endpoint is resolved again", "endpoint", spec)
			}
			g.set(spec, addrs)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(jittered(pause)):
		}
	}
}

// addresses looks the name of an endpoint up once.
func addresses(ctx context.Context, spec string, resolve lookup) ([]string, error) {
	host, port, err := net.SplitHostPort(addrOf(spec))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errNoAddress
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip, port)
	}
	slices.Sort(addrs)
	return slices.Compact(addrs), nil
}

// jittered spreads d by 10 % either way: many names in one table, and many
// gateways, are not to ask all at once.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
