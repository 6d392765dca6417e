package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/bench/counters"
	"sluice/bench/payload"
	"sluice/bench/procfs"
	"sluice/bench/rawclient"
)

const (
	// offeredSize and offeredCount are the answer each unread call provokes:
	// 16 MiB in messages of 64 KiB, more than any sensible buffer takes.
	offeredSize  = 64 << 10
	offeredCount = 256

	// pollMemory is how often memory is read while clients do not read.
	pollMemory = 100 * time.Millisecond
)

// neverReadMemory is what clients that never read cost a peer. All sizes are
// bytes of resident memory, summed over the peer's processes.
type neverReadMemory struct {
	Peer      string `json:"peer"`
	Clients   int    `json:"clients"`
	Streams   int    `json:"streams"`       // calls per client
	Arrived   uint64 `json:"calls_arrived"` // at the backend
	Offered   uint64 `json:"bytes_offered"` // answers to the calls that arrived
	Before    uint64 `json:"before"`        // nothing open
	Peak      uint64 `json:"peak"`          // while the clients stayed
	After     uint64 `json:"after"`         // with the clients gone
	PerClient int64  `json:"per_client"`    // (peak - before) / clients
	// Served and ServedMillis say whether an ordinary client's two calls were
	// answered while the others did not read, and how long that took.
	Served       bool  `json:"others_served"`
	ServedMillis int64 `json:"others_served_ms"`
}

// measureNeverRead lets clients ask for large answers on many streams and read
// nothing, not even SETTINGS, with windows wide open. An ordinary client calls
// meanwhile, and must be served once the others are gone.
func measureNeverRead(ctx context.Context, f *fleet, target *member, o *options, progress io.Writer) (neverReadMemory, error) {
	out := neverReadMemory{Peer: target.name(), Clients: o.neverRead, Streams: o.streams}
	if err := verify(ctx, target); err != nil {
		return out, err
	}
	var err error
	if out.Before, err = rest(ctx, target, o.settle); err != nil {
		return out, err
	}
	arrivedBefore, err := streamCalls(ctx, f)
	if err != nil {
		return out, err
	}

	// Memory is watched from the first client on: the peak may come early.
	watch, stop := context.WithCancel(ctx)
	peak := make(chan uint64, 1)
	go func() { peak <- watchPeak(watch, target.process.Group()) }()
	clients, err := openUnread(ctx, target, o.neverRead, o.streams)
	if err == nil {
		fmt.Fprintf(progress, "%s: %d clients with %d calls each are not reading\n", target.name(), o.neverRead, o.streams)
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(o.hold):
			start := time.Now()
			troubled := verify(ctx, target)
			out.Served, out.ServedMillis = troubled == nil, time.Since(start).Milliseconds()
			if troubled != nil {
				fmt.Fprintf(progress, "%s: an ordinary client meanwhile: %v\n", target.name(), troubled)
			}
		}
	}
	stop()
	out.Peak = <-peak
	closeAll(clients)
	if err != nil {
		return out, fmt.Errorf("%s: %w", target.name(), err)
	}

	arrived, err := streamCalls(ctx, f)
	if err != nil {
		return out, err
	}
	out.Arrived = arrived - arrivedBefore
	out.Offered = out.Arrived * offeredSize * offeredCount
	if out.After, err = rest(ctx, target, o.settle); err != nil {
		return out, err
	}
	out.PerClient = (int64(out.Peak) - int64(out.Before)) / int64(o.neverRead)
	if err := verify(ctx, target); err != nil {
		return out, fmt.Errorf("%s no longer serves: %w", target.name(), err)
	}
	return out, nil
}

// openUnread connects the clients and opens their calls. The clients opened so
// far are returned with an error, too, for the caller to close.
func openUnread(ctx context.Context, target *member, clients, streams int) (open []*rawclient.Conn, err error) {
	request, err := payload.Request(payload.Model, payload.MinSize)
	if err != nil {
		return nil, err
	}
	wanted := []hpack.HeaderField{
		{Name: payload.AnswerSizeKey, Value: strconv.Itoa(offeredSize)},
		{Name: payload.AnswerCountKey, Value: strconv.Itoa(offeredCount)},
	}
	for i := range clients {
		c, err := rawclient.Dial(ctx, target.address, target.trust)
		if err != nil {
			return open, fmt.Errorf("client %d of %d: %w", i+1, clients, err)
		}
		open = append(open, c)
		if err := c.SetDeadline(time.Now().Add(callPatience)); err != nil {
			return open, err
		}
		for range streams {
			if _, err := c.Open(payload.StreamMethod, request, wanted...); err != nil {
				return open, fmt.Errorf("client %d of %d: %w", i+1, clients, err)
			}
		}
	}
	return open, nil
}

// watchPeak reads a group's memory until ctx ends and returns the most it saw,
// or the kernel's own record if that is higher.
func watchPeak(ctx context.Context, group int) (peak uint64) {
	for {
		// A group that ended shows in the next call that is made through it.
		if usage, err := procfs.Group(group); err == nil {
			peak = max(peak, usage.Resident, usage.Peak)
		}
		select {
		case <-ctx.Done():
			return peak
		case <-time.After(pollMemory):
		}
	}
}

// streamCalls returns how many streaming calls have reached the backend.
func streamCalls(ctx context.Context, f *fleet) (uint64, error) {
	snapshot, err := counters.Fetch(ctx, f.addresses.Report)
	return snapshot[payload.StreamMethod].Begun, err
}
