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
	// resolveEvery is the time between two look-ups of a name, +-10 %: gRPC's own
	// resolver asks at most every 30 s too.
	resolveEvery = 30 * time.Second
	// resolveRetry is the pause after a look-up that failed.
	resolveRetry   = 2 * time.Second
	resolveTimeout = 5 * time.Second
)

var errNoAddress = errors.New("the name has no address")

// lookup is how names become addresses; tests replace it.
type lookup func(ctx context.Context, host string) ([]string, error)

// hostOf returns the host of an endpoint as it is written in a route.
func hostOf(spec string) string {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(spec, dnsScheme))
	if err != nil {
		return spec // validated long before
	}
	return host
}

// isName reports whether an endpoint stands for all addresses of a name. Any other
// is one address, whose name, if it is one, is resolved when it is dialled.
func isName(spec string) bool { return strings.HasPrefix(spec, dnsScheme) }

// follow looks the name of an endpoint up again and again until ctx ends, and
// keeps g up to date with its addresses. While it cannot be resolved, the last
// addresses stay.
func follow(ctx context.Context, g *group, spec string, resolve lookup, log *slog.Logger) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(spec, dnsScheme))
	if err != nil {
		log.Error("endpoint cannot be resolved", "endpoint", spec, "error", err)
		return
	}
	failing := false
	for {
		pause := time.Duration(float64(resolveEvery) * (0.9 + 0.2*rand.Float64()))
		ask, cancel := context.WithTimeout(ctx, resolveTimeout)
		ips, err := resolve(ask, host)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil && len(ips) == 0 {
			err = errNoAddress
		}
		if err != nil {
			if !failing {
				log.Warn("endpoint cannot be resolved, keeping its last addresses", "endpoint", spec, "error", err)
			}
			failing, pause = true, resolveRetry
		} else {
			failing = false
			addrs := make([]string, len(ips))
			for i, ip := range ips {
				addrs[i] = net.JoinHostPort(ip, port)
			}
			slices.Sort(addrs)
			g.set(spec, host, slices.Compact(addrs))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
