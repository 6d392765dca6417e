// Package loopback finds addresses on this machine for programs that cannot choose their
// own: servers of others that tests and benchmarks start, and gateways that are started
// again where they were.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken from below those that Linux gives to outgoing connections and to
// listeners on port 0 (net.ipv4.ip_local_port_range, 32768 to 60999): between the moment
// an address is found free and the moment its server listens, no connection of another
// test can be given it. Below 10000 live services with fixed ports.
const firstPort, lastPort = 10_000, 32_767

// attempts is how many ports are tried; at that many taken ones something else is wrong.
const attempts = 100

// FreeAddr returns an IPv4 address with a port that nobody listened on a moment ago. It is
// drawn at random, so that two programs that ask at once hardly get the same one.
func FreeAddr() (string, error) {
	var last error
	for range attempts {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort+1))
		listener, err := net.Listen("tcp4", addr)
		if err == nil {
			return addr, listener.Close()
		}
		last = err
	}
	return "", fmt.Errorf("no free port in %d tries, the last: %w", attempts, last)
}
