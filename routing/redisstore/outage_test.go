package redisstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

func TestChangesReachAllReplicas(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a, b := startReplica(t, server.URL(), ""), startReplica(t, server.URL(), "", pollOnly)
	a.mustSet(storetest.Route("m", "v1"))
	b.await("m", "v1 at 1")
	b.mustSet(storetest.Route("m", "v2"))
	if got := b.serving("m"); got != "v2 at 2" {
		t.Errorf("after its own change a replica serves %s, want v2 at 2", got)
	}
	a.await("m", "v2 at 2")
	a.awaitWell()
	b.awaitWell()
}

// TestRedisGoneAndBack kills and then stops the server: what is served stays,
// changes fail soon and say why, and afterwards all is as before.
func TestRedisGoneAndBack(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t, durable...)
	a, b := startReplica(t, server.URL(), ""), startReplica(t, server.URL(), "")
	a.mustSet(storetest.Route("m", "v1"))
	b.await("m", "v1 at 1")
	for i, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"killed", server.Kill, server.Start},
		{"hung", server.Hang, server.Resume},
	} {
		outage.begin()
		begun := time.Now()
		_, err := a.set(storetest.Route("m", "lost"))
		var unavailable *routing.UnavailableError
		if took := time.Since(begun); !errors.As(err, &unavailable) || took > 2*time.Second || !strings.Contains(err.Error(), server.URL()) {
			t.Errorf("%s: Update = %v after %v, want within 2 s that %s is not available", outage.name, err, took, server.URL())
		}
		a.awaitProblem("redis://")
		b.awaitProblem("redis://")
		status := b.Status()
		if status.Following || status.Source != routing.FromStore || status.Age() <= 0 {
			t.Errorf("%s: status %+v, want the store's state, not followed, and its age", outage.name, status)
		}
		outage.end()
		a.awaitWell()
		b.awaitWell()
		if n := b.Status().Counts; n.Reconnects != uint64(i+1) || n.Errors[routing.StoreError{Op: routing.OpFollow, Reason: routing.ReasonUnavailable}] == 0 {
			t.Errorf("%s: counts %+v, want failures to follow, and %d times followed again", outage.name, n, i+1)
		}
		if n := strings.Count(b.log.String(), "is not being followed"); n != i+1 {
			t.Errorf("%s: the log says so %d times in all, want once per outage", outage.name, n)
		}
		if i == 0 {
			for _, r := range []*replica{a, b} {
				if got := r.serving("m"); got != "v1 at 1" {
					t.Errorf("%s: serving %s, want v1 at 1", outage.name, got)
				}
			}
		}
		c := a.mustSet(storetest.Route("m", outage.name))
		b.await("m", fmt.Sprint(outage.name, " at ", c.GetRevision()))
	}
}

// TestAgeCountsFromTheLastAnswer, not from the last change: after a quiet time, the
// state of a gateway whose store has just gone is not old, nor that of one that is
// started from what another has left when it crashed.
func TestAgeCountsFromTheLastAnswer(t *testing.T) {
	t.Parallel()
	const quiet = 4 * time.Second
	server := storetest.StartRedis(t, durable...)
	cache := filepath.Join(t.TempDir(), "cache")
	often := func(cfg *routing.WatcherConfig) { cfg.ConfirmEvery = 50 * time.Millisecond }
	a := startReplicaWith(t, server.URL(), cache, often, func(cfg *redisstore.Config) { cfg.Block = 50 * time.Millisecond })
	a.mustSet(storetest.Route("m", "v1"))
	time.Sleep(quiet)
	var crashed string
	storetest.Eventually(t, "a copy", func() bool { // a file that is there for a moment alone may be listed, and gone
		crashed = t.TempDir()
		return os.CopyFS(crashed, os.DirFS(cache)) == nil
	})
	gone := time.Now()
	server.Kill()
	storetest.Eventually(t, "the store is missed", func() bool { return !a.Status().Following })
	b := startReplica(t, server.URL(), crashed)
	for what, s := range map[string]routing.Status{"running": a.Status(), "started from a crashed one's cache": b.Status()} {
		if before := gone.Sub(s.ConfirmedAt); before > quiet/2 || s.ConfirmedAt.After(time.Now()) {
			t.Errorf("%s: confirmed %v before the store went, want the time of its last answer", what, before)
		}
	}
	confirmed := a.Status().ConfirmedAt
	time.Sleep(100 * time.Millisecond)
	if again := a.Status().ConfirmedAt; !again.Equal(confirmed) {
		t.Errorf("confirmed at %v and then at %v, without a store", confirmed, again)
	}
}

