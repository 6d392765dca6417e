package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/bench/load"
	"sluice/bench/payload"
)

// benchOptions are the flags of sluice bench.
type benchOptions struct {
	config   load.Config
	plan     load.Plan
	warmUp   time.Duration
	model    string
	size     payload.Size
	message  string
	stream   bool
	metadata []string
	tls      bool
	caFile   string
	output   string
	failures float64
}

func newBenchCommand() *cobra.Command {
	o := benchOptions{size: 4 << 10, plan: load.Plan{Arrivals: load.Poisson}}
	cmd := &cobra.Command{
		Use:   "bench ADDRESS",
		Short: "Make calls at a gateway or a model server and measure its answers",
		Long: `Make calls at a gateway or a model server, and measure how long it takes to answer.

With --rate, calls are due at that rate whatever the server does, and a call's latency
counts from the moment it was due: a server that stalls for a second makes all calls of
that second late, as it would those of real users. Without, every stream makes its next
call when its last one was answered: that finds out how much a server can do.

Calls are ModelInfer of the Open Inference Protocol with one tensor of 32-bit floats;
--message and --method call anything else. --stream calls ModelStreamInfer and counts the
answers. How late the generator itself was, and what it cost, is part of the result.

It exits with 1 if more calls failed than --allow-failures says.`,
		Example: `  sluice bench 127.0.0.1:8001 --model fraud
  sluice bench 127.0.0.1:8001 --model fraud --rate 2000 --for 1m -o json
  sluice bench models:8001 --model fraud --connections 100 --streams 4 --size 64KiB --tls`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.config.Address = args[0]
			if err := o.complete(); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", payload.Model, "`name` of the model to call")
	f.Var(&o.size, "size", "of the request, 64 to 64MiB, with gRPC's framing")
	f.StringVar(&o.message, "message", "", "`file` with the request's protobuf message, instead of --model and --size")
	f.StringVar(&o.config.Method, "method", "", "full `name` of the method (default that of ModelInfer)")
	f.BoolVar(&o.stream, "stream", false, "call ModelStreamInfer, which may answer with many messages")
	f.StringArrayVarP(&o.metadata, "metadata", "m", nil, "metadata of the calls, `key=value`; may be repeated, also with the same key")
	f.IntVarP(&o.config.Connections, "connections", "c", 4, "`number` of connections")
	f.IntVarP(&o.config.Streams, "streams", "s", 8, "`number` of calls at once on each connection")
	f.Float64Var(&o.plan.Rate, "rate", 0, "calls per second, a `number`; 0 is as many as there are answers")
	f.Var(&o.plan.Arrivals, "arrivals", "how calls of --rate are spread: poisson or constant")
	f.DurationVar(&o.plan.For, "for", 10*time.Second, "how long calls are begun, at most 1h")
	f.Uint64Var(&o.plan.Requests, "requests", 0, "`number` of calls after which to stop, if --for is not over before (default: no number)")
	f.DurationVar(&o.warmUp, "warm-up", 0, "how long calls are made before the measurement begins")
	f.DurationVar(&o.config.Timeout, "timeout", 15*time.Second, "when a call is given up and counts as failed")
	f.Float64Var(&o.failures, "allow-failures", 0, "`share` of calls that may fail, 0 to 1")
	f.BoolVar(&o.tls, "tls", false, "connect with TLS")
	f.StringVar(&o.caFile, "ca-file", "", "`file` (PEM) with the authorities that are trusted (default: the system's); implies --tls")
	f.StringVarP(&o.output, "output", "o", "table", "table or json")
	return cmd
}

// complete checks the flags and derives the rest.
func (o *benchOptions) complete() (err error) {
	host, port, badAddress := net.SplitHostPort(o.config.Address)
	switch {
	case badAddress != nil || host == "" || port == "":
		return fmt.Errorf("ADDRESS: got %q, want host:port", o.config.Address)
	case o.output != "table" && o.output != "json":
		return fmt.Errorf("--output: got %q, want table or json", o.output)
	case !(o.failures >= 0 && o.failures <= 1):
		return fmt.Errorf("--allow-failures: got %g, want 0 to 1", o.failures)
	case o.warmUp < 0 || o.warmUp > load.MaxFor:
		return fmt.Errorf("--warm-up: got %v, want 0 to %v", o.warmUp, load.MaxFor)
	case o.config.Method != "" && o.stream:
		return errors.New("--method and --stream name two methods: give one")
	case o.config.Method != "" && !strings.HasPrefix(o.config.Method, "/"):
		o.config.Method = "/" + o.config.Method
	case o.stream:
		o.config.Method = payload.StreamMethod
	case o.config.Method == "":
		o.config.Method = payload.InferMethod
	}
	if o.config.Message, err = o.request(); err != nil {
		return err
	}
	for _, word := range o.metadata {
		key, value, err := cutMetadata(word)
		if err != nil {
			return err
		}
		o.config.Metadata = append(o.config.Metadata, [2]string{strings.ToLower(key), value})
	}
	for _, validate := range []func() error{o.config.Validate, o.plan.Validate} {
		if err := validate(); err != nil {
			return fmt.Errorf("--%w", err)
		}
	}
	if o.tls || o.caFile != "" {
		o.config.TLS, err = trusting(o.caFile)
	}
	return err
}

// request returns the framed message to send.
func (o *benchOptions) request() ([]byte, error) {
	if o.message == "" {
		message, err := payload.Request(o.model, int(o.size))
		if err != nil {
			return nil, fmt.Errorf("--size with a --model of %d bytes: %w", len(o.model), err)
		}
		return message, nil
	}
	body, err := os.ReadFile(o.message)
	if err != nil {
		return nil, fmt.Errorf("--message: %w", err)
	}
	if len(body) > payload.MaxSize {
		return nil, fmt.Errorf("--message: got %d bytes, want at most %d", len(body), payload.MaxSize)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
	return append(framed, body...), nil
}

// trusting returns a client's TLS settings that trust a file's authorities.
func trusting(file string) (*tls.Config, error) {
	if file == "" {
		return &tls.Config{}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--ca-file: no certificate in %s", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// run makes the calls and writes the result, also of a run that was interrupted.
func (o *benchOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	client, err := load.Dial(ctx, o.config)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.warmUp > 0 {
		warm := o.plan
		warm.For, warm.Requests = o.warmUp, 0
		if _, err := client.Run(ctx, warm); err != nil {
			return err
		}
	}
	plan := o.plan
	plan.Progress = func(p load.Progress) { writeProgress(stderr, p) }
	result, err := client.Run(ctx, plan)
	if result == nil {
		return err
	}
	if written := o.write(stdout, result); written != nil {
		return errors.Join(err, written)
	}
	if err != nil {
		return fmt.Errorf("interrupted: %w", err)
	}
	failed := result.Calls() - result.OK
	if result.Calls() == 0 || float64(failed) > o.failures*float64(result.Calls()) {
		text := fmt.Sprintf("%d of %d calls failed", failed, result.Calls())
		if result.Failures["NOT_FOUND"] > 0 && o.message == "" {
			text += fmt.Sprintf("; they were for model %q, try --model if there is none", o.model)
		}
		return &failure{text: text}
	}
	return nil
}
