package admin

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// watchBeat is the longest silence of a Watch, and watchLook how often it looks
	// whether the store's status is another.
	watchBeat = 10 * time.Second
	watchLook = time.Second
	// watchRecent is how many changes a Watch begins with.
	watchRecent = 10
	// watchDocuments is how many routes of a change are told with their documents.
	watchDocuments = 20
)

// Watch tells the current state, then what is new.
func (s *Service) Watch(ctx context.Context, req *adminv1.WatchRequest, stream *connect.ServerStream[adminv1.WatchResponse]) error {
	published := make(chan struct{}, 1)
	unfollow := s.cfg.Router.Follow(func(*routing.Table) {
		select {
		case published <- struct{}{}:
		default: // the one before has not been looked at yet
		}
	})
	defer unfollow()
	look := time.NewTicker(watchLook)
	defer look.Stop()

	w := &watching{service: s, model: req.GetModel(), told: make(map[string]*routingv1.StoredRoute)}
	for {
		if resp := w.next(ctx); resp != nil {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-published:
		case <-look.C:
			if err := s.stillWelcome(ctx); err != nil {
				return err
			}
		}
	}
}

// stillWelcome checks the caller's token again: one that was taken away must not
// go on being told.
func (s *Service) stillWelcome(ctx context.Context) error {
	call, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return nil // not called over a network
	}
	return authorizer{s.cfg.Tokens}.check(call.Spec().Procedure, call.RequestHeader())
}

// watching is what one Watch has told.
type watching struct {
	service *Service
	model   string // empty for all

	begun    bool
	revision uint64
	told     map[string]*routingv1.StoredRoute // by model: the entry told last
	status   *adminv1.StoreStatus
	at       time.Time // of the last answer
}

// next returns what to tell now, nil if nothing is new.
func (w *watching) next(ctx context.Context) *adminv1.WatchResponse {
	status := storeStatus(w.service.cfg.Watcher.Status())
	moved := !w.begun || w.service.revision() != w.revision
	if !moved && sameStanding(status, w.status) && time.Since(w.at) < watchBeat {
		return nil
	}
	resp := &adminv1.WatchResponse{Revision: w.revision, Store: status}
	if moved {
		w.move(ctx, resp)
	}
	w.begun, w.status, w.at = true, status, time.Now()
	return resp
}

// move adds what has changed since the last answer.
func (w *watching) move(ctx context.Context, resp *adminv1.WatchResponse) {
	at := w.service.cfg.Watcher.State()
	for _, entry := range entries(at) {
		model := entry.GetModel()
		if w.model != "" && model != w.model || isTold(w.told[model], entry) {
			continue
		}
		w.told[model] = entry
		resp.Routes = append(resp.Routes, entry)
	}
	for model := range w.told {
		if at.Routes[model].GetRoute() == nil {
			delete(w.told, model)
			resp.Deleted = append(resp.Deleted, model)
		}
	}
	slices.Sort(resp.Deleted)
	resp.Revision = at.Revision
	resp.Changes = w.changes(ctx, at.Revision)
	w.revision = at.Revision
}

// isTold reports whether an entry is the one that was told last. The revision alone does
// not say so: a store that has lost changes uses their numbers again.
func isTold(told, entry *routingv1.StoredRoute) bool {
	return told == entry || told.GetRevision() == entry.GetRevision() && proto.Equal(told, entry)
}

// changes returns those up to a revision that have not been told, the oldest
// first. Without the store there are none to be had.
func (w *watching) changes(ctx context.Context, revision uint64) []*routingv1.Change {
	q := routing.HistoryQuery{Model: w.model, To: revision, Limit: maxHistory, From: w.revision + 1, Bytes: maxHistoryBytes, Documents: watchDocuments}
	if !w.begun {
		q.From, q.Limit = 0, watchRecent
	}
	found, err := w.service.history(ctx, q)
	if err != nil {
		return nil
	}
	slices.Reverse(found)
	return found
}

// sameStanding compares all but what moves with the clock.
func sameStanding(a, b *adminv1.StoreStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	still := func(s *adminv1.StoreStatus) *adminv1.StoreStatus {
		s = proto.CloneOf(s)
		s.Confirmed, s.Age = nil, nil
		return s
	}
	return proto.Equal(still(a), still(b))
}
