// Command backend is the model server all measurements share: a grpc-go server
// that answers every method with a fixed Open Inference Protocol answer and
// decodes nothing, so that as much of the machine as possible is left to what
// is being measured.
//
// It prints one line of JSON with its addresses once it serves, and stops
// on SIGTERM or SIGINT. GET /counters on the one to report on returns what it
// has seen, as [counters.Snapshot].
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/bench/counters"
	"sluice/bench/rawcodec"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("backend", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address for gRPC, plaintext HTTP/2")
	report := flags.String("report", "127.0.0.1:0", "address for GET /counters")
	cert := flags.String("cert", "", "certificate `file` (PEM), to serve TLS on another port as well")
	key := flags.String("key", "", "key `file` (PEM)")
	if err := flags.Parse(args); err != nil {
		return err
	}

	data, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer data.Close()
	side, err := net.Listen("tcp", *report)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer side.Close()

	seen := counters.New()
	answerer, err := newAnswerer(seen)
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(rawcodec.Codec{}),
		grpc.UnknownServiceHandler(answerer.serve),
		grpc.MaxRecvMsgSize(64 << 20),
		// Fixed windows: the server's own estimation sends a PING with every
		// batch of data, which would be charged to the proxies unevenly.
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(16 << 20),
	}
	server := grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	addresses := counters.Addresses{Data: data.Addr().String(), Report: side.Addr().String()}
	failed := make(chan error, 4)
	if *cert != "" {
		ends, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		secure, err := serveMore(failed, append(options, grpc.Creds(ends))...)
		if err != nil {
			return err
		}
		defer secure.server.Stop()
		addresses.Secure = secure.address
	}
	uncounted, err := newAnswerer(counters.New())
	if err != nil {
		return err
	}
	copies, err := serveMore(failed, append(options, grpc.UnknownServiceHandler(uncounted.serve))...)
	if err != nil {
		return err
	}
	defer copies.server.Stop()
	addresses.Copies = copies.address

	mux := http.NewServeMux()
	mux.Handle("GET /counters", seen)
	reporter := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	go func() { failed <- server.Serve(data) }()
	go func() { failed <- reporter.Serve(side) }()
	defer server.Stop()
	defer reporter.Close()

	if err := json.NewEncoder(stdout).Encode(addresses); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return errors.Join(errors.New("a server stopped early"), err)
	}
}

// another is a server on a port of its own.
type another struct {
	server  *grpc.Server
	address string
}

// serveMore serves with options that are not quite those of the first server.
func serveMore(failed chan<- error, options ...grpc.ServerOption) (*another, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a := &another{grpc.NewServer(options...), listener.Addr().String()}
	go func() { failed <- a.server.Serve(listener) }()
	return a, nil
}
