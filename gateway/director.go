package gateway

import (
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/labels"
)

const (
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
	held     atomic.Int64    // bytes of compressed messages that are not complete

	telemetry *telemetry.Telemetry // nil: nothing is recorded
	signer    *labels.Signer       // of predictions' ids; nil: nobody takes labels
	reading   atomic.Int64         // bytes of answers that are kept to find predictions in them
}

// Opened answers: where does this call go? Usually its first message has to be
// seen before that is known.
func (d *director) Opened(c *relay.Call) relay.Verdict {
	s := newCall()
	c.Data = s
	err := s.readMetadata(c.Fields())
	s.record.ID = s.id
	d.telemetry.Begin(&s.record, s.meta.Traceparent)
	if err != nil {
		return d.refuseError(c, err)
	}
	var ok bool
	if s.method, ok = identify.Lookup(c.Path()); !ok {
		return d.refuse(c, refuse(codes.Unimplemented, reasonMethodUnknown,
			"path %q: want /package.Service/Method", clip(c.Path())))
	}
	if s.method.Class == identify.ClassLocal {
		return d.toLocal(c)
	}
	limitIdentifying(c)
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
	if s.scanner.MayChange() && !d.hold(s, s.scanner.Held()) {
		return nil, d.refuse(c, tooMuchHeld())
	}
	if s.target == nil {
		return p, d.identified(c, end)
	}
	if end {
		s.endedAt = c.Now()
	}
	return p, relay.Wait()
}

// identified chooses as soon as the names suffice. The routes are loaded once for
// the whole call, and not before: a client that took its time is routed by what
// holds now.
func (d *director) identified(c *relay.Call, end bool) relay.Verdict {
	s := c.Data.(*call)
	names, ok := s.scanner.Known()
	if !ok && !s.scanner.Settled() && !end {
		return relay.Wait()
	}
	s.snap = d.snapshot.Load()
	var found bool
	if ok {
		if s.route, found = s.snap.table.RouteBytes(names.Model); !found {
			return d.refuse(c, refuse(codes.NotFound, reasonModelNotFound,
				"no route for model %q", clip(string(names.Model))))
		}
		s.modelVersion = askedVersion(names)
		return d.choose(c)
	}
	// Nothing names a model: the service may.
	if s.route, found = s.snap.table.RouteForService(s.method.Service); !found {
		return d.refuse(c, unnamedModel(s.method))
	}
	return d.choose(c)
}

// askedVersion is the version that a message asks for. TensorFlow Serving's labels
// are names of versions, too.
func askedVersion(n identify.Names) string {
	if len(n.Version) > 0 {
		return string(n.Version)
	}
	return string(n.Label)
}

// choose picks the version by the call's route and sends the call there.
func (d *director) choose(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	if s.method.Class == identify.ClassManagement && !s.route.AllowManagement {
		return d.refuse(c, managementRefusal(s))
	}
	if s.asksReadiness(c.Path()) {
		return d.toReadiness(c)
	}
	choice, r := s.pickVersion(c.Fields())
	if r != nil {
		return d.refuse(c, r)
	}
	s.forced = choice.Reason == routing.Forced
	s.record.Choice = choice.Reason.String()
	s.primary = s.snap.targets.get(choice.Version)
	s.target = s.primary
	if r := s.forceFallback(); r != nil {
		return d.refuse(c, r)
	}
	s.prioritize(c.Fields())
	setDeadline(c, s.method.Kind, s.route)
	if len(s.route.Shadows) > 0 {
		s.sampleShadows(c)
	}
	if s.snap.tapes != nil {
		s.sampleTape(c)
	}
	s.sampleData(c)
	v, n := d.next(c, true)
	if n.reason != "" {
		s.target, s.fallbackReason = s.primary, "" // nobody else has answered
		return d.refuse(c, n.refusal())
	}
	return v
}

// pickVersion chooses among the versions of the call's route: the one asked for,
// else by the sticky key, else by weight.
func (s *call) pickVersion(fields []hpack.HeaderField) (routing.Choice, *refusal) {
	force, err := s.route.ForcedByModelVersion(s.modelVersion)
	if err != nil {
		return routing.Choice{}, versionRefusal(err)
	}
	if asked := s.meta.ForceVersion; asked != "" {
		if force != "" && force != asked {
			return routing.Choice{}, refuse(codes.InvalidArgument, reasonVersionConflict,
				"model_version %q and sluice-version %q ask for different versions of %q",
				clip(s.modelVersion), clip(asked), s.route.Model)
		}
		force = asked
	}
	key := s.meta.Key
	if key == "" && s.route.StickyMetadata != "" {
		key, _ = identify.Value(fields, s.route.StickyMetadata)
	}
	choice, err := s.route.Choose(force, key, rand.Uint64())
	if err != nil {
		return routing.Choice{}, versionRefusal(err)
	}
	return choice, nil
}

// forceFallback makes the call fall back if its caller asks for that and may.
func (s *call) forceFallback() *refusal {
	token := s.meta.ForceFallback
	switch {
	case token == "":
	case !s.route.MayForceFallback(token):
		return refuse(codes.PermissionDenied, reasonForceNotAllowed,
			"%s: not the token whose SHA-256 is fallback.force_sha256 of route %q", identify.ForceFallback, s.route.Model)
	case !s.fallBack(forcedFallback):
		return refuse(codes.FailedPrecondition, reasonNoFallback,
			"%s: version %q of %q has no fallback, or was asked for by name", identify.ForceFallback, s.primary.version.Name, s.route.Model)
	}
	return nil
}

// forcedFallback is the reason of fallbacks that a caller has asked for.
const forcedFallback = "FORCED"

// toLocal sends the call to the gateway's own services.
func (d *director) toLocal(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	s.snap = d.snapshot.Load()
	setDeadline(c, s.method.Kind, nil)
	s.dispatch = relay.Dispatch{Upstream: d.local, Replay: true, Answer: d.answerFields(s, 1)}
	return relay.To(&s.dispatch)
}

// Over settles whatever is still held, on every way a call can end.
func (d *director) Over(c *relay.Call, o relay.Outcome) {
	s, ok := c.Data.(*call)
	if !ok {
		d.recordUnseen(c, o) // refused by the relay before it was looked at
		return
	}
	s.settle(c, o)
	d.recordCall(c, s, o)
	if s.copyTo != 0 || s.sampled || s.tape != nil {
		s.handOutCopy(c, o) // with a link to the call's span, which is kept or not by now
	}
	d.hold(s, 0)
	c.Data = nil
	s.free()
}
