package gateway

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/routing"
)

const (
	// defaultTimeout is the deadline of unary calls that come without one.
	defaultTimeout = 15 * time.Second
	// maxAttempts is how often a call is sent at most.
	maxAttempts = 3
	// maxUnsettled is how much of a first message may pass before it has named its
	// model. Encoders write fields in the order of their numbers, names first.
	maxUnsettled = 1 << 20
)

// director is the relay's policy: the way of a call, decision by decision. Its
// methods run on connections' readers and never block.
type director struct {
	snapshot atomic.Pointer[snapshot]
	local    *relay.Upstream // the gateway's own services
}

// call is what the director keeps of one call.
type call struct {
	snap    *snapshot // one for the call's whole life
	method  identify.Method
	meta    identify.Metadata
	scanner identify.Scanner

	requestID    string
	modelVersion string // as the caller's messages say it
	route        *routing.Route
	forced       bool    // the caller asked for the version by name
	primary      *target // chosen by the route
	target       *target // asked now: the primary, or a fallback
	step         int     // of the route's fallbacks: the next one to ask
	last         *endpoint
	repeated     bool // once for free, after an attempt that was not looked at
	retried      bool // on another endpoint of the target

	refused        *refusal // the first reason why an attempt could not be made
	fallbackReason string   // why the primary does not answer

	attempt
	rewriter identify.Rewriter
	dispatch relay.Dispatch
	request  [2]hpack.HeaderField
	answer   [6]hpack.HeaderField
}

// calls saves an allocation per call. The relay uses nothing of a call after Over.
var calls = sync.Pool{New: func() any { return new(call) }}

// Opened answers: where does this call go? Usually its first message has to be
// seen before that is known.
func (d *director) Opened(c *relay.Call) relay.Verdict {
	s := calls.Get().(*call)
	s.snap = d.snapshot.Load()
	c.Data = s
	var problem error
	for _, f := range c.Fields() {
		if err := s.meta.Add(f.Name, f.Value); err != nil && problem == nil {
			problem = err
		}
	}
	if s.requestID = s.meta.RequestID; s.requestID == "" {
		s.requestID = newRequestID()
	}
	if problem != nil {
		return d.refuseError(c, problem)
	}
	var ok bool
	if s.method, ok = identify.Lookup(c.Path()); !ok {
		return d.refuse(c, refuse(codes.Unimplemented, reasonMethodUnknown,
			"path %q: want /package.Service/Method", clip(c.Path())))
	}
	if s.method.Class == identify.ClassLocal {
		return d.toLocal(c)
	}
	s.scanner.Reset(s.method, identify.Options{
		Model: s.meta.Model, Encoding: s.meta.Encoding, MaxUnsettled: maxUnsettled,
	})
	c.Inspect = s.method.Scope != identify.ScopeNone
	return d.identified(c, false)
}

// Body reads the names in the request's messages, and refuses a call whose
// names do not agree before the last byte of such a message has gone on.
func (d *director) Body(c *relay.Call, p []byte, end bool) ([]byte, relay.Verdict) {
	s := c.Data.(*call)
	p, err := s.scanner.Feed(p, end)
	if err != nil {
		return nil, d.refuseError(c, err)
	}
	if s.target != nil {
		return p, relay.Wait()
	}
	return p, d.identified(c, end)
}

// identified chooses as soon as the names suffice.
func (d *director) identified(c *relay.Call, end bool) relay.Verdict {
	s := c.Data.(*call)
	names, ok := s.scanner.Known()
	switch {
	case ok && len(names.Model) > 0:
		route, found := s.snap.table.RouteBytes(names.Model)
		if !found {
			return d.refuse(c, refuse(codes.NotFound, reasonModelNotFound,
				"no route for model %q", clip(string(names.Model))))
		}
		return d.choose(c, route, string(names.Version))
	case ok || s.scanner.Settled() || end:
		// Nothing names a model: the service may.
		if route, found := s.snap.table.RouteForService(s.method.Service); found {
			return d.choose(c, route, "")
		}
		return d.refuse(c, unnamedModel(s))
	}
	return relay.Wait()
}

