//go:build !linux

package relay

import "net"

// loops are for Linux; elsewhere each connection has a goroutine that reads it.
type loops struct{}

func (*loops) adopt(net.Conn, *Relay) (transport, error) { return nil, nil }
func (*loops) stop()                                     {}

// polled is never made.
type polled struct {
	fdTransport
	fd  int
	tls *tlsTransport
}

func (*polled) serve(*conn, *worker) {}
