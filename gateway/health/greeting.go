package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// maxGreeting bounds the frame a server begins with, in bytes.
const maxGreeting = 16 << 10

// greeting connects anew and waits for the server's first frame, its SETTINGS: a
// process that is stopped does not send it, though its kernel takes the connection.
func (p *prober) greeting(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err := greet(ctx, p.server)
	if err == nil {
		return finding{verdict: alive}
	}
	p.lost()
	if ctx.Err() != nil {
		return finding{failed, "no answer"}
	}
	return finding{failed, err.Error()}
}

func greet(ctx context.Context, s Server) error {
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = tcp.Close() }()
	// Whatever blocks below ends with ctx.
	defer context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })()
	conn := tcp
	if s.Transport != nil {
		creds, err := s.Transport.Credentials()
		if err != nil {
			return err
		}
		if conn, _, err = creds.ClientHandshake(ctx, s.Transport.ServerName(), tcp); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.SetMaxReadFrameSize(maxGreeting)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		return fmt.Errorf("no HTTP/2: %w", err)
	}
	if _, ok := frame.(*http2.SettingsFrame); !ok {
		return errors.New("no HTTP/2: it does not begin with SETTINGS")
	}
	return framer.WriteGoAway(0, http2.ErrCodeNo, nil)
}
