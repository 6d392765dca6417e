package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"sluice/bench/payload"
	"sluice/bench/procfs"
	"sluice/bench/rawclient"
)

// callPatience bounds every step of a memory measurement at one connection.
const callPatience = 10 * time.Second

// idleMemory is what idle connections cost a peer. All sizes are bytes of
// resident memory, summed over the peer's processes.
type idleMemory struct {
	Peer          string `json:"peer"`
	Connections   int    `json:"connections"`
	Before        uint64 `json:"before"`
	Idle          uint64 `json:"idle"`
	After         uint64 `json:"after"` // with the connections closed again
	PerConnection int64  `json:"per_connection"`
}

// measureIdle opens connections, makes one call on each and reads the peer's
// memory while they rest. At the end each connection must still carry a call:
// one that the peer has closed would make the others look cheap.
func measureIdle(ctx context.Context, target *member, connections int, settle time.Duration, progress io.Writer) (idleMemory, error) {
	request, err := payload.Request(payload.Model, 4<<10)
	if err != nil {
		return idleMemory{}, err
	}
	out := idleMemory{Peer: target.name(), Connections: connections}
	// Memory that any first calls take is not charged to the connections.
	if err := verify(ctx, target); err != nil {
		return idleMemory{}, err
	}
	if out.Before, err = rest(ctx, target, settle); err != nil {
		return idleMemory{}, err
	}

	var open []*rawclient.Conn
	defer func() { closeAll(open) }()
	for i := range connections {
		c, err := rawclient.Dial(ctx, target.address, target.trust)
		if err != nil {
			return idleMemory{}, fmt.Errorf("connection %d of %d: %w", i+1, connections, err)
		}
		open = append(open, c)
		if err := callOn(c, request); err != nil {
			return idleMemory{}, fmt.Errorf("connection %d of %d: %w", i+1, connections, err)
		}
	}
	fmt.Fprintf(progress, "%s: %d connections are open\n", target.name(), connections)
	if out.Idle, err = rest(ctx, target, settle); err != nil {
		return idleMemory{}, err
	}
	for i, c := range open {
		if err := callOn(c, request); err != nil {
			return idleMemory{}, fmt.Errorf("connection %d of %d did not stay open: %w", i+1, connections, err)
		}
	}
	closeAll(open)
	if out.After, err = rest(ctx, target, settle); err != nil {
		return idleMemory{}, err
	}
	out.PerConnection = (int64(out.Idle) - int64(out.Before)) / int64(connections)
	return out, nil
}

// closeAll closes connections that have done their part. One that the peer has
// closed before, or that was closed here already, is no trouble.
func closeAll(connections []*rawclient.Conn) {
	for _, c := range connections {
		_ = c.Close()
	}
}

// callOn makes one call and waits for its end.
func callOn(c *rawclient.Conn, request []byte) error {
	if err := c.SetDeadline(time.Now().Add(callPatience)); err != nil {
		return err
	}
	stream, err := c.Open(payload.InferMethod, request)
	if err != nil {
		return err
	}
	return c.Await(stream)
}

// rest waits for things to settle and returns the peer's resident memory.
func rest(ctx context.Context, target *member, settle time.Duration) (uint64, error) {
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(settle):
	}
	usage, err := procfs.Group(target.process.Group())
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", target.name(), err, target.process.Log())
	}
	return usage.Resident, nil
}
