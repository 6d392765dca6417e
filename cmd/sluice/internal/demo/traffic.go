package demo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"sluice/proto/inference"
	"sluice/sample"
)

const (
	// clients is the number of callers; each has one call under way at a time.
	clients = 16
	// callTimeout is the deadline of every call.
	callTimeout = 5 * time.Second
)

// traffic asks for the species of penguins that no version was trained on.
type traffic struct {
	client  inference.GRPCInferenceServiceClient
	rows    []sample.Row
	next    atomic.Uint64 // index of the next row, modulo the number of rows
	pacer   pacer
	record  func(outcome) // by any number of goroutines
	splitOf func(revision string) (split, bool)
	alter   atomic.Pointer[func(*sample.Measurements)] // nil: penguins are asked for as they are
}

func newTraffic(conn *grpc.ClientConn, rate int, splitOf func(revision string) (split, bool), record func(outcome)) *traffic {
	_, held := sample.Split()
	return &traffic{
		client:  inference.NewGRPCInferenceServiceClient(conn),
		rows:    held,
		pacer:   pacer{interval: time.Second / time.Duration(rate)},
		record:  record,
		splitOf: splitOf,
	}
}

// awaitAnswer makes sure that calls get through at all before any is counted.
// An error of ctx alone is none.
func (t *traffic) awaitAnswer(ctx context.Context, addr string) error {
	limited, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	_, err := t.client.ModelInfer(limited, sample.NewRequest(sample.ModelName, t.rows[0].Measurements), grpc.WaitForReady(true))
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer through the gateway at %s: %w", addr, err)
	}
	return nil
}

// run calls until ctx ends. Calls under way then are still answered and counted.
func (t *traffic) run(ctx context.Context) {
	var callers sync.WaitGroup
	for range clients {
		callers.Go(func() {
			for t.pacer.wait(ctx) {
				row := t.rows[t.next.Add(1)%uint64(len(t.rows))]
				if alter := t.alter.Load(); alter != nil {
					(*alter)(&row.Measurements)
				}
				t.record(t.call(context.WithoutCancel(ctx), row))
			}
		})
	}
	callers.Wait()
}

// call asks for one row.
func (t *traffic) call(ctx context.Context, row sample.Row) outcome {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var header, trailer metadata.MD
	begin := time.Now()
	resp, err := t.client.ModelInfer(ctx, sample.NewRequest(sample.ModelName, row.Measurements), grpc.Header(&header), grpc.Trailer(&trailer))
	o := outcome{row: row, begun: begin, latency: time.Since(begin), err: err}
	told := metadata.Join(header, trailer) // an answer without a message has trailers alone
	o.version = first(told, "sluice-version")
	o.fallback = first(told, "sluice-fallback")
	o.split, _ = t.splitOf(first(told, "sluice-revision"))
	if err != nil {
		return o
	}
	switch species, err := sample.ReadSpecies(resp); {
	case err != nil:
		o.err = fmt.Errorf("version %q: %w", o.version, err)
	case len(species) != 1:
		o.err = fmt.Errorf("version %q: answer: got %d species, want 1", o.version, len(species))
	default:
		o.right = species[0] == row.Species
	}
	return o
}

func first(md metadata.MD, key string) string {
	if values := md.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// pacer spaces out events of any number of goroutines evenly.
type pacer struct {
	interval time.Duration
	mu       sync.Mutex
	next     time.Time // of the next event
}

// patience is how far behind its schedule a pacer lets its users fall before it
// gives the missed events up: catching up would be a burst.
const patience = 50 * time.Millisecond

// wait blocks until the caller's turn; false means that ctx has ended.
func (p *pacer) wait(ctx context.Context) bool {
	p.mu.Lock()
	now := time.Now()
	if now.Sub(p.next) > patience {
		p.next = now
	}
	turn := p.next
	p.next = turn.Add(p.interval)
	p.mu.Unlock()

	timer := time.NewTimer(turn.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
