package routing

import (
	"math"
	"slices"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Shadow is a version that gets copies of a route's calls.
type Shadow struct {
	Version *Version
	// Share is the part of calls that are copied, in hundredths of a percent.
	Share uint32
	// MaxRate is the greatest number of copies per second; 0 means no limit.
	MaxRate float64
	// Methods are copied although it is not known whether that is harmless:
	// "package.Service/Method".
	Methods []string
	// Sequences copies requests that belong to a sequence, too.
	Sequences bool
	// Metadata are the credentials that are passed on.
	Metadata []string
	// Outputs are rules of comparison by output; under "" is the one for all others.
	Outputs map[string]OutputRule
	// TopK is how many of a row's largest values are compared; 0 means the default.
	TopK int
	// Examples says what of calls may be remembered; nil means request ids alone.
	Examples *Examples
}

// Examples names what must not be remembered of calls, and exceptions from that.
type Examples struct{ Redact, Keep []string }

// OutputRule is what is special about the comparison of one output.
type OutputRule struct {
	Ignore     bool
	NaNDiffers bool
	// OwnTolerance says that Relative and Absolute replace those of the datatype.
	OwnTolerance       bool
	Relative, Absolute float64
}

// ShareSteps is a share of everything.
const ShareSteps = 100 * 100

// setShadows takes over the shadows. The document has been validated.
func (r *Route) setShadows(doc *routingv1.Route) {
	for _, d := range doc.GetShadow() {
		s := &Shadow{
			Version: r.byName[d.GetVersion()], Share: uint32(math.Round(d.GetPercent() * 100)), MaxRate: d.GetMaxRate(),
			Methods: slices.Clone(d.GetMethods()), Sequences: d.GetSequences(), Metadata: slices.Clone(d.GetMetadata()),
			Outputs: make(map[string]OutputRule), TopK: int(d.GetCompare().GetTopK()),
		}
		for _, o := range d.GetCompare().GetOutputs() {
			s.Outputs[o.GetName()] = OutputRule{
				Ignore: o.GetIgnore(), NaNDiffers: o.GetNanDiffers(),
				OwnTolerance: o.Relative != nil || o.Absolute != nil, Relative: o.GetRelative(), Absolute: o.GetAbsolute(),
			}
		}
		if e := d.GetExamples(); e != nil {
			s.Examples = &Examples{slices.Clone(e.GetRedact()), slices.Clone(e.GetKeep())}
		}
		r.Shadows = append(r.Shadows, s)
		if s.Version.Dark() && !allowsForce(doc, d.GetVersion()) {
			s.Version.AllowForce = false
		}
	}
}

// allowsForce reports whether the document itself lets callers ask for a version.
func allowsForce(doc *routingv1.Route, version string) bool {
	for _, v := range doc.GetVersions() {
		if v.GetName() == version {
			return v.GetAllowForce()
		}
	}
	return false
}
