package redisstore_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

// TestHistoryIsBoundedInBytes: changes of many routes push older ones out by their size, and
// a change that is too large for itself stays alone.
func TestHistoryIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	const bound = 64 << 10
	s, err := redisstore.Open(redisstore.Config{URL: server.URL(), MaxBytes: bound})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 1)) // so that nothing is compressed away
	change := func(bytes int) {
		u := &routing.Update{Expected: storetest.Load(t, s).Revision}
		for n := 0; bytes > 0; n++ {
			r := storetest.Route(fmt.Sprintf("model-%04d", n), "v1")
			for range 10 {
				r.Versions[0].Endpoints = append(r.Versions[0].Endpoints, fmt.Sprintf("h%016x%016x.example:%d", random.Uint64(), random.Uint64(), len(r.Versions[0].Endpoints)+1))
			}
			u.Set, bytes = append(u.Set, r), bytes-500
		}
		storetest.Update(t, s, u)
	}
	length := func() int {
		n, err := strconv.Atoi(server.Do("XLEN", "{sluice}:changes"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 5 {
		change(5 << 10)
	}
	few := length()
	for range 20 {
		change(5 << 10)
	}
	memory, err := strconv.Atoi(server.Do("MEMORY", "USAGE", "{sluice}:changes"))
	if err != nil {
		t.Fatal(err)
	}
	if n := length(); few != 5 || n < 4 || n > 20 || memory > 2*bound {
		t.Errorf("%d changes and then %d, of %d bytes: want all, and then what fits %d bytes", few, n, memory, bound)
	}
	change(4 * bound) // half of it is compressed away
	if n := length(); n != 1 {
		t.Errorf("%d changes after one that is too large, want that one", n)
	}
	storetest.Set(t, s, storetest.Route("small", "v1"))
	storetest.Set(t, s, storetest.Route("small", "v2"))
	changes := storetest.History(t, s, routing.HistoryQuery{})
	if len(changes) != 2 || changes[0].GetRevision() != 28 || changes[1].GetPredecessorRevision() != 26 {
		t.Errorf("the history has %d changes, want the two small ones", len(changes))
	}
}

// TestForeignTotalsAreNoTrouble: what somebody else has put into an entry, or older entries
// lack, does not keep a change from being made.
func TestForeignTotalsAreNoTrouble(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	s := open(t, server.URL())
	storetest.Set(t, s, storetest.Route("m", "v1"))
	for i, total := range []string{"-5", "many", "9223372036854775807", strings.Repeat("9", 40)} {
		server.Do("XADD", "{sluice}:changes", fmt.Sprintf("%d-1", i+1), "total", total)
		storetest.Set(t, s, storetest.Route("m", fmt.Sprint("w", i)))
	}
	last := storetest.Update(t, s, &routing.Update{Expected: 5, Set: []*routingv1.Route{storetest.Route("m", "v2")}})
	if got := storetest.History(t, s, routing.HistoryQuery{Limit: 1}); len(got) != 1 || got[0].GetId() != last.GetId() {
		t.Errorf("the history ends with %v, want the last change", got)
	}
}
