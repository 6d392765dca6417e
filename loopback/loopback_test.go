package loopback

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// Who asks for an address can listen there, and the kernel gives it to nobody meanwhile.
func TestFreeAddrIsFreeAndStaysSo(t *testing.T) {
	for range 20 {
		addr := freeAddr(t)
		listener, err := net.Listen("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		if port := listener.Addr().(*net.TCPAddr).Port; port < firstPort || port > lastPort {
			t.Errorf("%s is outside of %d to %d", addr, firstPort, lastPort)
		}
	}
}

// An address is given to nobody else while nobody listens there. Of 500 ports drawn of
// 22768, two would be the same in 99.6 of 100 runs.
func TestFreeAddrIsGivenOnce(t *testing.T) {
	given := make(map[string]bool)
	for range 500 {
		addr := freeAddr(t)
		if given[addr] {
			t.Fatalf("%s was given twice", addr)
		}
		given[addr] = true
	}
	// What keeps it from this process keeps it from all others.
	for addr := range given {
		if held, err := net.ListenPacket("udp4", addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("ListenPacket(%s) = %v, %v; another process would be given it too", addr, held, err)
		}
	}
}

// freeAddr is FreeAddr with an end: the address is anybody's again after the test.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	socket := held.sockets[len(held.sockets)-1]
	t.Cleanup(func() { _ = socket.Close() })
	return addr
}
