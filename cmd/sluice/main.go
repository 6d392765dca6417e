// Command sluice is a gRPC gateway in front of model servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitLostRace = 3 // another operator was faster
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "sluice:", err)
	os.Exit(exitCode(err))
}

// run executes one command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "A gRPC gateway in front of model servers",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,

		SuggestionsMinimumDistance: 2,

		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, cmd.CommandPath()}
	})
	addGroup(root, "Run:", newServeCommand(), newDemoCommand(), newBenchCommand())
	addGroup(root, "Look:", newGetCommand(), newWatchCommand(), newStatusCommand(), newDriftCommand(), newLabelsCommand(), newHistoryCommand(), newExplainCommand(), newBreakersCommand(), newShadowCommand(), newReplayCommand(),
		newIncidentsCommand(), newPostmortemCommand())
	addGroup(root, "Change:", newWeightsCommand(), newPromoteCommand(), newRollbackCommand(), newApplyCommand(), newBreakerCommand(), newFaultCommand(), newFeedbackCommand())
	checkWords(root)
	return root
}

// checkWords makes wrong arguments of the commands under parent usage errors.
func checkWords(parent *cobra.Command) {
	for _, c := range parent.Commands() {
		inner := c.Args
		c.Args = func(cmd *cobra.Command, args []string) error {
			if inner == nil {
				inner = cobra.NoArgs
			}
			var usage *usageError
			if err := inner(cmd, args); err != nil && !errors.As(err, &usage) {
				return &usageError{wrongArguments(cmd, args), cmd.CommandPath()}
			} else if err != nil {
				return err
			}
			return nil
		}
		checkWords(c)
	}
}

// wrongArguments says what a command got and what it wants.
func wrongArguments(cmd *cobra.Command, args []string) error {
	_, want, some := strings.Cut(cmd.Use, " ")
	if !some {
		want = "none"
	}
	if len(args) == 0 {
		return fmt.Errorf("got no arguments, want %s", want)
	}
	return fmt.Errorf("got %s (%s), want %s", plural(len(args), "argument"), visible(strings.Join(args, " "), 100), want)
}

// newFamily makes a command that only has others under it.
func newFamily(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noSuchCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// noSuchCommand is about words that name no command.
func noSuchCommand(root *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", words[0])
	if similar := root.SuggestionsFor(words[0]); len(similar) > 0 {
		err = fmt.Errorf("%w, did you mean %s?", err, strings.Join(similar, " or "))
	}
	return &usageError{err, root.CommandPath()}
}

// addGroup adds commands under a heading of the help.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
		root.AddCommand(c)
	}
}

// usageError is a command line that cannot be understood.
type usageError struct {
	err  error
	path string
}

func (e *usageError) Error() string { return fmt.Sprintf("%v (try: %s --help)", e.err, e.path) }
func (e *usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	var f *failure
	if errors.As(err, &f) && f.lost {
		return exitLostRace
	}
	return exitFailure
}

// version is the module's version or, for a build from a checkout, its revision.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
