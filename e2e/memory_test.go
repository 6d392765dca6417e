package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/relay"
)

// residentMemory is the memory that a process occupies, in bytes.
func (p *process) residentMemory(t testing.TB) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func TestIdleConnectionsAreSmall(t *testing.T) {
	const (
		connections = 900 // the gateway takes 1,000 from one address
		most        = 100 << 10
	)
	v1 := startBackend(t, "v1")
	s := startSluice(t, routeTo(v1.addr))
	// Buffers of the first calls are no connection's.
	for range 10 {
		callOnce(t, s.addr).Close()
	}
	before := s.residentMemory(t)
	for range connections {
		nc := callOnce(t, s.addr)
		defer nc.Close()
	}
	time.Sleep(time.Second)
	each := (s.residentMemory(t) - before) / connections
	t.Logf("%d KiB per idle connection, of %d that have made one call each", each>>10, connections)
	if each > most {
		t.Errorf("an idle connection takes %d KiB, want at most %d", each>>10, most>>10)
	}
}

// callOnce opens a connection and makes one call through it.
func callOnce(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := askOnce(nc); err != nil {
		t.Fatal(err)
	}
	return nc
}

// askOnce speaks on a new connection: one ModelReady, and its answer's end.
func askOnce(nc io.ReadWriter) error {
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(nc, nc)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	block := encode(grpcFields(":path", "/"+inferenceService+"/ModelReady"))
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}); err != nil {
		return err
	}
	if err := framer.WriteData(1, true, message(0, "\x0a\x08penguins")); err != nil {
		return err
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return nil
			}
		case *http2.RSTStreamFrame:
			return fmt.Errorf("the call was reset: %v", f.ErrCode)
		}
		if err != nil {
			return err
		}
	}
}

func TestClientsThatNeverReadAreBoundedInMemory(t *testing.T) {
	const (
		clients = 200
		slack   = 64 << 20 // the process itself, pools, and what the collector has not looked at yet
	)
	limits := relay.Defaults()
	bound := limits.BufferedTotal + clients*int64(limits.WriteQueue) + slack
	waiting := int64(clients * (limits.StreamWindow + limits.WriteQueue)) // once everything is full
	s := startSluice(t, interopRoute(startBulk(t), ""))
	other := dial(t, s.addr)
	stop := startEmptyCalls(t, other)
	before := s.residentMemory(t)
	for range clients {
		leaveUnread(t, s.addr) // each asks for 64 MiB
	}
	// First the system's own buffers fill, some MiB for each connection.
	var now, most int64
	eventually(t, 60*time.Second, "memory no longer grows", func() error {
		last := now
		time.Sleep(time.Second)
		now = s.residentMemory(t) - before
		most = max(most, now)
		if now < waiting/2 || now > last+1<<20 {
			return fmt.Errorf("%d MiB, a second ago %d", now>>20, last>>20)
		}
		return nil
	})
	calls, slowest := stop()
	t.Logf("%d clients that never read take at most %d MiB; %d calls beside them, the slowest %v",
		clients, most>>20, calls, slowest.Round(time.Millisecond))
	if most > bound {
		t.Errorf("%d clients that never read take %d MiB, want at most %d", clients, most>>20, bound>>20)
	}
	if calls == 0 || slowest > patience {
		t.Errorf("%d calls beside them, the slowest %v; want at most %v", calls, slowest, patience)
	}
}
