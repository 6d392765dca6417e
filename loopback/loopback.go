// Package loopback finds addresses on this machine for programs that cannot choose their
// own: servers of others that tests and benchmarks start, and gateways that are started
// again where they were.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are taken from below those that Linux gives to outgoing connections and to
// listeners on port 0 (net.ipv4.ip_local_port_range, 32768 to 60999): between the moment
// an address is found free and the moment its server listens, no connection of another
// test can be given it. Below 10000 live services with fixed ports.
const firstPort, lastPort = 10_000, 32_767

// attempts is how many ports are tried; at that many taken ones something else is wrong.
const attempts = 100

// held are the UDP sockets that reserve the addresses given, until the process ends.
var held struct {
	sync.Mutex
	sockets []net.PacketConn
}

// FreeAddr returns an IPv4 address with a TCP port that nobody listens on and that no other
// call is given, in this process or in another one, until this process ends: also not while
// the server that it is for is yet to start, or has ended to be started again. It is safe
// for concurrent use; each call costs a file descriptor.
//
// What reserves the address is the UDP port of the same number, which nobody else needs.
func FreeAddr() (string, error) {
	var last error
	for range attempts {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort+1))
		if last = reserve(addr); last == nil {
			return addr, nil
		}
	}
	return "", fmt.Errorf("no free port in %d tries, the last: %w", attempts, last)
}

func reserve(addr string) error {
	socket, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", addr)
	if err != nil {
		_ = socket.Close()
		return err
	}
	held.Lock()
	held.sockets = append(held.sockets, socket)
	held.Unlock()
	return listener.Close()
}
