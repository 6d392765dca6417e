package breaker

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// overloaded is a server that answers four calls at once in 10 ms each. The more it has
// beyond that, the less it gets done: with sixteen calls half as much as with four.
type overloaded struct {
	mu        sync.Mutex
	now, most int // calls under way, and the most of them
	done      int
	took      time.Duration // for all that are done
}

const (
	bestAtOnce = 4
	atBest     = 10 * time.Millisecond
)

func (s *overloaded) work() {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	over := max(1, float64(s.now)/bestAtOnce)
	s.mu.Unlock()
	took := time.Duration(float64(atBest) * math.Pow(over, 1.5))
	time.Sleep(took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	s.done++
	s.took += took
}

// rush has callers call for a time. Whoever is refused comes again after a moment. It returns how long a
// call took, and how many there were at once at most, in the last third of that time.
func rush(v *Version, s *overloaded, callers int, d time.Duration) (took time.Duration, most int) {
	var calling sync.WaitGroup
	end := time.Now().Add(d)
	for range callers {
		calling.Go(func() {
			for time.Now().Before(end) {
				p, err := v.Allow(time.Now(), Normal)
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				s.work()
				p.Done(Result{Outcome: Success, At: time.Now()})
			}
		})
	}
	time.Sleep(d * 2 / 3)
	s.mu.Lock()
	s.done, s.took, s.most = 0, 0, 0
	s.mu.Unlock()
	calling.Wait()
	return s.took / time.Duration(max(1, s.done)), s.most
}

// A server that gets slower the more it has to do gets less to do, where the limit adapts: it goes on
// answering about as many calls as it can. A limit that stays as it is lets it drown.
func TestAdaptiveLimitKeepsAServerFromDrowning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took [2]time.Duration
		var atOnce [2]int
		for i, adaptive := range []bool{false, true} {
			v, s := newTestVersion(VersionSettings{Limits: Limits{InFlight: 40, Adaptive: adaptive}}), new(overloaded)
			rush(v, s, 3, 4*time.Second) // as long as there are few callers, all is well
			took[i], atOnce[i] = rush(v, s, 60, 10*time.Second)
			if limit := v.Status(time.Now()).Limit; adaptive && limit > 2*bestAtOnce {
				t.Errorf("the limit is %d after the rush, want about %d", limit, bestAtOnce)
			}
		}
		t.Logf("%v for a call with a limit that stays, %d at once; %v with one that adapts, %d at once", took[0], atOnce[0], took[1], atOnce[1])
		if atOnce[0] != 40 || atOnce[1] > 3*bestAtOnce {
			t.Errorf("the server had %d calls at once under a limit of 40, %d under one that adapts; want 40, and about %d", atOnce[0], atOnce[1], bestAtOnce)
		}
		if took[1] > 2*atBest {
			t.Errorf("the server took %v for a call under a limit that adapts, %v under one that stays; want about %v", took[1], took[0], atBest)
		}
	})
}
