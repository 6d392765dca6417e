package redisstore_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

// TestVanishedKeysAreNoDeletion removes keys behind the replicas' backs. What is
// served stays and the status says why; the next change by an operator writes
// everything back, also if it comes before anybody has noticed; another replica and a
// new one then agree, and undoing that change brings back what was served.
func TestVanishedKeysAreNoDeletion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do      []string
		problem string // empty: it harms nobody
	}{
		"FLUSHALL":    {[]string{"FLUSHALL"}, "has lost its routing state"},
		"DEL head":    {[]string{"DEL", "{sluice}:head"}, "has lost its routing state"},
		"DEL routes":  {[]string{"DEL", "{sluice}:routes"}, "lacks 2 routes that nobody has deleted (m, n)"},
		"HDEL":        {[]string{"HDEL", "{sluice}:routes", "n"}, "lacks 1 routes that nobody has deleted (n)"},
		"HDEL m":      {[]string{"HDEL", "{sluice}:routes", "m"}, "lacks 1 routes that nobody has deleted (m)"},
		"DEL changes": {[]string{"DEL", "{sluice}:changes"}, ""},
	} {
		for _, noticed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/noticed=%v", name, noticed), func(t *testing.T) {
				t.Parallel()
				server := storetest.StartRedis(t)
				patience := func(cfg *redisstore.Config) {
					if !noticed {
						cfg.Poll = time.Hour
					}
				}
				a, b := startReplica(t, server.URL(), "", patience), startReplica(t, server.URL(), "", patience)
				a.mustSet(storetest.Route("m", "v1"))
				a.mustSet(storetest.Route("n", "v1"))
				a.mustSet(storetest.Route("gone", "v1"))
				c, err := a.Update(t.Context(), &routing.Update{Expected: 3, Delete: []string{"gone"}, Actor: "operator"})
				if err != nil {
					t.Fatal(err)
				}
				at := fmt.Sprint(" at ", c.GetRevision())
				b.await("n", "v1"+at)

				server.Do(test.do...)
				for _, r := range []*replica{a, b} {
					if noticed && test.problem != "" {
						r.awaitProblem(test.problem)
					}
					for _, model := range []string{"m", "n"} {
						if got := r.serving(model); got != "v1"+at {
							t.Errorf("serving %s: %s, want v1%s", model, got, at)
						}
					}
				}
				back := a.mustSet(storetest.Route("m", "v2"))
				if back.GetRevision() <= c.GetRevision() {
					t.Errorf("revision %d after %d", back.GetRevision(), c.GetRevision())
				}
				if was := back.GetRoutes()[0].GetBefore().GetVersions(); len(was) != 1 || was[0].GetName() != "v1" {
					t.Errorf("the change says that the versions were %v, want v1, which was served: undoing it must not delete the route", was)
				}
				fresh := startReplica(t, server.URL(), "")
				at = fmt.Sprint(" at ", back.GetRevision())
				for _, r := range []*replica{a, b, fresh} {
					r.await("m", "v2"+at)
					r.await("n", "v1"+at)
					r.await("gone", "nothing"+at)
					r.awaitWell()
				}
			})
		}
	}
}

// TestLossStaysVisible: a gateway that never knew the lost route cannot write it back,
// and its change must not make the others believe that all is there.
func TestLossStaysVisible(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplica(t, server.URL(), "")
	a.mustSet(storetest.Route("m", "v1"))
	a.mustSet(storetest.Route("lost", "v1"))
	server.Do("HDEL", "{sluice}:routes", "lost")
	b := startReplica(t, server.URL(), "")
	b.awaitProblem("lacks 1 entries that something other than sluice has removed")
	c := b.mustSet(storetest.Route("m", "v2"))
	at := fmt.Sprint(" at ", c.GetRevision())
	a.await("m", "v2"+at)
	a.awaitProblem("lacks 1 routes that nobody has deleted (lost)")
	b.awaitProblem("lacks 1 entries that something other than sluice has removed")
	if got := a.serving("lost"); got != "v1"+at {
		t.Errorf("serving %s, want v1%s", got, at)
	}
	a.mustSet(storetest.Route("m", "v3"))
	b.await("lost", fmt.Sprint("v1 at ", a.router.Current().Revision()))
	a.awaitWell()
	b.awaitWell()
}

