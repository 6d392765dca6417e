package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	pb "sluice/proto/inference"
)

// version is one line of a document.
func version(name string, addrs ...string) string {
	return fmt.Sprintf("{name: %s, endpoints: [%s]}", name, strings.Join(addrs, ", "))
}

// routesOf is a route of versions; the first has all the weight.
func routesOf(versions ...string) string {
	first := strings.TrimPrefix(strings.Split(versions[0], ",")[0], "{name: ")
	return fmt.Sprintf("routes: [{model: fraud, versions: [%s], weights: {%s: 1}}]", strings.Join(versions, ", "), first)
}

// silent is a server that accepts connections and says nothing, so that calls wait.
func silent(t testing.TB) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		var conns []net.Conn
		for {
			nc, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, nc)
		}
		for _, nc := range conns {
			_ = nc.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		accepting.Wait()
	})
	return ln.Addr().String()
}

// waiting sends n calls and returns once they are under way in the gateway.
func (r *rig) waiting(t testing.TB, n int) (done func() []*answer) {
	t.Helper()
	before := r.inFlight()
	got := make(chan *answer, n)
	for range n {
		go func() {
			a, err := r.try(context.Background(), modelInfer, infer("fraud", ""))
			if err != nil {
				t.Error(err)
				a = new(answer)
			}
			got <- a
		}()
	}
	r.until(t, "the calls wait", func() bool { return r.inFlight() == before+n })
	return func() []*answer {
		var all []*answer
		for range n {
			all = append(all, <-got)
		}
		return all
	}
}

// inFlight counts the calls at all endpoints.
func (r *rig) inFlight() (n int) {
	for _, e := range r.director.snapshot.Load().endpoints() {
		n += int(e.inFlight.Load())
	}
	return n
}

// until waits for what has to come about.
func (r *rig) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func TestWeightsTouchNoConnection(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", s.addr), version("v8", s.addr)))
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-version") != "v7" {
		t.Fatalf("got %v %q by %q", a.code, a.message, a.one("sluice-version"))
	}
	before := r.director.snapshot.Load().endpoints()
	r.publish(2, routesOf(version("v8", s.addr), version("v7", s.addr)))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.one("sluice-version") != "v8" || a.one("sluice-revision") != "2" {
		t.Errorf("got %q of revision %q, want v8 of 2", a.one("sluice-version"), a.one("sluice-revision"))
	}
	for _, e := range r.director.snapshot.Load().endpoints() {
		if !slices.Contains(before, e) {
			t.Errorf("%s is a new endpoint", e.addr)
		}
	}
}

// What is known of an endpoint, its breaker too, stays with it when others come
// and go; another version's is not its own.
func TestEndpointsComeAndGoAlone(t *testing.T) {
	r := start(t, routesOf(version("v7", "192.0.2.1:1", "192.0.2.2:1"), version("v8", "192.0.2.2:1")))
	of := func(name string) []*endpoint {
		s := r.director.snapshot.Load()
		route, _ := s.table.Route("fraud")
		v, _ := route.Version(name)
		return *s.targets.get(v).group.list.Load()
	}
	kept := of("v7")[1]
	if kept == of("v8")[0] || kept.breaker == of("v8")[0].breaker {
		t.Error("two versions share an endpoint")
	}
	r.publish(2, routesOf(version("v7", "192.0.2.3:1", "192.0.2.2:1", "192.0.2.4:1")))
	now := of("v7")
	if len(now) != 3 || now[1] != kept {
		t.Errorf("the endpoint that stayed is another one")
	}
	guard, ok := r.director.guardOf("fraud v7")
	if !ok || guard.Endpoint("192.0.2.2:1", time.Now()) != kept.breaker {
		t.Error("the breaker of the endpoint that stayed was forgotten")
	}
	if _, ok := r.director.guardOf("fraud v8"); ok {
		t.Error("the breaker of a version that went is still there")
	}
}

// guardOf returns the breaker of a version in the current routes.
func (d *director) guardOf(id string) (*breaker.Version, bool) {
	for v, t := range d.snapshot.Load().targets.all() {
		if v.ID == id {
			return t.guard, true
		}
	}
	return nil, false
}

