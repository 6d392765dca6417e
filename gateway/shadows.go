package gateway

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/proto/inference/redact"
	"sluice/routing"
	"sluice/shadow"
	"sluice/shadow/compare"
	"sluice/telemetry"
)

// shadows are the mirrors of all routes. They outlive tables, as groups do: what they
// have learned stays while their versions do.
type shadows struct {
	breakers  *breaker.Group // their own: what a copy brings says nothing to callers
	telemetry *telemetry.Telemetry

	mu  sync.Mutex // for those who look; tables are prepared one after the other
	all map[groupKey]*liveMirror
}

type liveMirror struct {
	*shadow.Mirror
	model, version string
	guard          *breaker.Version
	target         *shadowTarget
	table          uint64 // the number of the latest table that has it
}

// shadowed is what the path of a call needs of one shadow of its route.
type shadowed struct {
	*routing.Shadow
	mirror *shadow.Mirror
}

func newShadows(t *telemetry.Telemetry) shadows {
	return shadows{breakers: breaker.NewGroup(), telemetry: t, all: make(map[groupKey]*liveMirror)}
}

// shadowsOf returns a route's shadows, whose mirrors are made if there are none.
func (s *shadows) shadowsOf(r *routing.Route, targets *targetSet, table uint64, now time.Time) []*shadowed {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*shadowed, 0, len(r.Shadows))
	for _, sh := range r.Shadows {
		t := targets.get(sh.Version)
		settings := versionSettings(r, sh.Version)
		settings.Limits = breaker.Limits{InFlight: shadow.DefaultLimits().InFlight}
		guard := s.breakers.Update(sh.Version.ID, settings, now)
		m := s.all[t.group.key]
		if m == nil {
			m = &liveMirror{model: r.Model, version: sh.Version.Name, guard: guard}
			m.target = &shadowTarget{guard: guard, telemetry: s.telemetry}
			m.target.current.Store(t)
			m.Mirror = shadow.New(m.target, shadow.Limits{}, mirrorSettings(r, sh))
			s.all[t.group.key] = m
		} else {
			if before := m.target.current.Swap(t).version; otherServer(before, t.version) {
				m.Forget()
			}
			m.Update(mirrorSettings(r, sh))
		}
		m.table = table
		list = append(list, &shadowed{sh, m.Mirror})
	}
	return list
}

// otherServer reports whether what answers for a version may be something else than before.
func otherServer(before, now *routing.Version) bool {
	return !slices.Equal(before.Endpoints, now.Endpoints) || before.Rename != now.Rename || before.Provenance != now.Provenance
}

// closeOthers closes the mirrors that the latest table does not have, in goroutines of
// their own: the calls under way have to end. Copies that they hold are dropped.
func (s *shadows) closeOthers(table uint64, spawn func(func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make(map[string]bool)
	for key, m := range s.all {
		if m.table == table {
			kept[key.version] = true
			continue
		}
		delete(s.all, key)
		spawn(m.Close)
	}
	s.breakers.Retain(func(id string) bool { return kept[id] }, func(string) bool { return false })
}

// close closes all mirrors.
func (s *shadows) close() {
	for _, m := range s.list() {
		m.Close()
	}
}

// of returns the mirror of a version, nil if it has none.
func (s *shadows) of(key groupKey) *liveMirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[key]
}

// list returns the mirrors of the moment.
func (s *shadows) list() []*liveMirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*liveMirror, 0, len(s.all))
	for _, m := range s.all {
		list = append(list, m)
	}
	return list
}

// mirrorSettings says the settings of a route's shadow in the mirror's words.
func mirrorSettings(r *routing.Route, sh *routing.Shadow) shadow.Settings {
	var columns map[string][]string
	if r.Drift != nil {
		columns = r.Drift.Columns
	}
	rules := compare.Rules{TopK: sh.TopK, Outputs: make(map[string]compare.Rule, len(sh.Outputs))}
	for name, o := range sh.Outputs {
		rule := compare.Rule{Ignore: o.Ignore, NaNDiffers: o.NaNDiffers}
		if o.OwnTolerance {
			rule.Tolerance = &compare.Tolerance{Rel: o.Relative, Abs: o.Absolute}
		}
		rules.Outputs[name] = rule
	}
	settings := shadow.Settings{Rate: sh.MaxRate, Sequences: sh.Sequences, Metadata: sh.Metadata, Rules: rules}
	if e := sh.Examples; e != nil {
		settings.Examples = redact.New(e.Redact, e.Keep, columns)
	}
	return settings
}

// sampleShadows decides, as the call is about to be sent, which shadows get a copy of
// it. A call that asks for a version by name is somebody's test, not traffic.
func (s *call) sampleShadows(c *relay.Call) {
	if s.shadows != nil || s.forced {
		return // the second time, for a version that has vanished
	}
	s.shadows = s.snap.shadows[s.route]
	var now time.Time
	for i, sh := range s.shadows {
		if !sampled(s.id, sh.Share) || sh.Version == s.primary.version || !copied(sh.Shadow, &s.method) {
			continue
		}
		if now.IsZero() {
			now = time.Now()
		}
		if s.target.guard.Crowded() {
			sh.mirror.Decline(shadow.Shedding)
		} else if sh.mirror.Admit(now) {
			s.copyTo |= 1 << i
		}
	}
	if s.copyTo != 0 {
		c.Capture()
	}
}

// sampled reports whether a call is among the share of all, in steps of
// [routing.ShareSteps], that is looked at closely. The same calls are in every share
// that is large enough, those with the lowest ids: whoever watches data and traces picks
// them in the same order.
func sampled(id uint64, share uint32) bool {
	step, _ := bits.Mul64(id, routing.ShareSteps)
	return step < uint64(share)
}

