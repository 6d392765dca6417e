package peer

import "context"

// Direct is no proxy at all: what the load generator and the backend cost.
type Direct struct{}

// Name returns "direct".
func (Direct) Name() string { return "direct" }

// Opaque reports that the backend ends TLS itself.
func (Direct) Opaque() bool { return true }

// Locate always succeeds.
func (Direct) Locate(context.Context) (string, error) { return "no proxy", nil }

// Launch starts nothing.
func (Direct) Launch(Site) Launch { return Launch{} }
