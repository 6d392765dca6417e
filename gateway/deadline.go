package gateway

import (
	"time"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/routing"
)

// defaultTimeout is the deadline of unary calls that come without one.
const defaultTimeout = 15 * time.Second

// limitIdentifying bounds the time in which a call has to say where it is for: the
// caller's own, else as long as any call may take whose route says nothing.
func limitIdentifying(c *relay.Call) {
	t, ok := c.Timeout()
	if !ok {
		t = routing.MaxTimeout
	}
	c.SetDeadline(c.Opened().Add(t))
}

// setDeadline gives a call its end, counted from its opening; a route of nil means
// a call of the gateway's own services.
func setDeadline(c *relay.Call, kind identify.Kind, route *routing.Route) {
	t, ok := c.Timeout()
	if route != nil {
		t, ok = timeout(t, ok, kind, route)
	}
	if !ok {
		c.SetDeadline(time.Time{}) // the relay ends it when no bytes move any more
		return
	}
	c.SetDeadline(c.Opened().Add(t))
}

// timeout is how long a call may take, given the caller's own timeout. Calls known
// to be unary, and those of routes with a timeout, always end; others keep what the
// caller says, or have no end.
func timeout(own time.Duration, hasOwn bool, kind identify.Kind, route *routing.Route) (time.Duration, bool) {
	if kind != identify.KindUnary && route.DefaultTimeout == 0 && route.MaxTimeout == 0 {
		return own, hasOwn
	}
	most := route.MaxTimeout
	if most == 0 {
		most = routing.MaxTimeout
	}
	switch {
	case hasOwn:
		return min(own, most), true
	case route.DefaultTimeout > 0:
		return min(route.DefaultTimeout, most), true
	}
	return min(defaultTimeout, most), true
}
