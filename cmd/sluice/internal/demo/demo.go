// Package demo shows a rollout on one machine: two versions of a real model
// with two replicas each, the gateway in front of them, and traffic whose right
// answers are known.
//
// Everything it prints is counted from answers: which version served a call and
// under which revision of the split is read from the answer's metadata, and
// whether the answer is right from the label of the row that was sent.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/sample"
)

// Config says how to run a demo. All fields but For are required.
type Config struct {
	// Listen is the address the gateway serves on.
	Listen string
	// Scenario names what to show; see [Scenarios]. Empty is a rollout.
	Scenario string
	// For is how long traffic flows; 0 means the scenario's own time, which for a
	// rollout is until the context ends.
	For time.Duration
	// Rate is the number of calls per second that clients attempt, all together.
	Rate int
	// Store keeps the routes; nil is one in memory. It is the caller's to close.
	Store routing.Store
	// Logger receives what goes wrong on the side. Default slog.Default().
	Logger *slog.Logger
	// Gateway makes the gateway under demonstration, which serves what the watcher
	// publishes to the router.
	Gateway func(listen string, router *routing.Router, watcher *routing.Watcher) (Gateway, error)
	// Drift asks the gateway, at its admin address, how the data of the model stands, and WriteDrift writes that
	// down; both are wanted by the scenario that shows drift.
	Drift      func(ctx context.Context, admin string) (*adminv1.GetDriftResponse, error)
	WriteDrift func(out io.Writer, resp *adminv1.GetDriftResponse)
	// Out takes what the demo has to say. In a terminal it is redrawn in place.
	Out io.Writer
}

// Gateway is what the demo needs of a gateway.
type Gateway interface {
	// Run serves until ctx ends and returns nil then.
	Run(ctx context.Context) error
	// Ready is closed when Addr may be called.
	Ready() <-chan struct{}
	// Addr is the address served on.
	Addr() net.Addr
	// AdminAddr is the address of the operators' service; nil if there is none.
	AdminAddr() net.Addr
}

// firstAnswer bounds the wait for the first answer through the gateway.
const firstAnswer = 5 * time.Second

// Run shows the demo until ctx or the time it is meant for ends; both are a
// success if there were calls and all of them were answered.
func Run(ctx context.Context, c Config) (err error) {
	scenario, err := scenarioOf(c.Scenario)
	if err != nil {
		return err
	}
	versions, err := loadVersions()
	if err != nil {
		return err
	}
	replicas, err := startReplicas(ctx, versions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, replicas.stop(ctx)) }()

	if c.Store == nil {
		c.Store = memstore.New(memstore.Config{})
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	rollout, err := newRollout(ctx, c.Store, replicas.endpoints(), c.Logger)
	if err != nil {
		return err
	}
	defer rollout.close()
	gateway, err := c.Gateway(c.Listen, rollout.router, rollout.watcher)
	if err != nil {
		return err
	}

	// The gateway outlives ctx, so that the last calls are answered before it goes.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, failed := errgroup.WithContext(serving)
	g.Go(func() error { return rollout.watcher.Run(serving) })
	g.Go(func() error {
		if err := gateway.Run(serving); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		select {
		case <-gateway.Ready():
		case <-failed.Done():
			return nil // the gateway's error is the one to report
		case <-ctx.Done():
			return nil
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		return scenario.show(ctx, &stage{c, versions, replicas, rollout, gateway})
	})
	return g.Wait()
}

// showRollout moves the split while traffic flows, and tells what happens.
func showRollout(ctx context.Context, s *stage) (err error) {
	c, versions, rollout, gateway := s.Config, s.versions, s.rollout, s.gateway
	if err := rollout.next(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, rollout.end(context.WithoutCancel(ctx))) }()
	addr := gateway.Addr().String()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	recorder := newRecorder()
	traffic := newTraffic(conn, c.Rate, rollout.splitOf, recorder.record)
	if err := traffic.awaitAnswer(ctx, addr); err != nil || ctx.Err() != nil {
		return err
	}

	display := newDisplay(c.Out)
	display.introduce(place{data: addr, admin: gateway.AdminAddr()}, versions)
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	begin := time.Now()
	var calls sync.WaitGroup
	calls.Go(func() { traffic.run(ctx) })
	err = rollout.run(ctx, c.For, func(now progress) { display.show(recorder.frame(now)) })
	calls.Wait()
	if err != nil {
		return err
	}
	result := recorder.result(time.Since(begin), rollout.current())
	display.conclude(result)
	return result.verdict()
}

// loadVersions loads the two versions of the model that the demo rolls out.
func loadVersions() ([]*sample.Model, error) {
	var versions []*sample.Model
	for _, name := range []string{before, after} {
		model, err := sample.Load(name)
		if err != nil {
			return nil, err
		}
		versions = append(versions, model)
	}
	return versions, nil
}