// TestHeadSetBackByHand, while the history goes on to what is served: that is no
// failover, so nobody guesses. Changes fail at once and say what to do.
func TestHeadSetBackByHand(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplica(t, server.URL(), "")
	first := a.mustSet(storetest.Route("m", "v1"))
	a.mustSet(storetest.Route("m", "v2"))
	server.Do("HSET", "{sluice}:head", "revision", "1", "id", first.GetId())
	if _, err := a.set(storetest.Route("m", "v3")); err == nil || !strings.Contains(err.Error(), "remove the head") {
		t.Errorf("Update = %v, want what to do about the head", err)
	}
	a.awaitProblem("something other than sluice has set it back")
	if got := a.serving("m"); got != "v2 at 2" {
		t.Errorf("serving %s, want v2 at 2", got)
	}
	server.Do("DEL", "{sluice}:head")
	c := a.mustSet(storetest.Route("m", "v3"))
	a.await("m", fmt.Sprint("v3 at ", c.GetRevision()))
	a.awaitWell()
}

// TestLostRoutesCanBeDeleted: what the store has lost is deleted as what it was,
// also if another route of the store has taken over its service meanwhile.
func TestLostRoutesCanBeDeleted(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplica(t, server.URL(), "")
	a.mustSet(storetest.Route("m", "v1"))
	lost := storetest.Route("lost", "v1")
	lost.Services = []string{"pkg.S"}
	for i, taken := range []bool{false, true} {
		before := a.mustSet(lost)
		server.Do("HDEL", "{sluice}:routes", "lost")
		a.awaitProblem("nobody has deleted (lost)")
		if taken {
			other := storetest.Route("other", "v1")
			other.Services = lost.GetServices()
			b := startReplica(t, server.URL(), "") // which never knew the lost route
			c := b.mustSet(other)
			b.stop()
			a.await("m", fmt.Sprint("v1 at ", c.GetRevision()))
		}
		c, err := a.Update(t.Context(), &routing.Update{
			Expected: a.router.Current().Revision(), Delete: []string{"lost"}, Actor: "operator",
		})
		if err != nil {
			t.Fatalf("%d: deleting a lost route after revision %d: %v", i, before.GetRevision(), err)
		}
		if was := c.GetRoutes()[0].GetBefore(); (was == nil) != taken {
			t.Errorf("%d: the change says that the route was %v", i, was)
		}
		a.await("lost", fmt.Sprint("nothing at ", c.GetRevision()))
	}
}

// TestSeedOfAnEmptiedStoreIsOverruled: after FLUSHALL a new gateway finds the
// store empty and writes its file of routes. Those that know better serve on what
// they did, and write that back, so that all agree.
func TestSeedOfAnEmptiedStoreIsOverruled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do      []string
		changes int // before the seed
	}{
		"FLUSHALL":                      {[]string{"FLUSHALL"}, 4},
		"DEL head":                      {[]string{"DEL", "{sluice}:head"}, 4},
		"FLUSHALL where all were seeds": {[]string{"FLUSHALL"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := storetest.StartRedis(t)
			file := func(cfg *routing.WatcherConfig) {
				cfg.Seed, cfg.SeedFile = &routingv1.Document{Routes: []*routingv1.Route{
					storetest.Route("m", "seed"), storetest.Route("gone", "seed"), storetest.Route("only", "seed"),
				}}, "routes.yaml"
			}
			a := startReplicaWith(t, server.URL(), "", func(cfg *routing.WatcherConfig) {
				cfg.Seed, cfg.SeedFile = &routingv1.Document{Routes: []*routingv1.Route{
					storetest.Route("m", "v1"), storetest.Route("n", "v1"), storetest.Route("gone", "v1"),
				}}, "routes.yaml"
			})
			b := startReplica(t, server.URL(), "")
			last := uint64(1)
			want := map[string]string{"m": "v1", "n": "v1", "gone": "v1", "only": "nothing"}
			if test.changes > 0 {
				a.mustSet(storetest.Route("m", "v2"))
				a.mustSet(storetest.Route("m", "v3"))
				c, err := a.Update(t.Context(), &routing.Update{Expected: 3, Delete: []string{"gone"}, Actor: "operator"})
				if err != nil {
					t.Fatal(err)
				}
				last, want["m"], want["gone"] = c.GetRevision(), "v3", "nothing"
			}
			b.await("m", fmt.Sprint(want["m"], " at ", last))
			server.Do(test.do...)
			fresh := startReplicaWith(t, server.URL(), "", file)
			all := []*replica{a, b, fresh}
			storetest.Eventually(t, "the store is in a new epoch", func() bool {
				return a.Status().Epoch == 2 && a.Status().Revision > last
			})
			at := fmt.Sprint(" at ", a.Status().Revision)
			for _, r := range all {
				for model, version := range want {
					r.await(model, version+at)
				}
				r.awaitWell()
			}
			epoch := storetest.History(t, a.store, routing.HistoryQuery{Limit: 1})[0]
			if epoch.GetActor() != routing.ActorFailover || len(epoch.GetLost()) == 0 {
				t.Errorf("newest change %v, want the loss named", epoch)
			}
			for _, r := range epoch.GetRoutes() {
				if r.GetModel() == "n" && r.GetBefore() == nil {
					t.Error("undoing the change would delete n, which was served all the time")
				}
			}
		})
	}
}

