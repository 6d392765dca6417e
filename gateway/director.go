package gateway

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
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

	requestID string
	target    *target
	endpoint  *endpoint // of the attempt under way
	last      *endpoint // of the one before

	rewrite  *identify.Rewrite // of the version, if any
	rewriter identify.Rewriter // of the attempt under way
	dispatch relay.Dispatch
	request  [2]hpack.HeaderField
	answer   [5]hpack.HeaderField
}

// Opened answers: where does this call go? Usually its first message has to be
// seen before that is known.
func (d *director) Opened(c *relay.Call) relay.Verdict {
	s := &call{snap: d.snapshot.Load()}
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
	s.target = s.snap.targets[choice.Version]
	d.setDeadline(c, route)

	// The caller's model_version has done its work if it is a name of the
	// gateway's that the server would not know.
	clearing := 0
	if modelVersion != "" && modelVersion == choice.Version.Name && modelVersion != choice.Version.Rename.Version {
		clearing = 1
	}
	rw := s.target.rewrites[s.method.Scope][clearing]
	if rw.err != nil {
		return d.refuse(c, refuse(codes.FailedPrecondition, reasonRename,
			"model %q, version %q: %v", route.Model, choice.Version.Name, rw.err))
	}
	s.dispatch = relay.Dispatch{
		Unary:        s.method.Kind == identify.KindUnary,
		Replay:       true,
		KeepReserved: choice.Version.TrustUpstream,
		BodyChanges:  rw.Rewrite != nil || s.scanner.MayChange(),
	}
	s.request[0] = hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true}
	s.dispatch.Request = s.request[:1]
	if s.scanner.MayChange() {
		// What was compressed goes on decompressed, and the server need not know the
		// codec: gRPC's own refuse a call for naming one that they do not have.
		s.request[1] = hpack.HeaderField{Name: "grpc-encoding", Value: "identity"}
		s.dispatch.Request = s.request[:2]
	}
	s.rewrite = rw.Rewrite
	return d.next(c)
}

// next sends the call to an endpoint of its version.
func (d *director) next(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	now := time.Now()
	e := s.target.group.pick(now, s.last)
	if e == nil {
		r := refuse(codes.Unavailable, reasonNoEndpoint, "version %q of model %q has no endpoint: no address is known for it",
			s.target.version.Name, s.target.version.Model)
		r.retry = true
		return d.refuse(c, r)
	}
	e.inFlight.Add(1)
	s.endpoint = e
	s.dispatch.Upstream = e.up
	if s.rewrite != nil {
		s.rewriter.Reset(s.rewrite)
		s.dispatch.Rewrite = &s.rewriter
	}
	s.dispatch.Answer = d.answerFields(c, c.Attempts()+1)
	return relay.To(&s.dispatch)
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

// Failed answers: what now, nothing of the answer having reached the client?
// A call that the upstream never looked at, or that found no connection, may be
// sent elsewhere.
func (d *director) Failed(c *relay.Call, o relay.Outcome) relay.Verdict {
	s := c.Data.(*call)
	d.settle(s, o)
	if s.target == nil {
		return relay.Pass()
	}
	switch o.Kind {
	case relay.Unprocessed:
		if c.Attempts() >= maxAttempts || !c.Replayable() {
			return relay.Pass()
		}
	case relay.Unreachable:
		if !s.target.group.hasOther(s.last) {
			return relay.Pass()
		}
	default:
		return relay.Pass()
	}
	return d.next(c)
}

// Over settles whatever is still held, on every way a call can end.
func (d *director) Over(c *relay.Call, o relay.Outcome) {
	if s, ok := c.Data.(*call); ok {
		d.settle(s, o)
	}
}

// settle gives an attempt's endpoint back and learns from its latency. What the
// client did says nothing about the endpoint.
func (d *director) settle(s *call, o relay.Outcome) {
	e := s.endpoint
	if e == nil {
		return
	}
	s.endpoint, s.last = nil, e
	e.inFlight.Add(-1)
	switch o.Kind {
	case relay.Answered:
		failed := false
		switch codes.Code(o.Code) {
		case codes.Unknown, codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted:
			failed = true
		}
		e.latency.observe(o.Ended, o.Ended.Sub(o.Started), failed)
	case relay.Unprocessed, relay.Reset, relay.Lost, relay.Unreachable, relay.Invalid, relay.DeadlineExceeded:
		e.latency.observe(o.Ended, o.Ended.Sub(o.Started), true)
	case relay.Canceled, relay.Refused, relay.Evicted:
	}
}

// --- what the caller gets back

// answerFields are the fields that every answer begins with.
func (d *director) answerFields(c *relay.Call, attempts int) []hpack.HeaderField {
	s, ok := c.Data.(*call)
	if !ok { // refused before it was looked at
		return []hpack.HeaderField{
			{Name: "sluice-attempts", Value: "0"},
			d.snapshot.Load().revision,
			{Name: "x-request-id", Value: newRequestID(), Sensitive: true},
		}
	}
	f := s.answer[:0]
	if s.target != nil {
		f = append(f, s.target.model, s.target.name)
	}
	return append(f,
		hpack.HeaderField{Name: "sluice-attempts", Value: strconv.Itoa(attempts)},
		s.snap.revision,
		hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true})
}

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