// TestStartWithoutRedis starts from what is on disk, or else is not ready; and
// takes up what Redis says once it is back.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t, durable...)
	cached, bare := filepath.Join(t.TempDir(), "cached"), filepath.Join(t.TempDir(), "bare")
	first := startReplica(t, server.URL(), cached)
	first.mustSet(storetest.Route("m", "v1"))
	first.mustSet(storetest.Route("n", "v1"))
	first.stop()
	server.Kill()

	begun := time.Now()
	a, b := startReplica(t, server.URL(), cached), startReplica(t, server.URL(), bare)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("starts took %v", took)
	}
	if s := a.Status(); a.serving("m") != "v1 at 2" || s.Source != routing.FromCache || s.Age() <= 0 || s.Err == nil || !s.Ready() {
		t.Errorf("with a cache: serving %s, status %+v, want v1 at 2 from the cache, its age and what is wrong", a.serving("m"), s)
	}
	if s := b.Status(); s.Ready() || s.Err == nil || b.router.Current().Revision() != 0 {
		t.Errorf("without: status %+v, want it not ready", s)
	}
	if _, err := a.set(storetest.Route("m", "v2")); err == nil {
		t.Error("a change was made without Redis")
	}
	server.Start()
	a.awaitWell()
	b.await("m", "v1 at 2")
	if s := a.Status(); s.Source != routing.FromStore {
		t.Errorf("status %+v, want the store as the source", s)
	}
	a.mustSet(storetest.Route("m", "v2"))
	b.await("m", "v2 at 3")
}

// TestDamagedCacheIsDetected, whatever became of the file.
func TestDamagedCacheIsDetected(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	cache := filepath.Join(t.TempDir(), "cache")
	first := startReplica(t, server.URL(), cache)
	first.mustSet(storetest.Route("m", "v1"))
	first.stop()
	server.Kill()
	name := filepath.Join(cache, "state")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)-3] ^= 1
	for what, content := range map[string][]byte{
		"cut short": whole[:len(whole)-1], "almost empty": whole[:10], "empty": {}, "altered": flipped,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := startReplica(t, server.URL(), cache)
		s := r.Status()
		if s.Ready() || s.CacheErr == nil || !strings.Contains(s.CacheErr.Error(), name) {
			t.Errorf("%s: status %+v, want it not ready and the file named", what, s)
		}
		r.stop()
	}
}

// TestRefusals: Redis is there and will not take a change.
func TestRefusals(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	server.Do("ACL", "SETUSER", "gw", "on", ">secret", "~*", "+@all")
	r := startReplica(t, "redis://gw:secret@"+server.Addr, "")
	r.mustSet(storetest.Route("m", "v1"))
	for i, test := range []struct {
		reason   string
		do, undo []string
	}{
		{"READONLY", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
		{"OOM", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		{"NOPERM", []string{"ACL", "SETUSER", "gw", "-hset"}, []string{"ACL", "SETUSER", "gw", "+hset"}},
		{"NOPERM", []string{"ACL", "SETUSER", "gw", "-@all"}, []string{"ACL", "SETUSER", "gw", "+@all"}},
		{"NOREPLICAS", []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
		{"WRONGPASS", []string{"ACL", "SETUSER", "gw", "off", "resetpass"}, []string{"ACL", "SETUSER", "gw", "on", ">secret"}},
	} {
		before := r.serving("m")
		server.Do(test.do...)
		if test.reason == "WRONGPASS" {
			server.Do("CLIENT", "KILL", "USER", "gw")
		}
		begun := time.Now()
		next := storetest.Route("m", fmt.Sprint(test.reason, i))
		_, err := r.set(next)
		var refused *routing.RefusedError
		if !errors.As(err, &refused) || refused.Reason != test.reason || time.Since(begun) > 2*time.Second {
			t.Errorf("%v: Update = %v, want %s within 2 s", test.do, err, test.reason)
		}
		r.awaitProblem(test.reason)
		if n := r.Status().Counts.Errors[routing.StoreError{Op: routing.OpUpdate, Reason: test.reason}]; n == 0 {
			t.Errorf("%v: no failed update is counted as %s", test.do, test.reason)
		}
		if got := r.serving("m"); got != before {
			t.Errorf("%v: serving %s, want %s", test.do, got, before)
		}
		if strings.Contains(err.Error()+r.log.String(), "secret") {
			t.Errorf("%v: the password is in the log or in %v", test.do, err)
		}
		server.Do(test.undo...)
		storetest.Eventually(t, "the change succeeds again", func() bool {
			_, err := r.set(next)
			return err == nil
		})
		r.awaitWell()
	}
}
