package routing

import (
	"slices"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Version is one deployed variant of a model, as its route sees it. It is
// shared by all calls: read its fields, never write them.
type Version struct {
	// ID is the model and the version joined by a space, which neither can hold.
	// It is the key of state that outlives a table.
	ID string
	// Model is the name of the route.
	Model string
	// Name is the version's name, legal as a header value.
	Name string
	// Endpoints are addresses as written: host:port, [v6]:port or
	// dns:///host:port.
	Endpoints []string
	// Server is the kind of model server, "generic" unless the document says
	// otherwise.
	Server string
	// Rename says what the model is called on the version's servers.
	Rename Rename
	// Provenance says where the version comes from.
	Provenance Provenance
	// TLS says how to connect; nil means plaintext.
	TLS *TLS
	// Weight is the version's part of the sum of the route's weights.
	Weight uint32
	// AllowForce lets callers ask for this version by name. Unless the document says
	// so, they may not if the version is a shadow and has no weight.
	AllowForce bool
	// TrustUpstream keeps sluice-* metadata in the version's answers.
	TrustUpstream bool
	// Faults make attempts at the version fail on purpose; nil in all but tests of
	// what failures do.
	Faults []Fault
	// CutOff says what of the version operators have cut off.
	CutOff CutOff
}

// Rename holds the model server's names; an empty one is not rewritten.
type Rename struct{ Model, Version string }

// Provenance holds labels for people: the model's artifact and the version of
// its training data.
type Provenance struct{ Artifact, Data string }

// TLS holds the settings of connections to a version's endpoints. Files are not
// read here.
type TLS struct {
	// CAFile holds PEM certificates; empty means the system's.
	CAFile string
	// ServerName is verified and sent as SNI; empty means the endpoint's host.
	ServerName string
	// CertFile and KeyFile hold the client's PEM certificate chain and key; both
	// or neither are set.
	CertFile, KeyFile string
	// InsecureSkipVerify accepts every certificate.
	InsecureSkipVerify bool
}

// Dark reports whether the version gets no calls except by force.
func (v *Version) Dark() bool { return v.Weight == 0 }

func newVersion(model string, doc *routingv1.Version, weight uint32) *Version {
	v := &Version{
		ID:        model + " " + doc.GetName(),
		Model:     model,
		Name:      doc.GetName(),
		Endpoints: slices.Clone(doc.GetEndpoints()),
		Server:    doc.GetServer(),
		Rename: Rename{
			Model:   doc.GetRename().GetModel(),
			Version: doc.GetRename().GetVersion(),
		},
		Provenance: Provenance{
			Artifact: doc.GetProvenance().GetArtifact(),
			Data:     doc.GetProvenance().GetData(),
		},
		Weight:        weight,
		AllowForce:    doc.AllowForce == nil || doc.GetAllowForce(),
		TrustUpstream: doc.GetTrustUpstream(),
	}
	if v.Server == "" {
		v.Server = "generic"
	}
	if t := doc.GetTls(); t != nil {
		v.TLS = &TLS{
			CAFile:             t.GetCaFile(),
			ServerName:         t.GetServerName(),
			CertFile:           t.GetCertFile(),
			KeyFile:            t.GetKeyFile(),
			InsecureSkipVerify: t.GetInsecureSkipVerify(),
		}
	}
	return v
}
