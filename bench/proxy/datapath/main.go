// Command datapath is Sluice's data path without what watches it: it accepts, identifies, chooses
// by weight, key or force, picks an endpoint and relays, with the deadline and the fields of
// answers that callers expect. It has no breakers, limits, budgets, copies of requests, retries,
// fallback, hedging, health or telemetry. What the gateway costs beyond that is what its
// policies cost.
package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"sluice/bench/peer"
	"sluice/bench/proxy/start"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/routing"
)

func main() { start.Main(run) }

// ballastSize is what the gateway reserves, too, so that both collect garbage as seldom.
const ballastSize = 32 << 20

// run reads of the gateway's own routes what chooses.
func run(ctx context.Context, p start.Proxy) error {
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	doc, err := routing.Parse("routes", []byte(peer.AllPolicies(peer.Site{Backend: p.Backend})))
	if err != nil {
		return err
	}
	table, err := routing.Build(doc, 1)
	if err != nil {
		return err
	}
	to := &policy{table: table, targets: make(map[*routing.Version]*target)}
	r := relay.New(relay.Config{TLS: p.TLS}, to)
	defer r.Close()
	for route := range table.Routes() {
		for _, v := range route.Versions {
			to.targets[v] = newTarget(r, v)
		}
	}
	context.AfterFunc(ctx, r.Close)
	return r.Serve(p.Listener)
}

// target is what is known of a version.
type target struct {
	endpoints   []*endpoint
	model, name hpack.HeaderField
}

type endpoint struct {
	up       *relay.Upstream
	inFlight atomic.Int64
}

func newTarget(r *relay.Relay, v *routing.Version) *target {
	t := &target{
		model: hpack.HeaderField{Name: "sluice-model", Value: v.Model},
		name:  hpack.HeaderField{Name: "sluice-version", Value: v.Name},
	}
	for _, address := range v.Endpoints {
		t.endpoints = append(t.endpoints, &endpoint{up: r.NewUpstream(relay.UpstreamConfig{Addr: address})})
	}
	return t
}

// pick takes the less busy of two.
func (t *target) pick() *endpoint {
	a := t.endpoints[rand.IntN(len(t.endpoints))]
	b := t.endpoints[rand.IntN(len(t.endpoints))]
	if b.inFlight.Load() < a.inFlight.Load() {
		return b
	}
	return a
}

// policy sends each call to where its model's route says.
type policy struct {
	table   *routing.Table
	targets map[*routing.Version]*target
}

// call is what is kept of one call.
type call struct {
	method    identify.Method
	meta      identify.Metadata
	scanner   identify.Scanner
	requestID string
	endpoint  *endpoint
	dispatch  relay.Dispatch
	request   [1]hpack.HeaderField
	answer    [5]hpack.HeaderField
}

var calls = sync.Pool{New: func() any { return new(call) }}

func (p *policy) Opened(c *relay.Call) relay.Verdict {
	s := calls.Get().(*call)
	c.Data = s
	for _, f := range c.Fields() {
		if err := s.meta.Add(f.Name, f.Value); err != nil {
			return refuse(codes.InvalidArgument, err.Error())
		}
	}
	if s.requestID = s.meta.RequestID; s.requestID == "" {
		s.requestID = newRequestID()
	}
	var ok bool
	if s.method, ok = identify.Lookup(c.Path()); !ok {
		return refuse(codes.Unimplemented, "no such method")
	}
	s.scanner.Reset(s.method, identify.Options{Model: s.meta.Model, Encoding: s.meta.Encoding})
	c.Inspect = s.method.Scope != identify.ScopeNone
	return p.identified(c, s, false)
}

func (p *policy) Body(c *relay.Call, b []byte, end bool) ([]byte, relay.Verdict) {
	s := c.Data.(*call)
	b, err := s.scanner.Feed(b, end)
	if err != nil {
		return nil, refuse(codes.InvalidArgument, err.Error())
	}
	if s.endpoint == nil {
		return b, p.identified(c, s, end)
	}
	return b, relay.Wait()
}

func (p *policy) identified(c *relay.Call, s *call, end bool) relay.Verdict {
	names, ok := s.scanner.Known()
	if !ok && !s.scanner.Settled() && !end {
		return relay.Wait()
	}
	var route *routing.Route
	if ok {
		route, ok = p.table.RouteBytes(names.Model)
	} else {
		route, ok = p.table.RouteForService(s.method.Service)
	}
	if !ok {
		return refuse(codes.NotFound, "no route")
	}
	force, err := route.ForcedByModelVersion(string(names.Version))
	if err != nil {
		return refuse(codes.NotFound, err.Error())
	}
	if s.meta.ForceVersion != "" {
		force = s.meta.ForceVersion
	}
	key := s.meta.Key
	if key == "" && route.StickyMetadata != "" {
		key, _ = identify.Value(c.Fields(), route.StickyMetadata)
	}
	choice, err := route.Choose(force, key, rand.Uint64())
	if err != nil {
		return refuse(codes.NotFound, err.Error())
	}
	return p.send(c, s, route, p.targets[choice.Version])
}

// send gives the call its deadline, its endpoint and its fields.
func (p *policy) send(c *relay.Call, s *call, route *routing.Route, t *target) relay.Verdict {
	timeout := route.DefaultTimeout
	if own, ok := c.Timeout(); ok {
		timeout = min(own, route.MaxTimeout)
	}
	if timeout > 0 {
		c.SetDeadline(c.Opened().Add(timeout))
	}
	s.endpoint = t.pick()
	s.endpoint.inFlight.Add(1)
	id := hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true}
	s.dispatch = relay.Dispatch{
		Upstream: s.endpoint.up,
		Unary:    s.method.Kind == identify.KindUnary,
		Request:  append(s.request[:0], id),
		Answer: append(s.answer[:0], t.model, t.name,
			hpack.HeaderField{Name: "sluice-attempts", Value: "1"},
			hpack.HeaderField{Name: "sluice-revision", Value: p.table.RevisionText()}, id),
	}
	return relay.To(&s.dispatch)
}

func (p *policy) Failed(*relay.Call, relay.Outcome) relay.Verdict { return relay.Pass() }

func (p *policy) Status(_ *relay.Call, _ relay.OutcomeKind, code uint32, message string) *relay.Status {
	return &relay.Status{Code: code, Message: message}
}

func (p *policy) Over(c *relay.Call, _ relay.Outcome) {
	s, ok := c.Data.(*call)
	if !ok {
		return
	}
	if s.endpoint != nil {
		s.endpoint.inFlight.Add(-1)
	}
	c.Data = nil
	*s = call{}
	calls.Put(s)
}

func (p *policy) Due(*relay.Call) relay.Verdict { return relay.Wait() }

func (p *policy) Dropped(*relay.Call, relay.Outcome) {}

func refuse(code codes.Code, message string) relay.Verdict {
	return relay.Refuse(&relay.Status{Code: uint32(code), Message: message})
}

// newRequestID makes an id of 128 random bits.
func newRequestID() string {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	var h [32]byte
	hex.Encode(h[:], b[:])
	return string(h[:])
}
