package routing

import (
	"math"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Capture says how calls of a route are kept in files.
type Capture struct {
	// Share is the part of calls that are kept, in hundredths of a percent.
	Share uint32
	// MaxBytes bounds the files together, Retain their age.
	MaxBytes int64
	Retain   time.Duration
}

// What holds where a route does not say otherwise.
const (
	captureBytes  = 64 << 20
	captureRetain = 24 * time.Hour
)

// newCapture completes the settings of a document.
func newCapture(doc *routingv1.Capture) *Capture {
	if doc == nil {
		return nil
	}
	c := &Capture{Share: uint32(math.Round(doc.GetPercent() * 100)), MaxBytes: captureBytes, Retain: captureRetain}
	if doc.MaxMib != nil {
		c.MaxBytes = int64(doc.GetMaxMib()) << 20
	}
	if d := doc.GetRetain(); d != nil {
		c.Retain = d.AsDuration()
	}
	return c
}
