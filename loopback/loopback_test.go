package loopback

import (
	"net"
	"testing"
)

// Who asks for an address can listen there, and the kernel gives it to nobody meanwhile.
func TestFreeAddrIsFreeAndStaysSo(t *testing.T) {
	for range 20 {
		addr, err := FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
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
