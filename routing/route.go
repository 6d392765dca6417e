package routing

import (
	"slices"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Route says which versions answer for one model. It is shared by all calls:
// read its fields, never write them.
type Route struct {
	// Model is the name callers use, legal as a header value.
	Model string
	// Services are the full gRPC service names whose calls belong to this route
	// when nothing else names a model.
	Services []string
	// Versions are all versions in the order of the document, dark ones too.
	Versions []*Version
	// StickyMetadata is the lower-case metadata key that holds the sticky key
	// when the caller gives no sluice-key; empty means none.
	StickyMetadata string
	// DefaultTimeout is the deadline of calls that come without one; 0 means the
	// route sets none.
	DefaultTimeout time.Duration
	// MaxTimeout is the longest deadline a call may have; 0 means the route sets
	// none.
	MaxTimeout time.Duration
	// AllowManagement lets calls pass that manage the model server.
	AllowManagement bool
	// IgnoreModelVersion lets a model_version pass that names no version.
	IgnoreModelVersion bool
	// Fallback are the versions that answer when an attempt at the chosen one has
	// failed or cannot be made, in order. The chosen one may be among them.
	Fallback []*Version
	// Breaker says when a version or an endpoint that fails is cut off.
	Breaker Breaker
	// FallbackReserve is the part of a call's deadline that is kept for the fallbacks.
	FallbackReserve time.Duration
	// Limits bounds what each version is asked to do at once, Priority says which calls
	// go first there.
	Limits   Limits
	Priority Priority
	// Hedge says when a call is sent to two endpoints.
	Hedge Hedge
	// Health says how endpoints are probed.
	Health Probing
	// Objectives say how good the answers are meant to be.
	Objectives Objectives
	// Drift says how the versions' data is watched; nil means not at all.
	Drift *Drift
	// Labels says what is known of predictions and done with labels; nil means nothing.
	Labels *Labels

	// Shadows get copies of calls; at most 8.
	Shadows []*Shadow
	// Capture says how calls are kept in files; nil means not at all.
	Capture *Capture

	fallbackOn     uint32 // a bit for each gRPC code
	forceDigest    []byte // SHA-256 of the token that makes a call fall back; nil if none does
	byName         map[string]*Version
	byModelVersion map[string]*Version // nil for a value that several versions share
	split          []share             // the versions with weight, in the order of the document
	total          uint64              // of all weights; fits uint32
}

// share is a version's part of a route's calls.
type share struct {
	version *Version
	upTo    uint64  // cumulative weight up to and with this version
	weight  float64 // its own weight
	hash    uint64  // of the route's salt and the version's name
}

// newRoute computes whatever choosing needs. The document has been validated.
func newRoute(doc *routingv1.Route) *Route {
	timeout := doc.GetTimeout()
	r := &Route{
		Model:              doc.GetModel(),
		Services:           slices.Clone(doc.GetServices()),
		StickyMetadata:     doc.GetSticky().GetMetadata(),
		DefaultTimeout:     timeout.GetDefault().AsDuration(),
		MaxTimeout:         timeout.GetMax().AsDuration(),
		AllowManagement:    doc.GetAllowManagement(),
		IgnoreModelVersion: doc.GetIgnoreModelVersion(),
		byName:             make(map[string]*Version, len(doc.GetVersions())),
		byModelVersion:     make(map[string]*Version, len(doc.GetVersions())),
	}
	r.setResilience(doc)
	r.setSecondAttempts(doc)
	r.Objectives = newObjectives(doc.GetSlo())
	r.Drift = newDrift(doc.GetDrift())
	r.Labels = newLabels(doc.GetLabels())
	salt := doc.GetSticky().GetSalt()
	if salt == "" {
		salt = r.Model
	}
	for _, d := range doc.GetVersions() {
		v := newVersion(r.Model, d, doc.GetWeights()[d.GetName()])
		r.Versions = append(r.Versions, v)
		r.byName[v.Name] = v
		if v.Dark() {
			continue
		}
		r.total += uint64(v.Weight)
		r.split = append(r.split, share{
			version: v,
			upTo:    r.total,
			weight:  float64(v.Weight),
			hash:    hashVersion(salt, v.Name),
		})
	}
	r.setShadows(doc)
	r.Capture = newCapture(doc.GetCapture())
	r.indexModelVersions()
	r.setFaults(doc)
	r.setCutOffs(doc)
	for _, name := range doc.GetFallback().GetTo() {
		r.Fallback = append(r.Fallback, r.byName[name])
	}
	return r
}

// indexModelVersions maps what a request's model_version may say to versions.
// A version's own name comes before what it is called on its server.
func (r *Route) indexModelVersions() {
	for _, v := range r.Versions {
		if v.Rename.Version == "" {
			continue
		}
		if _, taken := r.byModelVersion[v.Rename.Version]; taken {
			r.byModelVersion[v.Rename.Version] = nil
			continue
		}
		r.byModelVersion[v.Rename.Version] = v
	}
	for _, v := range r.Versions {
		r.byModelVersion[v.Name] = v
	}
}

// Version returns the version of that name.
func (r *Route) Version(name string) (*Version, bool) {
	v, ok := r.byName[name]
	return v, ok
}
