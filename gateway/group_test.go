package gateway

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/gateway/relay"
)

// opened records what a group opens.
type opened struct {
	relay *relay.Relay
	hosts map[string]string // by address
	count map[string]int
}

func (o *opened) open(addr, host string) *relay.Upstream {
	o.hosts[addr] = host
	o.count[addr]++
	return o.relay.NewUpstream(relay.UpstreamConfig{Addr: addr})
}

func recordedGroup(r *relay.Relay, follow func(*group, string) func()) (*group, *opened) {
	o := &opened{relay: r, hosts: map[string]string{}, count: map[string]int{}}
	return newGroup(guard(), o.open, follow), o
}

func addrsOf(g *group) []string {
	var all []string
	for _, e := range *g.list.Load() {
		all = append(all, e.addr)
	}
	return all
}

func TestGroupKeepsEndpointsThatStay(t *testing.T) {
	g, o := recordedGroup(bareRelay(t), nil)
	g.configure([]string{"a:1", "b:1"})
	before := *g.list.Load()
	before[1].latency.answered(epoch, 5*ms)
	g.configure([]string{"b:1", "c:1"})
	after := *g.list.Load()
	if got := addrsOf(g); !slices.Equal(got, []string{"b:1", "c:1"}) {
		t.Errorf("got %q", got)
	}
	if after[0] != before[1] || o.count["b:1"] != 1 {
		t.Errorf("b:1 was opened %d times, want it kept with what is known of it", o.count["b:1"])
	}
	g.configure([]string{"b:1", "c:1"})
	if &after[0] != &(*g.list.Load())[0] {
		t.Error("the same endpoints again made a new list")
	}
	g.configure([]string{"a:1"})
	if o.count["a:1"] != 2 {
		t.Errorf("a:1 came back, and was opened %d times, want twice: it had been retired", o.count["a:1"])
	}
}

// A name is an endpoint itself until it has been resolved, and what it stands for
// after that.
func TestNameStandsForItselfUntilResolved(t *testing.T) {
	following := map[string]bool{}
	g, o := recordedGroup(bareRelay(t), func(_ *group, spec string) func() {
		following[spec] = true
		return func() { delete(following, spec) }
	})
	g.configure([]string{"dns:///fraud:8001", "192.0.2.9:1"})
	if got := addrsOf(g); !slices.Equal(got, []string{"fraud:8001", "192.0.2.9:1"}) || !following["dns:///fraud:8001"] || len(following) != 1 {
		t.Errorf("got %q, following %v", got, following)
	}
	g.set("dns:///fraud:8001", []string{"192.0.2.1:8001", "192.0.2.2:8001"})
	if got := addrsOf(g); !slices.Equal(got, []string{"192.0.2.1:8001", "192.0.2.2:8001", "192.0.2.9:1"}) {
		t.Errorf("resolved: got %q", got)
	}
	if got := o.hosts["192.0.2.2:8001"]; got != "fraud" {
		t.Errorf("TLS asks for host %q, want the name", got)
	}
	g.configure([]string{"192.0.2.9:1"})
	if len(following) != 0 {
		t.Errorf("the name is gone: still following %v", following)
	}
	g.set("dns:///fraud:8001", []string{"192.0.2.1:8001"}) // a look-up that was under way
	if got := addrsOf(g); !slices.Equal(got, []string{"192.0.2.9:1"}) {
		t.Errorf("a late look-up: got %q", got)
	}
}

func TestAddressOfTwoNamesIsOneEndpoint(t *testing.T) {
	g, o := recordedGroup(bareRelay(t), func(*group, string) func() { return func() {} })
	g.configure([]string{"dns:///a:1", "dns:///b:1"})
	g.set("dns:///a:1", []string{"192.0.2.1:1", "192.0.2.2:1"})
	g.set("dns:///b:1", []string{"192.0.2.2:1"})
	if got := addrsOf(g); !slices.Equal(got, []string{"192.0.2.1:1", "192.0.2.2:1"}) {
		t.Errorf("got %q", got)
	}
	kept := (*g.list.Load())[1]
	g.configure([]string{"dns:///b:1"})
	if got := *g.list.Load(); len(got) != 1 || got[0] != kept || o.count["192.0.2.2:1"] != 1 {
		t.Errorf("one of the names went: got %q, the shared address opened %d times", addrsOf(g), o.count["192.0.2.2:1"])
	}
}

// However the specs change: each address is one endpoint, in their order; one that
// is there before and after is the same; what goes is retired, what is closed is empty.
func TestGroupProperties(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		g, o := recordedGroup(r, func(*group, string) func() { return func() {} })
		defer g.close()
		address := rapid.SampledFrom([]string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"})
		text := rapid.SampledFrom([]string{"dns:///a:1", "dns:///b:1", "192.0.2.1:1", "192.0.2.2:1"})
		stands := map[string][]string{}
		var specs []string
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			before := map[string]*endpoint{}
			for _, e := range *g.list.Load() {
				before[e.addr] = e
			}
			if rapid.Bool().Draw(t, "configure") || len(specs) == 0 {
				old := specs
				specs = rapid.SliceOfNDistinct(text, 1, 4, rapid.ID[string]).Draw(t, "specs")
				g.configure(specs)
				for _, s := range specs {
					if !slices.Contains(old, s) {
						stands[s] = []string{addrOf(s)}
					}
				}
			} else {
				s := rapid.SampledFrom(specs).Draw(t, "spec")
				stands[s] = rapid.SliceOfNDistinct(address, 1, 4, rapid.ID[string]).Draw(t, "addresses")
				g.set(s, stands[s])
			}
			var want []string
			for _, s := range specs {
				for _, a := range stands[s] {
					if !slices.Contains(want, a) {
						want = append(want, a)
					}
				}
			}
			if got := addrsOf(g); !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			for _, e := range *g.list.Load() {
				if old := before[e.addr]; old != nil && old != e {
					t.Fatalf("%s is another endpoint now", e.addr)
				}
			}
		}
		if len(o.count) == 0 {
			t.Fatal("nothing was opened")
		}
	})
}
