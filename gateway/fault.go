package gateway

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/routing"
)

// fault is a fault of a target, with all that its calls need prepared.
type fault struct {
	routing.Fault
	salt uint64
	most uint64            // calls whose draw is at most this are struck
	end  *relay.Simulation // nil for a delay
	text string            // as in sluice-fault
	kind string            // as in metrics

	struck *atomic.Uint64 // attempts; it outlives tables as long as the fault stays as it is
}

// The kinds of fault, as in metrics.
const (
	faultDelay  = "delay"
	faultReset  = "reset"
	faultStatus = "status"
)

// faultsOf prepares the faults of a version; nil if there are none, which is what a
// call looks at. Those that it had before go on with their counts.
func faultsOf(v *routing.Version, before []fault) []fault {
	var all []fault
	for i, f := range v.Faults {
		p := fault{Fault: f, salt: mix(uint64(i) + 1), most: uint64(f.Share * math.MaxUint64), struck: counterOf(before, f)}
		if f.Share >= 1 {
			p.most = math.MaxUint64 // the product may have become one more than there is
		}
		told := fmt.Sprintf("fault injected into version %q of model %q until %s", v.Name, v.Model, f.Until.Format(time.RFC3339))
		switch {
		case f.Delay > 0:
			p.kind, p.text = faultDelay, fmt.Sprintf("%s delay %v", v.Name, f.Delay)
		case f.Reset:
			p.kind, p.text = faultReset, v.Name+" reset"
			p.end = &relay.Simulation{Kind: relay.Reset, Message: told}
		default:
			p.kind, p.text = faultStatus, v.Name+" "+code.Code(f.Code).String()
			p.end = &relay.Simulation{Kind: relay.Answered, Code: f.Code, Message: told}
		}
		all = append(all, p)
	}
	return all
}

// counterOf returns the counter of a fault, a new one if it is not among those there were.
func counterOf(before []fault, f routing.Fault) *atomic.Uint64 {
	for i := range before {
		if before[i].Fault == f {
			return before[i].struck
		}
	}
	return new(atomic.Uint64)
}

// Struck returns how many attempts at a version of the current table a fault of it has
// struck here; 0 if the version, or the fault, is not in there.
func (g *Gateway) Struck(v *routing.Version, f routing.Fault) uint64 {
	s := g.director.snapshot.Load()
	if s == nil || s.targets.get(v) == nil {
		return 0
	}
	return counterOf(s.targets.get(v).faults, f).Load()
}

// strikes reports whether the fault acts on a call now. It is drawn from the call's
// id, so that all attempts of a call at the version fare alike.
func (f *fault) strikes(id uint64, now time.Time) bool {
	return mix(id^f.salt) <= f.most && f.ActiveAt(now)
}

// strike lets the faults of the call's version act on the attempt that is about to
// be made: a delay, an end, or first the one and then the other.
func (s *call) strike(now time.Time) {
	if s.method.Class == identify.ClassManagement {
		return // loading a model is no experiment
	}
	for i := range s.target.faults {
		f := &s.target.faults[i]
		switch {
		case !f.strikes(s.id, now):
			continue
		case f.end == nil && s.dispatch.NotBefore.IsZero():
			s.dispatch.NotBefore = now.Add(f.Delay)
		case f.end != nil && s.dispatch.Simulate == nil:
			s.dispatch.Simulate, s.struck = f.end, true
		default:
			continue // one of a kind
		}
		s.fault = f.text
		f.struck.Add(1)
		s.target.series.Strike(f.kind)
	}
}

// mix spreads the bits of x: the finaliser of SplitMix64 (Steele, Lea and Flood,
// 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
