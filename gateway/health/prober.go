package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// bufferSize is that of a connection, each way, in bytes: questions are short, and
	// connections may be many.
	bufferSize = 4 << 10
	// maxAnswer bounds an answer, in bytes; a longer one is a sign of life, too.
	maxAnswer = 1 << 20
)

// prober asks one server, over one connection while answers come. It belongs to one
// goroutine.
type prober struct {
	server  Server
	timeout time.Duration // of one question
	conn    *grpc.ClientConn
	// mute are the questions that the server does not know. It may know them when it
	// has been out of reach and is back.
	mute map[question]bool
}

// question is one that a server may not know.
type question string

func newProber(s Server, timeout time.Duration) *prober {
	return &prober{server: s, timeout: timeout, mute: make(map[question]bool)}
}

// close ends the connection. It may be called again, and the prober used again.
func (p *prober) close() {
	if p.conn != nil {
		_ = p.conn.Close() // of a connection that nobody needs any more
		p.conn = nil
	}
}

// ask puts one question, unless the server is known not to know it. A connection over
// which no answer has come is not used again: it may be the connection that is dead,
// and a new one is not held back by what gRPC does between attempts.
func (p *prober) ask(ctx context.Context, q question, put func(context.Context, grpc.ClientConnInterface) finding) finding {
	if p.mute[q] {
		return finding{}
	}
	if p.conn == nil {
		conn, err := dial(p.server)
		if err != nil {
			return finding{failed, err.Error()}
		}
		p.conn = conn
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	f := put(ctx, p.conn)
	if ctx.Err() != nil && (f.verdict == alive || f.verdict == unasked) {
		// The server knows the deadline, too: what it says when that has passed is no
		// sign of life.
		f = finding{failed, "no answer"}
	}
	switch f.verdict {
	case unasked:
		p.mute[q] = true
	case failed:
		p.lost()
	}
	return f
}

// lost begins anew with a server that has not answered.
func (p *prober) lost() {
	p.close()
	clear(p.mute)
}

func dial(s Server) (*grpc.ClientConn, error) {
	creds, authority := insecure.NewCredentials(), s.Addr
	if s.Transport != nil {
		var err error
		if creds, err = s.Transport.Credentials(); err != nil {
			return nil, err
		}
		authority = s.Transport.ServerName()
	}
	return grpc.NewClient("passthrough:///"+s.Addr,
		grpc.WithTransportCredentials(creds), grpc.WithAuthority(authority), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUserAgent("sluice-health"))
}

// judge says what an answer without good news means.
func judge(err error) finding {
	switch s := status.Convert(err); s.Code() {
	case codes.Unimplemented:
		return finding{verdict: unasked}
	case codes.Unavailable:
		return finding{failed, cause(s.Message())}
	case codes.DeadlineExceeded:
		return finding{failed, "no answer"}
	default:
		return finding{verdict: alive}
	}
}

// cause leaves out what grpc-go says around the cause of a failed connection.
func cause(message string) string {
	const marker = `desc = "`
	if i := strings.LastIndex(message, marker); i >= 0 {
		message = strings.TrimSuffix(message[i+len(marker):], `"`)
	}
	return strings.TrimPrefix(message, "transport: Error while dialing: ")
}

// aboutModels asks about models, of whose server base is known, and hands each finding
// to found. It ends with the first model whose answer does not come, and returns it.
func (p *prober) aboutModels(ctx context.Context, base finding, models []Model, found func(Model, finding)) (stuck *Model) {
	greeted := false
	for i, m := range models {
		f := base
		if base.verdict != failed {
			if own := p.aboutModel(ctx, m); own.verdict != unasked {
				// What the server says of itself may be about other models: Triton and MLServer
				// are not ready while one of theirs is not.
				f = own
			} else if base.verdict == unasked && !greeted {
				base, greeted = p.greeting(ctx), true
				f = base
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		found(m, f)
		if f.verdict == failed && base.verdict != failed {
			return &models[i]
		}
	}
	return nil
}

// Ask asks a target once, now. It returns nil for a good answer, else what is wrong; a
// question takes until ctx ends at most.
func Ask(ctx context.Context, t Target) error {
	const unlimited = time.Hour // ctx ends it
	p := newProber(t.Server, unlimited)
	defer p.close()
	f := finding{failed, "no answer"}
	p.aboutModels(ctx, p.aboutServer(ctx), []Model{t.Model}, func(_ Model, found finding) { f = found })
	switch f.verdict {
	case refusing, failed:
		return errors.New(f.why)
	}
	return nil
}

// notReady words what a server has said of a model.
func notReady(format string, args ...any) finding {
	return finding{refusing, fmt.Sprintf(format, args...)}
}
