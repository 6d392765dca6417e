package load

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// receiver adds up the bytes of the messages a server receives.
type receiver struct{ bytes *atomic.Int64 }

func received(bytes *atomic.Int64) stats.Handler { return receiver{bytes} }

func (r receiver) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		r.bytes.Add(int64(in.Length))
	}
}

func (receiver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (receiver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (receiver) HandleConn(context.Context, stats.ConnStats)                       {}