// copied reports whether calls of a method are copied: predictions that are known to
// change nothing, and what the route names.
func copied(sh *routing.Shadow, m *identify.Method) bool {
	switch {
	case m.Class == identify.ClassManagement || m.Class == identify.ClassLocal:
		return false
	case m.Predicts():
		return true
	}
	return slices.ContainsFunc(sh.Methods, func(name string) bool {
		return len(name) == len(m.Service)+1+len(m.Name) && name[:len(m.Service)] == m.Service &&
			name[len(m.Service)] == '/' && name[len(m.Service)+1:] == m.Name
	})
}

// copyToShadows hands the call, which is over, to the shadows that wait for it.
func (s *call) copyToShadows(c *relay.Call, o relay.Outcome, k *relay.Capture) {
	reason, ended := shadow.TooLarge, !s.isComparable(c, o)
	if ended {
		reason = shadow.Ended
	}
	var copied *shadow.Copy
	for i, sh := range s.shadows {
		switch {
		case s.copyTo&(1<<i) == 0:
		case ended || k == nil:
			sh.mirror.Withdraw(reason)
		case sh.Version == s.target.version:
			sh.mirror.Withdraw(shadow.Itself)
		default:
			if copied == nil {
				copied = s.shadowCopy(c, o, k)
			}
			k.Retain()
			sh.mirror.Offer(copied)
		}
	}
	s.copyTo = 0
}

// shadowCopy puts down what is known of a call that is over.
func (s *call) shadowCopy(c *relay.Call, o relay.Outcome, k *relay.Capture) *shadow.Copy {
	n := &shadow.Copy{
		Path: c.Path(), RequestID: s.requestID, Encoding: s.meta.Encoding,
		Traceparent: s.record.Link(), Revision: s.snap.table.Revision(),
		Version: s.target.version.Name, Code: o.Code, Payload: k,
	}
	if s.method.Kind == identify.KindUnary { // in a stream, nobody knows who has waited for whom
		n.Latency = s.waited(o, true)
	}
	fields := c.Fields()
	n.Metadata = make([]string, 0, 2*len(fields))
	for i := range fields {
		switch name := fields[i].Name; {
		case name == ":authority":
			n.Authority = fields[i].Value
		case name[0] != ':':
			n.Metadata = append(n.Metadata, name, fields[i].Value)
		}
	}
	return n
}

// shadowTarget is a version as a mirror sees it.
type shadowTarget struct {
	guard     *breaker.Version // of shadows
	current   atomic.Pointer[target]
	telemetry *telemetry.Telemetry
}

// Ready implements [shadow.Target].
func (t *shadowTarget) Ready(now time.Time) bool { return t.guard.Breaker().Ready(now) }

// Admit implements [shadow.Target].
func (t *shadowTarget) Admit(now time.Time) (func(shadow.Attempt), bool) {
	permit, err := t.guard.Allow(now, breaker.Normal)
	if err != nil {
		return nil, false
	}
	return func(a shadow.Attempt) {
		outcome := t.guard.Classify(breaker.Attempt{
			Kind: shadowKinds[a.Kind], Code: codes.Code(a.Code), Latency: a.Latency, Had: a.Had,
		})
		permit.Done(breaker.Result{Outcome: outcome, At: a.Ended, Latency: a.Latency})
	}, true
}

// shadowKinds says a mirror's words in the breaker's.
var shadowKinds = [...]breaker.Kind{
	shadow.Answered:   breaker.Answered,
	shadow.TimedOut:   breaker.Deadline,
	shadow.NotReached: breaker.Lost,
	shadow.Oversized:  breaker.Answered, // it was well; what it says is for the comparison to judge
}

// Pick implements [shadow.Target].
func (t *shadowTarget) Pick(now time.Time) (shadow.Endpoint, bool) {
	return t.current.Load().shadowEndpoint(now)
}

// Trace implements [shadow.Target].
func (t *shadowTarget) Trace(c *shadow.Copy, e shadow.Endpoint, now time.Time) shadow.Span {
	v := t.current.Load().version
	s := &shadowSpan{telemetry: t.telemetry, record: telemetry.Shadow{
		Model: v.Model, Version: v.Name, DataVersion: v.Provenance.Data, Endpoint: e.Addr,
		RequestID: c.RequestID, Answered: c.Version, Revision: c.Revision, Started: now,
	}}
	var ok bool
	if s.parent, ok = t.telemetry.BeginShadow(&s.record, c.Traceparent); !ok {
		return nil
	}
	m, _ := identify.Lookup(c.Path) // known or in the routes, else there would be no copy
	s.record.Service, s.record.Method = m.Service, m.Name
	return s
}

// shadowSpan tells telemetry of a copy.
type shadowSpan struct {
	telemetry *telemetry.Telemetry
	record    telemetry.Shadow
	parent    string
}

// Traceparent implements [shadow.Span].
func (s *shadowSpan) Traceparent() string { return s.parent }

// End implements [shadow.Span].
func (s *shadowSpan) End(a shadow.Attempt, failed shadow.Reason, d compare.Difference) {
	s.record.Ended, s.record.Code = a.Ended, a.Code
	if failed != 0 {
		s.record.Failed = failed.String()
	} else {
		s.record.Verdict = d.String()
	}
	s.telemetry.RecordShadow(&s.record)
}

// Rewrite implements [shadow.Target].
func (t *shadowTarget) Rewrite(path string, dst, body []byte) ([]byte, bool) {
	return t.current.Load().rewriteCopy(path, dst, body)
}
