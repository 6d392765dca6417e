// Command relay is Sluice's frame relay with the least policy there can be: every call goes
// to one backend. What the gateway costs beyond that is what identifying, choosing,
// breakers and telemetry cost.
package main

import (
	"context"
	"runtime"

	"sluice/bench/proxy/start"
	"sluice/gateway/relay"
)

func main() { start.Main(run) }

// ballastSize is what the gateway reserves, too, so that both collect garbage as seldom.
const ballastSize = 32 << 20

func run(ctx context.Context, p start.Proxy) error {
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	to := new(policy)
	r := relay.New(relay.Config{TLS: p.TLS}, to)
	to.dispatch.Upstream = r.NewUpstream(relay.UpstreamConfig{Addr: p.Backend})
	defer r.Close()
	context.AfterFunc(ctx, r.Close)
	return r.Serve(p.Listener)
}

// policy sends every call to one upstream.
type policy struct{ dispatch relay.Dispatch }

func (p *policy) Opened(*relay.Call) relay.Verdict { return relay.To(&p.dispatch) }

func (p *policy) Body(_ *relay.Call, b []byte, _ bool) ([]byte, relay.Verdict) {
	return b, relay.Wait()
}

func (p *policy) Failed(*relay.Call, relay.Outcome) relay.Verdict { return relay.Pass() }

func (p *policy) Status(_ *relay.Call, _ relay.OutcomeKind, code uint32, message string) *relay.Status {
	return &relay.Status{Code: code, Message: message}
}

func (p *policy) Over(*relay.Call, relay.Outcome) {}

func (p *policy) Due(*relay.Call) relay.Verdict { return relay.Wait() }

func (p *policy) Dropped(*relay.Call, relay.Outcome) {}
