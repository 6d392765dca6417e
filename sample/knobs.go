package sample

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Behaviour is how a [Server] misbehaves. The zero value is a healthy server.
type Behaviour struct {
	// Delay is added to every inference.
	Delay time.Duration
	// Jitter is the upper end of a further delay, drawn evenly from 0.
	Jitter time.Duration
	// ErrorRate is the share of inferences, 0 to 1, that fail after their delay.
	ErrorRate float64
	// ErrorCode is the status of those failures; OK stands for UNAVAILABLE.
	ErrorCode codes.Code
	// Hang keeps inferences from ever being answered: they end with their
	// deadline, their cancellation or the server.
	Hang bool
	// HangProbes does the same to all other calls, as in a stopped process.
	HangProbes bool
	// NotReady makes the server answer probes with "not ready"; inferences go on.
	NotReady bool
}

func (b Behaviour) validate() error {
	var errs []error
	if b.Delay < 0 {
		errs = append(errs, fmt.Errorf("Delay: got %v, want 0 or more", b.Delay))
	}
	if b.Jitter < 0 {
		errs = append(errs, fmt.Errorf("Jitter: got %v, want 0 or more", b.Jitter))
	}
	if !(b.ErrorRate >= 0 && b.ErrorRate <= 1) { // false for NaN, too
		errs = append(errs, fmt.Errorf("ErrorRate: got %v, want 0 to 1", b.ErrorRate))
	}
	if b.ErrorCode > codes.Unauthenticated { // the last code there is
		errs = append(errs, fmt.Errorf("ErrorCode: got %d, want a gRPC code, 0 to %d", b.ErrorCode, codes.Unauthenticated))
	}
	return errors.Join(errs...)
}

// Knobs hold the [Behaviour] of one or more servers. They can be turned at any
// time from any goroutine; a call that has begun keeps the behaviour it found.
// The zero value is ready to use.
type Knobs struct{ current atomic.Pointer[Behaviour] }

// Set replaces the behaviour whole. An error means that nothing has changed.
func (k *Knobs) Set(b Behaviour) error {
	if err := b.validate(); err != nil {
		return fmt.Errorf("sample: behaviour: %w", err)
	}
	k.current.Store(&b)
	return nil
}

// Behaviour returns the current behaviour.
func (k *Knobs) Behaviour() Behaviour {
	if b := k.current.Load(); b != nil {
		return *b
	}
	return Behaviour{}
}

// inference does to an inference what the knobs say; an error is its status.
func (k *Knobs) inference(ctx context.Context) error {
	b := k.Behaviour()
	if b.Hang {
		return hang(ctx)
	}
	delay := b.Delay
	if b.Jitter > 0 {
		delay += rand.N(b.Jitter)
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if b.ErrorRate > 0 && rand.Float64() < b.ErrorRate {
		code := b.ErrorCode
		if code == codes.OK {
			code = codes.Unavailable
		}
		return status.Errorf(code, "sample server: failing %g %% of its inferences, as told", 100*b.ErrorRate)
	}
	return nil
}

// probe does to any other call what the knobs say, and tells whether to answer "ready".
func (k *Knobs) probe(ctx context.Context) (ready bool, err error) {
	b := k.Behaviour()
	if b.HangProbes {
		return false, hang(ctx)
	}
	return !b.NotReady, nil
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}
