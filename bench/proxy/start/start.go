// Package start is what the bench's own proxies have in common: flags, listener, signals.
package start

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// Proxy is what to run where.
type Proxy struct {
	Listener net.Listener // closed when the context of run ends
	Backend  string       // host:port
	TLS      *tls.Config  // nil: plaintext
}

// Main reads the flags, runs a proxy until SIGTERM or SIGINT, and exits. What run returns
// after that is of no interest.
func Main(run func(context.Context, Proxy) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	proxy, err := parse(os.Args[0], os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err == nil {
		context.AfterFunc(ctx, func() { _ = proxy.Listener.Close() })
		err = run(ctx, proxy)
	}
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(name string, args []string) (p Proxy, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`address` to accept on")
	flags.StringVar(&p.Backend, "backend", "", "`address` to forward to, plaintext")
	cert := flags.String("cert", "", "certificate `file` (PEM); without it, plaintext")
	key := flags.String("key", "", "key `file` (PEM)")
	if err := flags.Parse(args); err != nil {
		return Proxy{}, err
	}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return Proxy{}, err
		}
		p.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	}
	p.Listener, err = net.Listen("tcp", *listen)
	return p, err
}
