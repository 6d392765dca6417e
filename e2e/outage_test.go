package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"sluice/gateway/admin"
	"sluice/routing/storetest"
)

// durable is a Redis that keeps what it has acknowledged.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// TestTroubleWithRedisHarmsNoCall has two gateways share a Redis that dies, hangs,
// forgets and refuses, one after the other, while calls flow through both. No call
// fails. A change fails within 2 s and says why; so do status and metrics.
// Afterwards both serve what either is told.
func TestTroubleWithRedisHarmsNoCall(t *testing.T) {
	for name, refusing := range map[string]bool{"away or empty": false, "refusing": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testTrouble(t, refusing)
		})
	}
}

// testTrouble goes through the troubles in which Redis refuses, or through the
// others.
func testTrouble(t *testing.T, refusing bool) {
	redis := storetest.StartRedis(t, slices.Concat(durable, []string{"--user", "gw", "on", ">secret", "~*", "+@all"})...)
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	store := "redis://gw:secret@" + redis.Addr
	a := startShared(t, store, split(v1, v2, 1, 1000))
	b := startShared(t, store, "")
	b.awaitV1(1)
	l := startLoad(model, 2, dial(t, a.data), dial(t, b.data))

	const updates = `sluice_store_errors_total{op="update",reason=%q}`
	for i, trouble := range []struct {
		name       string
		begin, end func()
		code       connect.Code
		reasons    []string // of ErrorInfo, any of them
		word       string   // of the store
		problem    string   // in the status
		series     string   // of /metrics that is above what it was before
	}{
		{"killed", redis.Kill, redis.Start, connect.CodeUnavailable, []string{admin.ReasonStoreUnavailable}, "",
			redis.Addr + " is not available", fmt.Sprintf(updates, "UNAVAILABLE")},
		{"hung", redis.Hang, redis.Resume, connect.CodeUnavailable, []string{admin.ReasonStoreUnavailable, admin.ReasonOutcomeUnknown}, "",
			redis.Addr, `sluice_store_errors_total{op="follow",reason="UNAVAILABLE"}`},
		{"READONLY", command(redis, "REPLICAOF 127.0.0.1 1"), command(redis, "REPLICAOF NO ONE"),
			connect.CodeFailedPrecondition, []string{admin.ReasonStoreRefused}, "READONLY", "READONLY", fmt.Sprintf(updates, "READONLY")},
		{"OOM", command(redis, "CONFIG SET maxmemory 1"), command(redis, "CONFIG SET maxmemory 0"),
			connect.CodeFailedPrecondition, []string{admin.ReasonStoreRefused}, "OOM", "OOM", fmt.Sprintf(updates, "OOM")},
		{"revoked ACL", command(redis, "ACL SETUSER gw -@all"), command(redis, "ACL SETUSER gw +@all"),
			connect.CodeFailedPrecondition, []string{admin.ReasonStoreRefused}, "NOPERM", "NOPERM", fmt.Sprintf(updates, "NOPERM")},
		{"FLUSHALL", command(redis, "FLUSHALL"), func() {}, 0, nil, "", "has lost its routing state", "sluice_state_missing_routes"},
		{"DEL", command(redis, "DEL {sluice}:routes"), func() {}, 0, nil, "", "nobody has deleted (penguins)", "sluice_state_missing_routes"},
	} {
		if (trouble.code == connect.CodeFailedPrecondition) != refusing {
			continue
		}
		weight := uint32(10 * (i + 1))
		before, _, err := a.serves()
		if err != nil {
			t.Fatal(err)
		}
		counted := 0.0
		if trouble.series != "" {
			counted = a.metric(trouble.series)
		}
		trouble.begin()
		if trouble.code != 0 {
			begun := time.Now()
			_, err := a.setV1(weight)
			code, info := adminRefusal(err)
			if code != trouble.code || !strings.Contains(strings.Join(trouble.reasons, " "), info.GetReason()) || info.GetMetadata()["store_reason"] != trouble.word {
				t.Errorf("%s: a change fails with %v (%v), want %v, %v %s", trouble.name, err, info, trouble.code, trouble.reasons, trouble.word)
			}
			if took := time.Since(begun); took > 2*time.Second+500*time.Millisecond { // half a second for a busy machine
				t.Errorf("%s: a change took %v to fail", trouble.name, took)
			}
			if got, _, err := a.serves(); err != nil || got != before {
				t.Errorf("%s: v1=%d is served, %v, want v1=%d, the last good one", trouble.name, got, err, before)
			}
		}
		a.awaitProblem(trouble.problem)
		if trouble.series != "" {
			eventually(t, 20*time.Second, fmt.Sprintf("%s: %s is above %v", trouble.name, trouble.series, counted), func() error {
				if now := a.metric(trouble.series); now <= counted {
					return fmt.Errorf("it is %v", now)
				}
				return nil
			})
		}
		trouble.end()
		eventually(t, 20*time.Second, trouble.name+": a change is made again", func() error {
			_, err := a.setV1(weight)
			return err
		})
		b.awaitV1(weight)
		for _, g := range []*shared{a, b} {
			g.awaitProblem("")
			if !g.standing().GetFollowing() || g.metric("sluice_store_up") != 1 || g.metric("sluice_state_missing_routes") != 0 {
				t.Errorf("%s: a gateway is not well: %v", trouble.name, g.standing())
			}
		}
		if t.Failed() {
			break // what comes next would fail because of this
		}
	}
	t.Logf("%d calls went on", l.stop(t))
	if text := a.out.String() + b.out.String(); strings.Contains(text, "secret") {
		t.Error("the password is in a log")
	}
}

// command sends one command when it is called.
func command(redis *storetest.Redis, text string) func() {
	return func() { redis.Do(strings.Fields(text)...) }
}
