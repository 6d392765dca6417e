package redisstore_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/routing"
	"sluice/routing/storetest"
)

// Several gateways mark the same items at once: each item is fresh for one of them.
func TestAMarkIsFreshOnce(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	items := make([][]uint32, 200)
	for i := range items {
		for j := range 11 {
			items[i] = append(items[i], uint32(i*11+j)*397%(1<<20))
		}
	}
	fresh := make([]atomic.Int64, len(items))
	var all sync.WaitGroup
	for range 4 {
		store := routing.Marker(open(t, server.URL()))
		all.Go(func() {
			for at := 0; at < len(items); at += 20 {
				got, err := store.Mark(t.Context(), "m v1 7", time.Hour, items[at:at+20])
				if err != nil {
					t.Error(err)
					return
				}
				for i, is := range got {
					if is {
						fresh[at+i].Add(1)
					}
				}
			}
		})
	}
	all.Wait()
	for i := range fresh {
		if n := fresh[i].Load(); n != 1 {
			t.Errorf("item %d was fresh %d times, want once", i, n)
		}
	}
	store := routing.Marker(open(t, server.URL()))
	if got, err := store.Mark(t.Context(), "m v1 8", time.Hour, items[:1]); err != nil || !got[0] {
		t.Errorf("in another set: %v, %v, want it fresh", got, err)
	}
	if ttl := server.Do("PTTL", "{sluice}:marks:m v1 8"); ttl == "-1" || ttl == "-2" {
		t.Errorf("PTTL %s, want the set to be forgotten one day", ttl)
	}
}

// Who may not mark is told so, and the store is as well as before.
func TestMarksThatAreForbiddenDoNotMakeTheStoreUnwell(t *testing.T) {
	t.Parallel()
	acl := documented(t, gatewayUser)
	server := storetest.StartRedis(t)
	server.Do(append(acl, "-bitfield")...)
	store := open(t, "redis://"+credentials+server.Addr)
	if _, err := store.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := store.Mark(t.Context(), "s", time.Hour, [][]uint32{{1}})
	var refused *routing.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "NOPERM") {
		t.Errorf("got %v, want it refused with NOPERM", err)
	}
	if h := store.Health(); h.Err != nil || h.WriteErr != nil {
		t.Errorf("health %v, %v, want the store to be well", h.Err, h.WriteErr)
	}
}
