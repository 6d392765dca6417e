package memstore

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// The last ten thousand request keys are remembered, for a day.
func TestRequestKeysAreBounded(t *testing.T) {
	var r requests
	began := time.Now()
	add := func(n int, at time.Time) {
		r.add(&routingv1.StoredRequest{Key: fmt.Sprint("key-", n), Time: timestamppb.New(at)})
	}
	known := func(n int, at time.Time) bool { return r.find(fmt.Sprint("key-", n), at) != nil }
	for n := range routing.MaxRequestKeys {
		add(n, began)
	}
	if !known(0, began) {
		t.Fatalf("the first of %d keys is forgotten", routing.MaxRequestKeys)
	}
	add(routing.MaxRequestKeys, began)
	if known(0, began) || !known(1, began) || !known(routing.MaxRequestKeys, began) {
		t.Error("after one more, want the first one forgotten and no other")
	}
	if len(r.order) != routing.MaxRequestKeys || len(r.byKey) != routing.MaxRequestKeys {
		t.Errorf("%d requests by %d keys are kept, want %d", len(r.order), len(r.byKey), routing.MaxRequestKeys)
	}
	late := began.Add(routing.RequestKeyTTL + time.Second)
	if known(1, late) {
		t.Error("a key is known after more than a day")
	}
	if add(-1, late); len(r.order) != 1 || len(r.byKey) != 1 {
		t.Errorf("%d requests by %d keys are kept a day later, want the new one alone", len(r.order), len(r.byKey))
	}
}
