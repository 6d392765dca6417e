package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
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
	if o.dryRun {
		return o.output.write(cmd.OutOrStdout(), preview, func(out io.Writer) {
			if nothing {
				fmt.Fprintln(out, nothingToChange)
				return
			}
			fmt.Fprintln(out, "dry run: nothing has been changed")
		})
	}
	if !nothing { // else that is for the store to say, and a gateway may not have seen yet what it has
		if err := o.confirm(cmd); err != nil {
			return err
		}
	}
	made, err := repeatedly(cmd.Context(), c, send, with(intent, func(in *adminv1.Intent) {
		in.UnchangedSince, in.RevisionId = proto.Uint64(preview.GetOutcome().GetRevision()), preview.GetOutcome().GetRevisionId()
		in.RequestKey = rand.Text()
	}))
	if err != nil {
		return err
	}
	err = o.output.write(cmd.OutOrStdout(), made, func(out io.Writer) {
		if made.GetOutcome().GetChange() == nil {
			fmt.Fprintln(out, nothingToChange)
			return
		}
		fmt.Fprintln(out, strong.Render(fmt.Sprintf("revision %d", made.GetOutcome().GetRevision())))
	})
	if err != nil {
		return fmt.Errorf("the routes are now as of revision %d, but that cannot be shown: %w", made.GetOutcome().GetRevision(), err)
	}
	return nil
}

const nothingToChange = "nothing to change: the routes are so already"

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
		case err == nil, isSettled(err), unknown == nil && !isUnknown(err) && !isDialing(err):
			return a, err
		case isUnknown(err):
			unknown = err
		}
		if attempt < changeAttempts {
			select {
			case <-ctx.Done():
			case <-time.After(changePause):
				continue
			}
		}
		if unknown == nil {
			return nil, err // nobody was ever reached
		}
		return nil, inDoubt(unknown, hints[admin.ReasonOutcomeUnknown])
	}
}

// isUnknown reports whether what was asked for may have been done all the same: the gateway
// says so, or something else has answered in its stead, or nothing has.
func isUnknown(err error) bool {
	var c *connect.Error
	if !errors.As(err, &c) {
		return false
	}
	if reason := reasonOf(c); reason != "" {
		return reason == admin.ReasonOutcomeUnknown
	}
	switch c.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal:
		return !isDialing(err)
	}
	return false
}

// isDialing reports whether nothing was asked because nobody could be reached.
func isDialing(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isSettled reports whether a gateway has refused a change knowing that no earlier request
// with the same key has made it. It does not know that with other reasons: it could not ask
// its store, or did not because of the caller's token.
func isSettled(err error) bool {
	var c *connect.Error
	if !errors.As(err, &c) {
		return false
	}
	switch reasonOf(c) {
	case admin.ReasonConflict, admin.ReasonInvalid, admin.ReasonModelNotFound, admin.ReasonNoHistory, admin.ReasonUnreachable:
		return true
	}
	return false
}

// inDoubt says of something that may have been done that this is not known, and what to try.
func inDoubt(err error, try string) error {
	f := &failure{text: err.Error(), try: try, err: err}
	var told *failure
	if errors.As(err, &told) {
		f.text = told.text
	}
	var c *connect.Error
	if !errors.As(err, &c) || reasonOf(c) != admin.ReasonOutcomeUnknown { // which says so itself
		f.text = "it is not known whether this was done: " + f.text
	}
	return f
}

// askToDo is ask for what may be asked for twice without harm.
func askToDo[T any](ctx context.Context, o *clientOptions, question func(context.Context, *client) (T, error)) (T, error) {
	answer, err := ask(ctx, o, question)
	if isUnknown(err) {
		err = inDoubt(err, "the command again, which does no harm")
	}
	return answer, err
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
