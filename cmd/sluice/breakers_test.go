package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/storetest"
)

// TestAnOrderReachesAllGateways: one command cuts a version off everywhere, also on
// a gateway that starts later.
func TestAnOrderReachesAllGateways(t *testing.T) {
	t.Chdir(t.TempDir())
	store := storetest.StartRedis(t).URL()
	routes := writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	one := startServe(t, "--routes", routes, "--store", store)
	two := startServe(t, "--store", store)
	forced := func(s *served) bool {
		return strings.Contains(s.must(t, "breakers", "fraud"), "open (on all gateways)  forced open")
	}
	await := func(what string, s *served, want bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); forced(s) != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: forced is %v, want %v", what, !want, want)
			}
		}
	}
	one.must(t, "breaker", "open", "fraud", "v8", "--reason", "wrong answers")
	await("the gateway asked", one, true)
	await("the other one", two, true)
	await("one that starts later", startServe(t, "--store", store), true)
	two.must(t, "breaker", "reset", "fraud", "v8")
	await("the gateway asked for a reset", two, false)
	await("the one that had opened", one, false)
}

func TestBreakersAreWatched(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	for _, test := range []struct {
		format, begins, opened string
	}{
		{"table", `(?m)^fraud +v7 +all +closed`, `(?m)^\d\d:\d\d:\d\d UTC fraud v8 closed -> open: forced open \(0 calls, 0 failed, 0 overloaded, 0 slow, 0 failures in a row\)$`},
		{"json", `(?m)^\{"standing":\{"versions":`, `(?m)^\{"events":\[.*"to":"open","cause":"forced open".*$`},
	} {
		ctx, stop := context.WithCancel(t.Context())
		out, ended := new(buffer), make(chan error, 1)
		go func() {
			ended <- run(ctx, []string{"breakers", "--watch", "-o", test.format, "--admin", gateway.admin}, out, out)
		}()
		out.await(t, test.begins)
		gateway.must(t, "breaker", "open", "fraud", "v8", "--local")
		line := out.await(t, test.opened)[0]
		if test.format == "json" && !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
		gateway.must(t, "breaker", "reset", "fraud", "v8", "--local")
		out.await(t, `open -> closed: reset|"to":"closed","cause":"reset"`)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s: the watch ended with %v", test.format, err)
		}
	}
}

// TestWatchOfBreakersGoesOnWhenTheGatewayComesBack, and says that it was gone.
func TestWatchOfBreakersGoesOnWhenTheGatewayComesBack(t *testing.T) {
	t.Chdir(t.TempDir())
	routes := writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	admin := deadAddress(t)
	gateway := startServe(t, "--routes", routes, "--admin", admin)
	ctx, stop := context.WithCancel(t.Context())
	out, ended := new(buffer), make(chan error, 1)
	go func() { ended <- run(ctx, []string{"breakers", "--watch", "--admin", admin}, out, out) }()
	out.await(t, `(?m)^fraud +v7 +all`)
	if err := gateway.stop(); err != nil {
		t.Fatal(err)
	}
	out.await(t, `problem: no gateway answers`)
	startServe(t, "--routes", routes, "--admin", admin)
	out.await(t, `(?s)fraud +v7 +all.*problem: .*fraud +v7 +all`)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the watch ended with %v", err)
	}
}

// TestOpenTimeThatIsOverIsSaid: nobody has called since.
func TestOpenTimeThatIsOverIsSaid(t *testing.T) {
	for after, want := range map[time.Duration]string{time.Hour: " UTC)", -time.Second: "(the next call is a probe)"} {
		b := &adminv1.Breaker{State: "open", OpenUntil: timestamppb.New(time.Now().Add(after))}
		if got := breakerState(b); !strings.Contains(got, want) {
			t.Errorf("open until %v from now: %q, want %q", after, got, want)
		}
	}
}
