package redisstore_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a store until the test ends. Its waits are short.
func open(t testing.TB, url string, alter ...func(*redisstore.Config)) *redisstore.Store {
	t.Helper()
	cfg := redisstore.Config{URL: url, Block: 50 * time.Millisecond, Poll: 100 * time.Millisecond}
	for _, f := range alter {
		f(&cfg)
	}
	s, err := redisstore.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func pollOnly(cfg *redisstore.Config) { cfg.PollOnly = true }

func TestConformance(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	storetest.Run(t, func(t *testing.T) routing.Store {
		server.Do("FLUSHALL")
		return open(t, server.URL())
	})
}

func TestConformanceByPollingAlone(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	storetest.Run(t, func(t *testing.T) routing.Store {
		server.Do("FLUSHALL")
		return open(t, server.URL(), pollOnly)
	})
}
