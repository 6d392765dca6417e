package routing_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
)

// TestFileIsAnActorLikeOthers: what is new in the file is a change of the store,
// and only that.
func TestFileIsAnActorLikeOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	write(t, path, routesFile("v1", "m", "n"))
	doc, err := routing.Parse(path, []byte(routesFile("v1", "m", "n")))
	if err != nil {
		t.Fatal(err)
	}
	w := startWatcher(t, memstore.New(memstore.Config{}), seed(doc.GetRoutes()...))
	source := routing.NewFileSource(routing.FileConfig{
		Path: path, Watcher: w.Watcher, Settle: time.Millisecond, Poll: 10 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	followed{source, w}.run(t)

	replace(t, path, routesFile("v2", "m", "o"))
	storetest.Eventually(t, "the new file served", func() bool { return slices.Equal(w.models(), []string{"m", "o"}) })
	c := storetest.History(t, w.store, routing.HistoryQuery{Limit: 1})[0]
	if c.GetRevision() != 2 || c.GetActor() != routing.ActorFile || !strings.Contains(c.GetReason(), path) || len(c.GetRoutes()) != 3 {
		t.Errorf("change %v, want revision 2 by the file, of m, n and o", c)
	}
	if entry := storetest.Load(t, w.store).Routes["n"]; entry == nil || entry.GetRoute() != nil {
		t.Errorf("n is %v, want a tombstone", entry)
	}

	// An operator's change stays while the file says nothing new.
	w.update(t, &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v3")}})
	replace(t, path, "# another comment\n"+routesFile("v2", "m", "o"))
	source.Reload()
	storetest.Eventually(t, "the file read", func() bool { return w.log.count("routes are as published") == 1 })
	if r, _ := w.router.Current().Route("m"); r.Versions[0].Name != "v3" {
		t.Errorf("serving %s, want the operator's v3", r.Versions[0].Name)
	}

	replace(t, path, routesFile("v 4", "m"))
	storetest.Eventually(t, "the bad file refused", func() bool { return source.Status().Err != nil })
	if w.router.Current().Revision() != 3 {
		t.Errorf("at revision %d, want 3", w.router.Current().Revision())
	}
	replace(t, path, routesFile("v4", "m"))
	storetest.Eventually(t, "the good file served", func() bool { return slices.Equal(w.models(), []string{"m"}) })
	storetest.Eventually(t, "the file well", func() bool { return source.Status().Err == nil && source.Status().Revision == 4 })
}