// Other TLS settings are other connections.
func TestTLSSettingsMakeNewConnections(t *testing.T) {
	plain := version("v7", "192.0.2.1:1")
	secure := strings.Replace(plain, "}", ", tls: {}}", 1)
	named := strings.Replace(plain, "}", ", tls: {server_name: fraud.test}}", 1)
	r := start(t, routesOf(plain))
	seen := r.director.snapshot.Load().endpoints()
	for i, v := range []string{secure, named, plain} {
		r.publish(uint64(i)+2, routesOf(v))
		e := r.director.snapshot.Load().endpoints()
		if len(e) != 1 || slices.Contains(seen, e[0]) {
			t.Errorf("%s: got the connections of before", v)
		}
		if guard, _ := r.director.guardOf("fraud v7"); guard.Endpoint("192.0.2.1:1", time.Now()) != e[0].breaker {
			t.Errorf("%s: the endpoint's breaker is not its version's", v)
		}
		seen = append(seen, e...)
	}
}

// Calls that wait for an endpoint that is taken away go to another one; that there
// were many is no reason to cut the version off.
func TestCallsOfARemovedEndpointGoToTheOthers(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", silent(t))))
	done := r.waiting(t, 20)
	r.publish(2, routesOf(version("v7", s.addr)))
	for _, a := range done() {
		if a.code != codes.OK || a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
			t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
		}
	}
	for series, n := range of(r.metrics(t), "sluice_attempts_total") {
		if strings.Contains(series, `outcome="failure"`) {
			t.Errorf("%v attempts count as failures, %s: nobody has failed", n, series)
		}
	}
}

// Calls that wait for a version that is taken away are chosen anew.
func TestCallsOfARemovedVersionAreChosenAnew(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", silent(t))))
	done := r.waiting(t, 20)
	r.publish(2, routesOf(version("v8", s.addr)))
	for _, a := range done() {
		if a.code != codes.OK || a.one("sluice-version") != "v8" || a.one("sluice-revision") != "2" || a.one("sluice-attempts") != "1" {
			t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
		}
	}
	r.publish(3, routesOf(version("v9", silent(t))))
	done = r.waiting(t, 1)
	r.publish(4, strings.Replace(routesOf(version("v9", s.addr)), "fraud", "other", 1))
	if a := done()[0]; a.code != codes.NotFound || a.info().GetReason() != "MODEL_NOT_FOUND" || a.one("sluice-revision") != "4" {
		t.Errorf("its model is gone: got %v %q, fields %v", a.code, a.message, a.header)
	}
}

// A call that a server works on is not disturbed by any change of the routes.
func TestCallsUnderWaySurviveTheirRoute(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		ok(w, r)
	})
	r := start(t, routesOf(version("v7", s.addr)))
	done := r.waiting(t, 1)
	<-begun
	old := r.director.snapshot.Load().endpoints()[0]
	r.publish(2, routesOf(version("v8", serve(t, nil).addr)))
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-version") != "v8" {
		t.Errorf("the next call: got %v %q by %q", a.code, a.message, a.one("sluice-version"))
	}
	close(finish)
	if a := done()[0]; a.code != codes.OK || a.one("sluice-version") != "v7" || a.one("sluice-revision") != "1" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	if n := old.inFlight.Load(); n != 0 {
		t.Errorf("the removed endpoint still counts %d calls", n)
	}
	r.until(t, "its connections are closed", func() bool { return old.up.Conns() == 0 })
}

// A request that took its time is routed by what holds when it can be routed.
func TestSlowRequestsFollowTheNewestRoutes(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", s.addr)))
	body, w := io.Pipe()
	sent := make(chan struct{})
	m, err := io.ReadAll(message(&pb.ModelInferRequest{ModelName: "fraud"}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.Write(m[:8])
		close(sent)
		r.until(t, "the call is open", func() bool { return r.Stats().Calls == 1 })
		r.publish(2, routesOf(version("v8", s.addr)))
		_, _ = w.Write(m[8:])
		_ = w.Close()
	}()
	a := r.call(modelInfer, body)
	<-sent
	if a.one("sluice-version") != "v8" || a.one("sluice-revision") != "2" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
}

// Under a steady load, routes may change as often as they like: no call fails.
func TestNoCallIsLostToPublishing(t *testing.T) {
	a, b, c := serve(t, nil), serve(t, nil), serve(t, nil)
	documents := []string{
		routesOf(version("v7", a.addr), version("v8", b.addr)),
		routesOf(version("v8", b.addr, c.addr)),
		routesOf(version("v7", c.addr)),
		routesOf(version("v9", a.addr, b.addr, c.addr), version("v7", c.addr)),
	}
	r := start(t, documents[0])
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := r.try(context.Background(), modelInfer, infer("fraud", ""))
				if err != nil || a.code != codes.OK {
					t.Errorf("got %v, %v", a, err)
					return
				}
			}
		})
	}
	for i := range 200 {
		r.publish(uint64(i)+2, documents[i%len(documents)])
		time.Sleep(2 * ms)
	}
	close(stop)
	callers.Wait()
}