// choose picks the version and sends the call to it.
func (d *director) choose(c *relay.Call, route *routing.Route, modelVersion string) relay.Verdict {
	s := c.Data.(*call)
	if s.method.Class == identify.ClassManagement && !route.AllowManagement {
		return d.refuse(c, refuse(codes.PermissionDenied, reasonManagement,
			"%s/%s manages the model server, and route %q does not say allow_management: true",
			s.method.Service, s.method.Name, route.Model))
	}
	force, err := route.ForcedByModelVersion(modelVersion)
	if err == nil && force != "" && s.meta.ForceVersion != "" && force != s.meta.ForceVersion {
		return d.refuse(c, refuse(codes.InvalidArgument, reasonVersionConflict,
			"model_version %q and sluice-version %q ask for different versions of %q",
			clip(modelVersion), clip(s.meta.ForceVersion), route.Model))
	}
	if s.meta.ForceVersion != "" {
		force = s.meta.ForceVersion
	}
	var choice routing.Choice
	if err == nil {
		key := s.meta.Key
		if key == "" && route.StickyMetadata != "" {
			key, _ = identify.Value(c.Fields(), route.StickyMetadata)
		}
		choice, err = route.Choose(force, key, rand.Uint64())
	}
	if err != nil {
		return d.refuse(c, versionRefusal(err))
	}
	s.route, s.modelVersion, s.forced = route, modelVersion, choice.Reason == routing.Forced
	s.primary = s.snap.targets[choice.Version]
	s.target = s.primary
	d.setDeadline(c, route)
	v, _ := d.next(c, true)
	return v
}

// toLocal sends the call to the gateway's own services.
func (d *director) toLocal(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	if t, ok := c.Timeout(); ok {
		c.SetDeadline(c.Opened().Add(t))
	}
	s.dispatch = relay.Dispatch{Upstream: d.local, Replay: true}
	s.dispatch.Answer = d.answerFields(c, 1)
	return relay.To(&s.dispatch)
}

// setDeadline gives the call its end. Calls known to be unary and routes with a
// timeout always have one; streams keep the caller's own, or none.
func (d *director) setDeadline(c *relay.Call, route *routing.Route) {
	t, ok := c.Timeout()
	if s := c.Data.(*call); s.method.Kind == identify.KindUnary || route.DefaultTimeout > 0 || route.MaxTimeout > 0 {
		def, most := route.DefaultTimeout, route.MaxTimeout
		if most == 0 {
			most = routing.MaxTimeout
		}
		if def == 0 {
			def = min(defaultTimeout, most)
		}
		if !ok {
			t, ok = def, true
		}
		t = min(t, most)
	}
	if ok {
		c.SetDeadline(c.Opened().Add(t))
	}
}

// Over settles whatever is still held, on every way a call can end.
func (d *director) Over(c *relay.Call, o relay.Outcome) {
	s, ok := c.Data.(*call)
	if !ok {
		return
	}
	s.settle(o)
	c.Data = nil
	*s = call{}
	calls.Put(s)
}

// --- what the caller gets back

// Status dresses a status that the relay makes.
func (d *director) Status(c *relay.Call, kind relay.OutcomeKind, code uint32, msg string) *relay.Status {
	reason, retry := outcomeReason(kind)
	return d.status(c, &refusal{code: codes.Code(code), reason: reason, msg: msg, retry: retry})
}

func (d *director) status(c *relay.Call, r *refusal) *relay.Status {
	fields := d.answerFields(c, c.Attempts())
	metadata := make(map[string]string, len(fields))
	for _, f := range fields {
		metadata[f.Name] = f.Value
	}
	return &relay.Status{Code: uint32(r.code), Message: r.msg, Details: r.details(metadata), Fields: fields}
}

func (d *director) refuse(c *relay.Call, r *refusal) relay.Verdict {
	return relay.Refuse(d.status(c, r))
}

func (d *director) refuseError(c *relay.Call, err error) relay.Verdict {
	var ie *identify.Error
	if !errors.As(err, &ie) {
		ie = &identify.Error{Reason: identify.Malformed, Detail: err.Error()}
	}
	st := d.status(c, identifyRefusal(ie))
	if ie.Reason == identify.Unsupported {
		st.Fields = append(st.Fields, hpack.HeaderField{Name: "grpc-accept-encoding", Value: identify.AcceptEncoding})
	}
	return relay.Refuse(st)
}

func unnamedModel(s *call) *refusal {
	if s.method.Class == identify.ClassForeign {
		return refuse(codes.Unimplemented, reasonServiceNotRouted,
			"no route lists the service %q, and no metadata (sluice-model) names a model", clip(s.method.Service))
	}
	return refuse(codes.InvalidArgument, reasonModelMissing,
		"%s/%s names no model: neither its message nor its metadata (sluice-model) does", s.method.Service, s.method.Name)
}

func versionRefusal(err error) *refusal {
	switch {
	case errors.Is(err, routing.ErrForceNotAllowed):
		return refuse(codes.PermissionDenied, reasonForceNotAllowed, "%v", err)
	case errors.Is(err, routing.ErrSharedVersion):
		return refuse(codes.InvalidArgument, reasonVersionConflict, "%v", err)
	}
	return refuse(codes.NotFound, reasonVersionNotFound, "%v", err)
}

// clip keeps a caller's text in a message short.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// newRequestID makes an id for a call that brought none: 128 random bits.
func newRequestID() string {
	var b [16]byte
	var h [32]byte
	u, v := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(u>>(8*i)), byte(v>>(8*i))
	}
	hex.Encode(h[:], b[:])
	return string(h[:])
}
