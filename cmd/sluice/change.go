package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
)

// changeOptions are the flags of every command that changes routes.
type changeOptions struct {
	client clientOptions
	output format
	actor  string
	reason string
	expect uint64
	dryRun bool
	force  bool
	yes    bool
}

func (o *changeOptions) register(cmd *cobra.Command) {
	o.client.register(cmd)
	o.output.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.actor, "actor", "", "who makes the change (default $USER@HOST)")
	f.StringVarP(&o.reason, "reason", "r", "", "why, for the history (default what was asked for)")
	f.Uint64Var(&o.expect, "expect", 0, "the `revision` the whole routing state has to have; another one is exit code 3")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change, and change nothing")
	f.BoolVar(&o.force, "force", false, "send calls to a version even if none of its endpoints can be reached; that is recorded")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask for confirmation; nor does anything ask without a terminal, or with -o json or yaml")
}

// answer is a response that holds the outcome of a change.
type answer interface {
	proto.Message
	GetOutcome() *adminv1.Outcome
}

// send asks a gateway for a change.
type send func(context.Context, *client, *adminv1.Intent) (answer, error)

// run shows what a change would do, asks for confirmation in a terminal, and makes
// it if the routes it concerns are still those that were shown.
func (o *changeOptions) run(cmd *cobra.Command, send send) error {
	c, err := o.client.connect()
	if err != nil {
		return err
	}
	defer c.close()
	intent := o.intent(cmd)
	preview, err := once(cmd.Context(), c, send, with(intent, func(in *adminv1.Intent) { in.DryRun = true }))
	if err != nil {
		return err
	}
	nothing := preview.GetOutcome().GetChange() == nil
	if o.output == asTable {
		o.show(colours(cmd.OutOrStdout()), preview.GetOutcome())
	}
	if nothing || o.dryRun {
		return o.output.write(cmd.OutOrStdout(), preview, func(out io.Writer) { o.concludeDry(out, nothing) })
	}
	if err := o.confirm(cmd); err != nil {
		return err
	}
	made, err := repeatedly(cmd.Context(), c, send, with(intent, func(in *adminv1.Intent) {
		in.UnchangedSince, in.RevisionId = proto.Uint64(preview.GetOutcome().GetRevision()), preview.GetOutcome().GetRevisionId()
		in.RequestKey = rand.Text()
	}))
	if err != nil {
		return err
	}
	return o.output.write(cmd.OutOrStdout(), made, func(out io.Writer) {
		fmt.Fprintln(out, strong.Render(fmt.Sprintf("revision %d", made.GetOutcome().GetRevision())))
	})
}

func (o *changeOptions) intent(cmd *cobra.Command) *adminv1.Intent {
	in := &adminv1.Intent{Actor: o.actor, Reason: o.reason, Force: o.force}
	if in.Actor == "" {
		in.Actor = whoAmI()
	}
	if cmd.Flags().Changed("expect") {
		in.ExpectedRevision = proto.Uint64(o.expect)
	}
	return in
}

// show prints the difference and what else an operator should know.
func (o *changeOptions) show(out io.Writer, outcome *adminv1.Outcome) {
	writeDiff(out, outcome.GetChange())
	for _, w := range outcome.GetWarnings() {
		fmt.Fprintln(out, alarm.Render("warning: ")+visible(w, 500))
	}
}

func (o *changeOptions) concludeDry(out io.Writer, nothing bool) {
	if nothing {
		fmt.Fprintln(out, "nothing to change: the routes are so already")
		return
	}
	fmt.Fprintln(out, "dry run: nothing has been changed")
}

// once asks for a change one time.
func once(ctx context.Context, c *client, send send, in *adminv1.Intent) (answer, error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := send(limited, c, in)
	if err != nil {
		return nil, explainFailure(ctx, err, c.where)
	}
	return a, nil
}

// Attempts to learn what became of a change whose answer was lost.
const (
	changeAttempts = 3
	changePause    = 300 * time.Millisecond
)

// repeatedly asks again where it is not known whether a change was made: the
// request key keeps it from being made twice. An answer that tells of nothing but its own
// attempt does not settle what became of those before.
func repeatedly(ctx context.Context, c *client, send send, in *adminv1.Intent) (answer, error) {
	var unknown error // of an attempt that may have made it
	for attempt := 1; ; attempt++ {
		a, err := once(ctx, c, send, in)
		switch {
		case isUnknown(err):
			unknown = err
		case unknown == nil || !isOfOneAttempt(err):
			return a, err
		}
		if attempt == changeAttempts {
			return nil, unknown
		}
		select {
		case <-ctx.Done():
			return nil, unknown
		case <-time.After(changePause):
		}
	}
}

// isUnknown reports whether a change may have been made all the same.
func isUnknown(err error) bool {
	var c *connect.Error
	if !errors.As(err, &c) {
		return false
	}
	reason := reasonOf(c)
	return reason == admin.ReasonOutcomeUnknown || reason == "" && c.Code() == connect.CodeUnavailable
}

// isOfOneAttempt reports whether an error says that its own attempt has made nothing, and of
// earlier ones nothing at all: the gateway could not ask its store about the request key.
func isOfOneAttempt(err error) bool {
	var c *connect.Error
	if !errors.As(err, &c) {
		return false
	}
	reason := reasonOf(c)
	return reason == admin.ReasonStoreUnavailable || reason == admin.ReasonNoState
}

func with(in *adminv1.Intent, alter func(*adminv1.Intent)) *adminv1.Intent {
	in = proto.CloneOf(in)
	alter(in)
	return in
}

// whoAmI is the actor when none is named.
func whoAmI() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	if name == "" {
		name = "unknown"
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	name = strings.ToValidUTF8(visible(name, routing.MaxActor), "")
	return name[:min(len(name), routing.MaxActor)]
}