// TestFailoverToTheSeedIsALoss, not an emptied store: what the store says is what
// is served.
func TestFailoverToTheSeedIsALoss(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	a := startReplicaWith(t, server.URL(), "", func(cfg *routing.WatcherConfig) {
		cfg.Seed, cfg.SeedFile = &routingv1.Document{Routes: []*routingv1.Route{storetest.Route("m", "seed")}}, "routes.yaml"
	})
	server.Do("SAVE")
	a.mustSet(storetest.Route("m", "lost"))
	loseAcknowledged(server)
	a.await("m", "seed at 3")
	a.awaitWell()
}

// loseAcknowledged makes the server forget what was changed since it last saved.
func loseAcknowledged(server *storetest.Redis) {
	server.Kill()
	server.Start() // reads the dump
}

// TestLossIsWrittenIntoHistory loses two changes of three replicas: one of them
// writes a new epoch above all revisions, the store's documents are kept, the
// lost ones are named and kept on disk.
func TestLossIsWrittenIntoHistory(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	caches := t.TempDir()
	var all []*replica
	for i := range 3 {
		all = append(all, startReplica(t, server.URL(), filepath.Join(caches, fmt.Sprint(i))))
	}
	all[0].mustSet(storetest.Route("m", "v1"))
	server.Do("SAVE")
	lost := []*routingv1.Change{all[0].mustSet(storetest.Route("m", "v2"))}
	all[1].await("m", "v2 at 2")
	lost = append(lost, all[1].mustSet(storetest.Route("new", "v1")))
	for _, r := range all {
		r.await("new", "v1 at 3")
	}
	loseAcknowledged(server)

	for _, r := range all {
		r.await("m", "v1 at 4") // what the store has
		r.awaitProblem("lacks 1 routes that nobody has deleted (new)")
		if s := r.Status(); s.Counts.LostChanges != 2 || len(s.Missing) != 1 {
			t.Errorf("%d changes lost and %v missing, want 2 and one", s.Counts.LostChanges, s.Missing)
		}
		if got := r.serving("new"); got != "v1 at 4" {
			t.Errorf("serving new: %s, want v1 at 4: the store does not say that it was deleted", got)
		}
	}
	history := storetest.History(t, all[0].store, routing.HistoryQuery{})
	if len(history) != 2 {
		t.Fatalf("history %v, want the first change and the epoch's", history)
	}
	epoch := history[0]
	if epoch.GetActor() != routing.ActorFailover || epoch.GetEpoch() != 2 || epoch.GetRevision() != 4 || epoch.GetPredecessorRevision() != 1 {
		t.Errorf("epoch %v, want revision 4 of epoch 2 by %s", epoch, routing.ActorFailover)
	}
	var ids []string
	for _, l := range epoch.GetLost() {
		ids = append(ids, l.GetId())
	}
	if want := []string{lost[0].GetId(), lost[1].GetId()}; !slices.Equal(ids, want) {
		t.Errorf("lost are %v, want %v", ids, want)
	}
	kept, err := filepath.Glob(filepath.Join(caches, "*", "lost-3-*.yaml"))
	if err != nil || len(kept) != len(all) {
		t.Fatalf("lost documents in %v, %v, want a file of each replica", kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	doc, err := routing.Parse(kept[0], text)
	if err != nil || len(doc.GetRoutes()) != 2 {
		t.Errorf("%s holds %v, %v, want both lost documents, ready to be applied", kept[0], doc, err)
	}

	// The operator applies them again.
	c, err := all[2].Update(t.Context(), &routing.Update{Expected: 4, Set: doc.GetRoutes(), Actor: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(all, startReplica(t, server.URL(), "")) {
		r.await("m", fmt.Sprint("v2 at ", c.GetRevision()))
		r.await("new", fmt.Sprint("v1 at ", c.GetRevision()))
		r.awaitWell()
	}
}

// TestLossShowsWhenNumbersHaveCaughtUp: while a gateway was away, the store lost
// a change that it had seen, and went on with others.
func TestLossShowsWhenNumbersHaveCaughtUp(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]int{"behind": 0, "level": 1, "ahead": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := storetest.StartRedis(t)
			cache := filepath.Join(t.TempDir(), "cache")
			a := startReplica(t, server.URL(), cache)
			a.mustSet(storetest.Route("m", "v1"))
			server.Do("SAVE")
			lost := a.mustSet(storetest.Route("m", "lost"))
			a.stop()
			loseAcknowledged(server)
			b := startReplica(t, server.URL(), "")
			for i := range others {
				b.mustSet(storetest.Route("n", fmt.Sprint("v", i)))
			}

			back := startReplica(t, server.URL(), cache)
			at := fmt.Sprint(" at ", max(2, 1+others)+1)
			for _, r := range []*replica{back, b} {
				r.await("m", "v1"+at)
				r.awaitWell()
			}
			epoch := storetest.History(t, b.store, routing.HistoryQuery{Limit: 1})[0]
			if epoch.GetActor() != routing.ActorFailover || len(epoch.GetLost()) != 1 || epoch.GetLost()[0].GetId() != lost.GetId() ||
				epoch.GetLost()[0].GetActor() != "operator" || !slices.Equal(epoch.GetLost()[0].GetModels(), []string{"m"}) {
				t.Errorf("newest change %v, want it to name %s", epoch, lost.GetId())
			}
			back.stop()
			again := startReplica(t, server.URL(), cache)
			again.await("m", "v1"+at)
			again.awaitWell()
			if n := len(storetest.History(t, b.store, routing.HistoryQuery{})); n != 1+others+1 {
				t.Errorf("%d changes, want no second epoch", n)
			}
		})
	}
}

// TestTwoReplicasLoseDifferentChanges: each has seen what the other has not, and
// in the end both are named and all agree.
func TestTwoReplicasLoseDifferentChanges(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	cache := filepath.Join(t.TempDir(), "cache")
	a := startReplica(t, server.URL(), "")
	a.mustSet(storetest.Route("m", "v1"))
	server.Do("SAVE")
	b := startReplica(t, server.URL(), cache)
	first := a.mustSet(storetest.Route("m", "v2"))
	b.await("m", "v2 at 2")
	b.stop()
	second := a.mustSet(storetest.Route("m", "v3"))
	loseAcknowledged(server)
	a.await("m", "v1 at 4")
	b = startReplica(t, server.URL(), cache)
	b.await("m", "v1 at 4")
	a.awaitWell()
	b.awaitWell()
	epochs := storetest.History(t, a.store, routing.HistoryQuery{From: 2})
	if len(epochs) != 1 || len(epochs[0].GetLost()) != 2 || epochs[0].GetLost()[0].GetId() != first.GetId() || epochs[0].GetLost()[1].GetId() != second.GetId() {
		t.Errorf("changes %v, want one epoch that names both", epochs)
	}
}

// TestSentinelFailover lets a replica that is behind become the primary.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	primary := storetest.StartRedis(t)
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	secondary := storetest.StartRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	sentinel := storetest.StartSentinel(t, primary)
	sentinel.Do(documented(t, `(?m)^(ACL SETUSER watcher .*)$`)...)
	url := "redis+sentinel://" + sentinel.Addr + "/primary?sentinel_user=watcher&sentinel_password=p%40ss%2Fw%3Ard"
	a, b := startReplica(t, url, ""), startReplica(t, url, "")
	a.mustSet(storetest.Route("m", "v1"))
	b.await("m", "v1 at 1")
	storetest.Eventually(t, "the secondary has caught up", func() bool {
		return secondary.Do("HGET", "{sluice}:head", "revision") == "1"
	})
	storetest.Eventually(t, "sentinel knows the secondary", func() bool {
		return sentinel.Do("SENTINEL", "REPLICAS", "primary") == "1"
	})
	secondary.Hang()
	primary.Do("CLIENT", "KILL", "TYPE", "replica") // or the change would lie in a socket's buffer
	a.mustSet(storetest.Route("m", "lost"))
	b.await("m", "lost at 2")
	primary.Kill()
	secondary.Resume()

	a.await("m", "v1 at 3")
	b.await("m", "v1 at 3")
	a.awaitWell()
	b.awaitWell()
	epoch := storetest.History(t, a.store, routing.HistoryQuery{Limit: 1})[0]
	if epoch.GetActor() != routing.ActorFailover || len(epoch.GetLost()) != 1 {
		t.Errorf("newest change %v, want the loss named", epoch)
	}
	begun := time.Now()
	b.mustSet(storetest.Route("m", "v2"))
	a.await("m", "v2 at 4")
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("a change took %v after the failover", took)
	}
}
