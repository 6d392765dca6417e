package main

import (
	"strings"
	"testing"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// TestWatchOfAnUnknownModelSaysSo: it may come, so the watch goes on; but a name that is
// misspelt must not look like a model without changes.
func TestWatchOfAnUnknownModelSaysSo(t *testing.T) {
	const want = `no route for model "nope" yet`
	var out strings.Builder
	if err := (&lineView{out: &out, model: "nope"}).show(&adminv1.WatchResponse{Revision: 3}); err != nil || !strings.Contains(out.String(), want) {
		t.Errorf("%v, %q: want %q", err, out.String(), want)
	}
	live := &liveView{model: "nope", height: func() int { return 20 }}
	if text := strings.Join(live.lines(), "\n"); !strings.Contains(text, want) {
		t.Errorf("the live view says %q, want %q", text, want)
	}
	live.routes = map[string]*routeEntry{"nope": {Model: "nope"}}
	if text := strings.Join(live.lines(), "\n"); strings.Contains(text, want) {
		t.Errorf("when it is there, the live view says %q", text)
	}
}
