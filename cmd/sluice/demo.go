package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/sluice/internal/demo"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/sample"
)

const (
	// demoListen is the data address that the demo tries first.
	demoListen = "127.0.0.1:8001"
	// demoShortest leaves each of the rollout's stages time for some calls.
	demoShortest = time.Second
	// demoFastest is a rate that no machine of today reaches in a demo; above it,
	// the time between two calls would be rounded to nothing.
	demoFastest = 1_000_000
)

// demoOptions are the flags of sluice demo.
type demoOptions struct {
	listen string
	admin  string
	store  string
	length time.Duration

	scenario string
	rate     int
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo [--scenario NAME] [--for DURATION]",
		Short: "Show a rollout on this machine, with real models and traffic",
		Long: `Show a rollout on this machine, with real models and traffic.

It starts two versions of a penguin classifier with two replicas each, the gateway in
front of them, and clients that ask for penguins whose species is known but which no
version was trained on. The split goes from 90/10 over 50/50 to 0/100 while calls flow;
calls, shares, errors, latency and accuracy are counted from the answers. It ends
with a summary after --for, or with Ctrl-C; a failed call makes it exit with 1.

With --scenario canary-fails, every call of the new version fails for a while instead:
it is cut off, the version before answers in its stead, and it gets its calls back when
it has healed. Calls are counted by phase. Meanwhile sluice incidents and sluice postmortem
tell the story; with --for 4m it has been well for a minute at the end, and the incident is
over.

With --scenario drift, both versions have half of the calls, and after a while one
feature of what is asked moves: it is found, and no other. The end is what sluice drift
shows then.

With --scenario shadow, a third version that was trained differently gets copies of all
calls, fails for a while, and heals. Callers are to notice nothing; what the gateway says
of its answers is held against what the two models say when they are asked directly.

Its split can be watched and changed with the operators' commands meanwhile; with a
store that is shared, also through another gateway.`,
		Example: `  sluice demo
  sluice demo --for 10s | tee demo.txt
  sluice demo --scenario canary-fails
  sluice demo --scenario drift
  sluice demo --scenario shadow
  sluice demo --store redis://127.0.0.1:6379`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return runDemo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.length, "for", 0, "how long calls flow; 0 is until Ctrl-C, 12s with canary-fails and shadow, and until all has been seen with drift, whose windows are longer the more time there is")
	f.StringVar(&o.scenario, "scenario", "rollout", "what to show: rollout, canary-fails, drift or shadow")
	_ = cmd.RegisterFlagCompletionFunc("scenario", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		for name, short := range demo.Scenarios() {
			names = append(names, cobra.CompletionWithDesc(name, short))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}) // fails for an unknown flag only
	f.StringVar(&o.listen, "listen", "", "data `address` (default "+demoListen+", or any free port if that is taken)")
	f.StringVar(&o.admin, "admin", "", "`address` for operators (default "+defaultAdmin+", or any free port if that is taken)")
	f.StringVar(&o.store, "store", "memory", "`store` of the routing state: memory, file:DIR or redis://HOST")
	f.IntVar(&o.rate, "rate", 400, "`calls` per second")
	return cmd
}

func (o demoOptions) validate() error {
	if _, ok := demo.Scenarios()[o.scenario]; !ok {
		return fmt.Errorf("--scenario: got %q, want one of %s", o.scenario, strings.Join(slices.Sorted(maps.Keys(demo.Scenarios())), ", "))
	}
	if o.length != 0 && o.length < demoShortest {
		return fmt.Errorf("--for: got %v, want at least %v, or 0 for no end", o.length, demoShortest)
	}
	if o.admin != "" && o.admin != "off" && !isLoopback(o.admin) {
		return fmt.Errorf("--admin: got %s, want an address on loopback: the demo has no tokens", o.admin)
	}
	if o.rate < 1 || o.rate > demoFastest {
		return fmt.Errorf("--rate: got %d, want 1 to %d calls per second", o.rate, demoFastest)
	}
	return nil
}

// runDemo runs the demo until ctx ends or its time is over.
func runDemo(ctx context.Context, o demoOptions, stdout, stderr io.Writer) (err error) {
	if o.listen == "" {
		o.listen = freeAddress(demoListen)
	}
	if o.admin == "" {
		o.admin = freeAddress(defaultAdmin)
	}
	// What is worth a warning in production would spoil the picture here; what
	// matters to the demo comes back as an error.
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	store, kind, err := openStore(o.store, "sluice demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return demo.Run(ctx, demo.Config{
		Listen: o.listen,
		For:    o.length,

		Drift: func(ctx context.Context, admin string) (*adminv1.GetDriftResponse, error) {
			return ask(ctx, &clientOptions{admin: admin}, func(ctx context.Context, c *client) (*adminv1.GetDriftResponse, error) {
				return c.GetDrift(ctx, &adminv1.GetDriftRequest{Model: sample.ModelName})
			})
		},
		WriteDrift: func(out io.Writer, resp *adminv1.GetDriftResponse) { writeDrift(colours(out), sample.ModelName, resp) },

		Scenario: o.scenario,
		Rate:     o.rate,
		Out:      stdout,
		Store:    store,
		Logger:   log,
		Gateway: func(listen string, router *routing.Router, watcher *routing.Watcher) (demo.Gateway, error) {
			options := serveOptions{
				listen: listen, admin: o.admin, // nobody has to be told of the end: the demo's clients are gone by then
				drainTimeout: 5 * time.Second,
			}
			tel, err := newTelemetry(ctx, "on", watcher.Status, log)
			if err != nil {
				return nil, err
			}
			return newGateway(options, access{}, router, watcher, tel, newDrift(store, kind, nil, log), nil, log)
		},
	})
}

// freeAddress is the preferred address, or one with any free port on the same
// host if something else listens there.
func freeAddress(preferred string) string {
	lis, err := net.Listen("tcp", preferred)
	if err != nil {
		host, _, _ := net.SplitHostPort(preferred) // a constant
		return net.JoinHostPort(host, "0")
	}
	_ = lis.Close()
	return preferred
}
