// Package relay carries gRPC calls from downstream connections to upstream
// connections as HTTP/2 frames. It knows nothing of models: it asks a [Policy]
// where a call goes and what to do when an attempt fails, and does the rest:
// framing, header compression, flow control, replay, deadlines, abuse limits,
// connection pools and drain.
//
// # Goroutines and locks
//
// Every connection has one reader. It reads a large chunk, handles all complete
// frames in it, appends the resulting frames to the write queues of other
// connections, and flushes each connection it touched before it reads again. A
// flush tries one non-blocking write; what the socket does not take is left to
// that connection's writer, a goroutine started on demand. No call has a
// goroutine of its own.
//
// Lock order: call, then one connection. Two connections are never locked at
// once; what a connection's progress means for another one (credit to give back)
// is collected under the first lock and applied after it is released. The locks of
// a pool, of the deadline wheel and of the buffers are leaves.
//
// # Flow control
//
// A connection's receive window is given back as bytes arrive, a stream's as its
// bytes leave for the other side. A stalled call therefore holds at most its own
// stream's window and stalls nobody else.
package relay
