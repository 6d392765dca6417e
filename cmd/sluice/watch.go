package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

func newWatchCommand() *cobra.Command {
	var o clientOptions
	var output format
	cmd := &cobra.Command{
		Use:   "watch [MODEL]",
		Short: "Show routes live, and every change: what, by whom and why",
		Long: `Show routes live, and every change: what, by whom and why.

In a terminal it is redrawn in place; elsewhere it is one line per change, with -o json
one object per answer. It ends with Ctrl-C, and goes on when the gateway comes back. For
a model that has no route yet it waits.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runWatch(cmd, &o, output, modelOf(args))
		},
	}
	o.register(cmd)
	output.register(cmd)
	return cmd
}

// viewer shows what a gateway tells.
type viewer interface {
	show(*adminv1.WatchResponse) error
	lost(error) // the gateway; it is tried again
}

// watchPause is the time between attempts to reach the gateway again.
const watchPause = time.Second

// runWatch follows a gateway's routes until ctx ends.
func runWatch(cmd *cobra.Command, o *clientOptions, output format, model string) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	defer c.close()
	v := newViewer(cmd.OutOrStdout(), output, c.where, model)
	return keepWatching(cmd.Context(), c, v.lost, func(ctx context.Context) (*connect.ServerStreamForClient[adminv1.WatchResponse], error) {
		return c.Watch(ctx, &adminv1.WatchRequest{Model: model})
	}, v.show)
}

// keepWatching shows what a stream of a gateway tells, and asks for it anew when the
// gateway was lost, until ctx ends. Failing at the start is an error, losing the
// gateway later is not.
func keepWatching[T any](
	ctx context.Context, c *client, lost func(error),
	ask func(context.Context) (*connect.ServerStreamForClient[T], error), show func(*T) error,
) error {
	begun := false
	for {
		err := follow(ctx, ask, func(resp *T) error {
			begun = true
			return show(resp)
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how a watch ends
		}
		err = explainFailure(ctx, err, c.where)
		if !begun || isFinal(err) {
			return err
		}
		lost(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
	}
}

// isFinal reports whether trying again is of no use.
func isFinal(err error) bool {
	var c *connect.Error
	if !errors.As(err, &c) {
		return true // writing has failed
	}
	reason := reasonOf(c)
	return reason == admin.ReasonTokenMissing || reason == admin.ReasonRoleMissing
}

// follow passes on what a stream tells until it ends.
func follow[T any](ctx context.Context, ask func(context.Context) (*connect.ServerStreamForClient[T], error), show func(*T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := ask(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		if err := show(stream.Msg()); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("the gateway has ended the watch"))
}

func newViewer(out io.Writer, output format, where, model string) viewer {
	if output != asTable {
		return machineView{out, output}
	}
	if f, ok := out.(*os.File); ok && isTerminal(f) {
		return newLiveView(f, where, model)
	}
	return &lineView{out: colours(out), model: model}
}

// machineView writes every answer as JSON in one line, or as a YAML document.
type machineView struct {
	out    io.Writer
	output format
}

func (v machineView) show(resp *adminv1.WatchResponse) error { return v.write(resp) }

func (v machineView) write(resp proto.Message) error {
	if v.output == asJSON {
		text, err := toJSON(resp, false)
		if err != nil {
			return err
		}
		_, err = v.out.Write(text)
		return err
	}
	text, err := toYAML(resp)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(v.out, "---\n%s", text)
	return err
}

func (machineView) lost(error) {}

// lineView writes a line for every change, and when the store's standing changes.
type lineView struct {
	out      io.Writer
	model    string // empty for all
	begun    bool
	problems []string
}

func (v *lineView) show(resp *adminv1.WatchResponse) error {
	if !v.begun {
		fmt.Fprintf(v.out, "revision %d, %s\n", resp.GetRevision(), plural(len(resp.GetRoutes()), "model"))
		if len(resp.GetRoutes()) > 0 {
			routesTable(resp.GetRoutes()).write(v.out)
		} else if v.model != "" {
			v.line(noRouteYet(v.model))
		}
	} else {
		for _, c := range resp.GetChanges() {
			v.line(changeLine(c))
		}
	}
	v.begun = true
	if p := resp.GetStore().GetProblems(); !slices.Equal(p, v.problems) {
		for _, text := range p {
			v.line(alarm.Render("problem: ") + visible(text, 500))
		}
		if len(p) == 0 {
			v.line("the store is being followed again")
		}
		v.problems = p
	}
	return nil
}

// noRouteYet is about a model that somebody watches before it is there.
func noRouteYet(model string) string {
	return fmt.Sprintf("no route for model %q yet, waiting for one; sluice get shows what there is", visible(model, 100))
}

func (v *lineView) lost(err error) {
	v.line(alarm.Render("problem: ") + visible(err.Error(), 500))
	v.begun = false
}

func (v *lineView) line(text string) {
	fmt.Fprintln(v.out, faint.Render(clock(time.Now()))+" "+text)
}

// changeLine is a change in one line.
func changeLine(c *routingv1.Change) string {
	var parts []string
	for _, what := range whatChanged(c, "") {
		parts = append(parts, strings.TrimSpace(what.model+" "+what.words))
	}
	return fmt.Sprintf("%s  %s  %s  %s", strong.Render(fmt.Sprintf("revision %d", c.GetRevision())),
		visible(c.GetActor(), 40), strings.Join(parts, "; "), reasonOrDash(c, 200))
}
