package admin_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/storetest"
)

// longHistory is a store with more changes than one answer may hold.
type longHistory struct {
	admin.Watcher
	changes int
	route   *routingv1.Route
}

func (l *longHistory) History(_ context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	found := routing.NewFound(q)
	for n := l.changes; n > 0; n-- {
		found.Add(&routingv1.Change{Revision: uint64(n), Routes: []*routingv1.RouteChange{{Model: "big", Before: l.route, After: l.route}}})
	}
	return found.Changes, nil
}

// TestHistoryComesInPiecesThatFit: an answer ends before it is too large, and says where
// the next one begins.
func TestHistoryComesInPiecesThatFit(t *testing.T) {
	big := storetest.Route("big", "v1")
	big.Versions[0].Endpoints = []string{strings.Repeat("a", 500<<10)} // few and long: it is the length that counts here
	const changes = 40                                                 // of 1 MB each
	r := newRig(t, func(c *admin.Config) { c.Watcher = &longHistory{c.Watcher, changes, big} })
	var seen []uint64
	before, pages := uint64(0), 0
	for {
		resp, err := r.client.History(t.Context(), &adminv1.HistoryRequest{Model: "big", Limit: 1000, Before: before})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(resp); size > 17<<20 {
			t.Errorf("an answer has %d bytes, want about 16 MiB at most", size)
		}
		for _, c := range resp.GetChanges() {
			seen = append(seen, c.GetRevision())
		}
		pages++
		if before = resp.GetNext(); before == 0 {
			break
		}
	}
	if pages < 3 || len(seen) != changes {
		t.Errorf("%d changes in %d pages, want %d in several", len(seen), pages, changes)
	}
	for i, revision := range seen {
		if revision != uint64(changes-i) {
			t.Fatalf("revisions %v, want each once, the newest first", seen)
		}
	}
}

// TestHistoryWithoutDocuments has the names of all routes.
func TestHistoryWithoutDocuments(t *testing.T) {
	r := newRig(t)
	doc := new(routingv1.Document)
	for i := range 5 {
		doc.Routes = append(doc.Routes, &routingv1.Route{Model: fmt.Sprint("m", i), Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}})
	}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("anna"), Document: doc}); err != nil {
		t.Fatal(err)
	}
	for documents, want := range map[uint32]string{0: "m0* m1* m2* m3* m4*", 2: "m0* m1* m2 m3 m4"} {
		resp, err := r.client.History(t.Context(), &adminv1.HistoryRequest{Limit: 1, Documents: documents})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range resp.GetChanges()[0].GetRoutes() {
			name := c.GetModel()
			if c.GetAfter() != nil {
				name += "*"
			}
			got = append(got, name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("with %d documents: %s, want %s", documents, strings.Join(got, " "), want)
		}
	}
}

// slowHistory is a store whose history takes its time.
type slowHistory struct {
	admin.Watcher
	now, most atomic.Int64
}

func (s *slowHistory) History(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	for end := time.Now().Add(20 * time.Second); s.most.Load() < 2 && time.Now().Before(end); { // the next one comes, if it may
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	return s.Watcher.History(ctx, q)
}

// TestFewReadTheHistoryAtOnce, and all come to their turn.
func TestFewReadTheHistoryAtOnce(t *testing.T) {
	slow := new(slowHistory)
	r := newRig(t, func(c *admin.Config) { slow.Watcher = c.Watcher; c.Watcher = slow })
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := r.client.History(t.Context(), &adminv1.HistoryRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if most := slow.most.Load(); most < 2 || most > 4 {
		t.Errorf("%d have read it at once, want 2 to 4", most)
	}
}

// reusing is a watcher whose store has lost changes and used their numbers again.
type reusing struct {
	admin.Watcher
	swapped atomic.Bool
}

func (s *reusing) State() *routing.State {
	at := s.Watcher.State()
	if entry := at.Routes["fraud"]; s.swapped.Load() && entry != nil {
		other := &routingv1.StoredRoute{Model: "fraud", Route: storetest.Route("fraud", "other"), Revision: 1}
		at.Routes["fraud"] = other
	}
	return at
}

// TestWatchTellsOfADocumentWithAUsedNumber: the revision of its entry is the same.
func TestWatchTellsOfADocumentWithAUsedNumber(t *testing.T) {
	state := new(reusing)
	r := newRig(t, func(c *admin.Config) { state.Watcher = c.Watcher; c.Watcher = state })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := r.client.Watch(ctx, &adminv1.WatchRequest{Model: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || len(stream.Msg().GetRoutes()) != 1 {
		t.Fatalf("first answer %v, %v", stream.Msg(), stream.Err())
	}
	state.swapped.Store(true)
	other := storetest.Route("other", "v1")
	if _, err := r.watcher.Update(t.Context(), &routing.Update{Expected: 1, Actor: "x", Set: []*routingv1.Route{other}}); err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
		if routes := stream.Msg().GetRoutes(); len(routes) > 0 {
			if name := routes[0].GetRoute().GetVersions()[0].GetName(); name != "other" {
				t.Errorf("told %v, want the other document", routes)
			}
			return
		}
	}
	t.Errorf("the other document was not told: %v", stream.Err())
}
