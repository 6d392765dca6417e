package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"

	"sluice/gateway/identify"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
)

// Explain decides as the path of a call does, with the same code, and writes down
// each decision.
func (s *Service) Explain(_ context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	if status := s.cfg.Watcher.Status(); !status.Ready() {
		return nil, failure(&noStateError{status.Err}, ofRoute)
	}
	table := s.cfg.Router.Current()
	e := &explanation{resp: &adminv1.ExplainResponse{Revision: table.Revision()}, table: table, req: req}
	e.explain()
	for _, c := range e.resp.GetCandidates() {
		if v, ok := e.route.Version(c.GetVersion()); ok {
			c.Endpoints = s.endpoints(v)
		}
	}
	return e.resp, nil
}

// explanation is one in the making.
type explanation struct {
	req   *adminv1.ExplainRequest
	resp  *adminv1.ExplainResponse
	table *routing.Table
	route *routing.Route
	meta  identify.Metadata
	key   string // sticky
	from  string // the metadata that holds the key
}

func (e *explanation) say(format string, args ...any) {
	e.resp.Steps = append(e.resp.Steps, fmt.Sprintf(format, args...))
}

func (e *explanation) refuse(format string, args ...any) {
	e.resp.Reason, e.resp.Refusal = "refused", fmt.Sprintf(format, args...)
	e.say("refused: %s", e.resp.GetRefusal())
}

func (e *explanation) explain() {
	fields := e.fields()
	for _, f := range fields {
		if err := e.meta.Add(f.Name, f.Value); err != nil {
			e.refuse("%v", err)
			return
		}
	}
	if !e.identify() {
		return
	}
	force, ok := e.force()
	if !ok {
		return
	}
	e.sticky(fields)
	choice, err := e.route.Choose(force, e.key, 0)
	if err != nil {
		e.refuse("%v", err)
		return
	}
	e.conclude(choice)
}

// fields returns the call's metadata as a server sees it, in a fixed order.
func (e *explanation) fields() []hpack.HeaderField {
	var fields []hpack.HeaderField
	for _, name := range slices.Sorted(maps.Keys(e.req.GetMetadata())) {
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(name), Value: e.req.GetMetadata()[name]})
	}
	return fields
}

// identify finds the route.
func (e *explanation) identify() bool {
	inMessage, inMetadata := e.req.GetModel(), e.meta.Model
	model := cmp.Or(inMessage, inMetadata)
	switch {
	case inMessage != "" && inMetadata != "" && inMessage != inMetadata:
		e.refuse("the message names model %q and the metadata %q: they have to agree", inMessage, inMetadata)
		return false
	case model != "":
		route, ok := e.table.Route(model)
		if !ok {
			e.refuse("no route for model %q", model)
			return false
		}
		source := "message"
		if inMessage == "" {
			source = "metadata"
		}
		e.say("model %q, named by the %s", model, source)
		e.found(route)
		return true
	case e.req.GetService() == "":
		e.refuse("nothing names a model: neither message nor metadata nor service")
		return false
	}
	route, ok := e.table.RouteForService(e.req.GetService())
	if !ok {
		e.refuse("nothing names a model, and no route lists the service %q", e.req.GetService())
		return false
	}
	e.say("model %q, whose route lists the service %q", route.Model, e.req.GetService())
	e.found(route)
	return true
}

func (e *explanation) found(route *routing.Route) {
	e.route, e.resp.Model = route, route.Model
	total := 0.0
	for _, v := range route.Versions {
		total += float64(v.Weight)
	}
	for _, v := range route.Versions {
		e.resp.Candidates = append(e.resp.Candidates, &adminv1.Candidate{
			Version: v.Name, Weight: v.Weight, Share: float64(v.Weight) / total,
		})
	}
	slices.SortStableFunc(e.resp.GetCandidates(), func(a, b *adminv1.Candidate) int { return cmp.Compare(b.GetShare(), a.GetShare()) })
}

// force returns the version that the call asks for by name, if any.
func (e *explanation) force() (force string, ok bool) {
	modelVersion := e.req.GetModelVersion()
	force, err := e.route.ForcedByModelVersion(modelVersion)
	switch {
	case err != nil:
		e.refuse("model_version: %v", err)
		return "", false
	case force != "" && e.meta.ForceVersion != "" && force != e.meta.ForceVersion:
		e.refuse("model_version %q and sluice-version %q ask for different versions", modelVersion, e.meta.ForceVersion)
		return "", false
	case e.meta.ForceVersion != "":
		e.say("sluice-version asks for version %q, whatever the weights say", e.meta.ForceVersion)
		return e.meta.ForceVersion, true
	case force != "":
		e.say("model_version %q asks for version %q, whatever the weights say", modelVersion, force)
		return force, true
	case modelVersion != "":
		e.say("model_version %q fits no version, and the route ignores that", modelVersion)
	}
	return "", true
}

// sticky finds the key.
func (e *explanation) sticky(fields []hpack.HeaderField) {
	e.key, e.from = e.meta.Key, "sluice-key"
	if name := e.route.StickyMetadata; e.key == "" && name != "" {
		e.key, _ = identify.Value(fields, name)
		e.from = name
	}
}

// conclude writes down what was chosen and why.
func (e *explanation) conclude(choice routing.Choice) {
	e.resp.Reason = choice.Reason.String()
	switch choice.Reason {
	case routing.Weighted:
		if e.route.StickyMetadata != "" {
			e.say("no sticky key: neither sluice-key nor %s is there", e.route.StickyMetadata)
		}
		if best := e.resp.GetCandidates()[0]; best.GetShare() == 1 {
			e.resp.Version = best.GetVersion()
			e.say("version %q has all the weight", best.GetVersion())
		} else {
			e.say("drawn at random by weight: %s", e.split())
		}
		e.fallback()
		return
	case routing.Sticky:
		e.say("the key %q in %s always draws version %q while the split is %s", e.key, e.from, choice.Version.Name, e.split())
		e.fallback()
	case routing.Forced:
		e.say("version %q may be asked for by name, and does not fall back", choice.Version.Name)
	}
	e.resp.Version = choice.Version.Name
	for _, c := range e.resp.GetCandidates() {
		c.Share = 0
		if c.GetVersion() == choice.Version.Name {
			c.Share = 1
		}
	}
	slices.SortStableFunc(e.resp.GetCandidates(), func(a, b *adminv1.Candidate) int { return cmp.Compare(b.GetShare(), a.GetShare()) })
}

// fallback names the versions that answer if the chosen one cannot.
func (e *explanation) fallback() {
	var names []string
	for _, v := range e.route.Fallback {
		names = append(names, v.Name)
	}
	if len(names) > 0 {
		e.say("if that is cut off, full or fails, the fallback answers: %s", strings.Join(names, ", then "))
	}
}

// split words the shares, as in "v7 95.0 %, v8 5.0 %".
func (e *explanation) split() string {
	var parts []string
	for _, c := range e.resp.GetCandidates() {
		if c.GetShare() > 0 {
			parts = append(parts, fmt.Sprintf("%s %.1f %%", c.GetVersion(), 100*c.GetShare()))
		}
	}
	return strings.Join(parts, ", ")
}
