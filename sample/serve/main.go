// Command serve runs one sample model server, to put behind a gateway by hand.
//
//	go run ./sample/serve -version v1 -listen 127.0.0.1:9001
//	go run ./sample/serve -version v2 -listen 127.0.0.1:9002 -delay 20ms -error-rate 0.1 -error-code INTERNAL
//
// It ends with an interrupt, after the calls under way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/sample"
)

// grace is how long calls under way may take after an interrupt.
const grace = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "serve: %v (try: serve -h)\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "serve: %v\n", err)
		os.Exit(1)
	}
}

// usageError is a mistake in the command line.
type usageError struct{ error }

// options are what the command line says.
type options struct {
	version   string
	listen    string
	behaviour sample.Behaviour
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.version, "version", "v1", fmt.Sprintf("model `version`, one of %q", sample.Versions()))
	flags.StringVar(&o.listen, "listen", "127.0.0.1:9001", "`address` to serve on; port 0 is any free one")
	flags.DurationVar(&o.behaviour.Delay, "delay", 0, "added to every inference")
	flags.DurationVar(&o.behaviour.Jitter, "jitter", 0, "upper end of a further random delay")
	flags.Float64Var(&o.behaviour.ErrorRate, "error-rate", 0, "`share` of inferences that fail, 0 to 1")
	flags.Func("error-code", "`status` of those failures, such as INTERNAL (default UNAVAILABLE)", func(name string) error {
		return o.behaviour.ErrorCode.UnmarshalJSON([]byte(strconv.Quote(name)))
	})
	flags.BoolVar(&o.behaviour.Hang, "hang", false, "never answer inferences")
	flags.BoolVar(&o.behaviour.HangProbes, "hang-probes", false, "never answer readiness and health checks")
	flags.BoolVar(&o.behaviour.NotReady, "not-ready", false, "answer those checks with not ready")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, usageError{err}
	}
	if flags.NArg() > 0 {
		return o, usageError{fmt.Errorf("arguments: got %q, want none", flags.Args())}
	}
	return o, nil
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	model, err := sample.Load(o.version)
	if err != nil {
		return usageError{err}
	}
	var knobs sample.Knobs
	if err := knobs.Set(o.behaviour); err != nil {
		return usageError{err}
	}
	lis, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	server := sample.NewServer(model, &knobs)
	fmt.Fprintf(stdout, "model %q, version %s, on %s\n", model.Name, model.Version, lis.Addr())

	g, ctx := errgroup.WithContext(ctx) // ends with a listener that fails, too
	g.Go(func() error { return server.Serve(lis) })
	g.Go(func() error {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		server.Shutdown(limited)
		return nil
	})
	err = g.Wait()
	c := server.Counters()
	fmt.Fprintf(stdout, "%d calls: %d answered, %d failed, %d cancelled\n", c.Begun, c.Answered, c.Failed, c.Cancelled)
	return err
}
