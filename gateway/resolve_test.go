package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/relay"
)

// names is a name server for tests.
type names struct {
	mu    sync.Mutex
	ips   []string
	err   error
	hangs bool
	asked []time.Time
	hosts []string
}

func (n *names) set(err error, ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err, n.ips = err, ips
}

func (n *names) lookup(ctx context.Context, host string) ([]string, error) {
	n.mu.Lock()
	n.asked = append(n.asked, time.Now())
	n.hosts = append(n.hosts, host)
	ips, err, hangs := n.ips, n.err, n.hangs
	n.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return ips, err
}

// pauses returns the times between look-ups.
func (n *names) pauses() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []time.Duration
	for i := 1; i < len(n.asked); i++ {
		all = append(all, n.asked[i].Sub(n.asked[i-1]))
	}
	return all
}

// following runs a follower of dns:///fraud:8001 in a bubble of its own time.
func following(t *testing.T, n *names, test func(t *testing.T, g *group, log *logBuffer)) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Config{}, &director{})
		defer r.Close()
		log := new(logBuffer)
		var running sync.WaitGroup
		defer running.Wait()
		g, _ := recordedGroup(r, func(g *group, spec string) func() {
			ctx, stop := context.WithCancel(t.Context())
			running.Go(func() { follow(ctx, g, spec, n.lookup, slog.New(slog.NewTextHandler(log, nil))) })
			return stop
		})
		defer g.close()
		g.configure([]string{"dns:///fraud:8001"})
		synctest.Wait()
		test(t, g, log)
	})
}

func expectAddrs(t *testing.T, g *group, want ...string) {
	t.Helper()
	if got := addrsOf(g); !slices.Equal(got, want) {
		t.Errorf("got endpoints %q, want %q", got, want)
	}
}

func TestNamesAreResolvedAgainAndAgain(t *testing.T) {
	n := &names{ips: []string{"192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.1"}}
	following(t, n, func(t *testing.T, g *group, log *logBuffer) {
		expectAddrs(t, g, "192.0.2.1:8001", "192.0.2.2:8001", "[2001:db8::1]:8001")
		kept := (*g.list.Load())[1]
		n.set(nil, "192.0.2.2")
		time.Sleep(26 * time.Second)
		expectAddrs(t, g, "192.0.2.1:8001", "192.0.2.2:8001", "[2001:db8::1]:8001")
		time.Sleep(8 * time.Second)
		expectAddrs(t, g, "192.0.2.2:8001")
		if (*g.list.Load())[0] != kept {
			t.Error("the address that stayed is another endpoint now")
		}
		if n.hosts[0] != "fraud" {
			t.Errorf("asked for %q, want the host alone", n.hosts[0])
		}
		if log.String() != "" {
			t.Errorf("logged %s", log)
		}
	})
}

// While a name cannot be resolved, has no address any more, or nobody answers, the
// last addresses stay; that is said once, and when it is over.
func TestLastAddressesStay(t *testing.T) {
	n := &names{ips: []string{"192.0.2.1"}}
	following(t, n, func(t *testing.T, g *group, log *logBuffer) {
		n.set(errors.New("no such host"))
		time.Sleep(2 * time.Minute)
		expectAddrs(t, g, "192.0.2.1:8001")
		if got := strings.Count(log.String(), "cannot be resolved"); got != 1 {
			t.Errorf("said %d times in 2 minutes, want once:\n%s", got, log)
		}
		n.set(nil) // no address
		time.Sleep(2 * time.Minute)
		expectAddrs(t, g, "192.0.2.1:8001")
		n.mu.Lock()
		n.hangs = true
		n.mu.Unlock()
		time.Sleep(2 * time.Minute)
		expectAddrs(t, g, "192.0.2.1:8001")
		n.mu.Lock()
		n.hangs = false
		n.mu.Unlock()
		n.set(nil, "192.0.2.7")
		time.Sleep(10 * time.Second)
		expectAddrs(t, g, "192.0.2.7:8001")
		if got := strings.Count(log.String(), "resolved again"); got != 1 {
			t.Errorf("the end was said %d times, want once:\n%s", got, log)
		}
	})
}

// A name that was never resolved is dialled as it is, and looked up soon again.
func TestNameThatIsNotThereYet(t *testing.T) {
	n := &names{err: errors.New("no such host")}
	following(t, n, func(t *testing.T, g *group, log *logBuffer) {
		expectAddrs(t, g, "fraud:8001")
		time.Sleep(10 * time.Second)
		n.set(nil, "192.0.2.1")
		time.Sleep(3 * time.Second)
		expectAddrs(t, g, "192.0.2.1:8001")
		if !strings.Contains(log.String(), "no such host") {
			t.Errorf("logged %s, want the cause", log)
		}
	})
}

// Many names, and many gateways, are not to ask all at once.
func TestLookUpsAreSpread(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		mean time.Duration
	}{"well": {nil, resolveEvery}, "failing": {errors.New("no such host"), resolveRetry}} {
		t.Run(name, func(t *testing.T) {
			n := &names{ips: []string{"192.0.2.1"}, err: c.err}
			following(t, n, func(t *testing.T, _ *group, _ *logBuffer) {
				time.Sleep(100 * c.mean)
				least, most := time.Hour, time.Duration(0)
				for _, p := range n.pauses() {
					least, most = min(least, p), max(most, p)
				}
				if least < c.mean*9/10 || most > c.mean*11/10 || most-least < c.mean/20 {
					t.Errorf("pauses from %v to %v, want %v +-10 %%, spread", least, most, c.mean)
				}
			})
		})
	}
}
