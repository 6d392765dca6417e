// Command grpc-go is a gRPC proxy as one usually writes it in Go: a grpc-go server whose
// handler of unknown services makes the same call with a grpc-go client, messages staying
// bytes. It is written to be fast: messages are passed on in the
// buffers they came in.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"sluice/bench/proxy/start"
)

// As Sluice has them.
const (
	streamWindow = 256 << 10
	connWindow   = 4 << 20
	maxMessage   = 64 << 20
)

// ballastSize is what the gateway reserves, too, so that both collect garbage as seldom.
const ballastSize = 32 << 20

func main() { start.Main(run) }

func run(ctx context.Context, p start.Proxy) error {
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	client, err := grpc.NewClient("passthrough:///"+p.Backend,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return err
	}
	defer client.Close()
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(forward(client)),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.MaxConcurrentStreams(1000), grpc.MaxRecvMsgSize(maxMessage),
	}
	if p.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.TLS)))
	}
	server := grpc.NewServer(options...)
	context.AfterFunc(ctx, server.Stop)
	return server.Serve(p.Listener)
}

// message is one message in the buffers it came in.
type message struct{ data mem.BufferSlice }

// codec passes messages on.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return m.data, nil // whoever sends frees it
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	data.Ref() // the receiver frees its own reference
	m.data = data
	return nil
}

// forward makes each call that comes in again on client.
func forward(client *grpc.ClientConn) grpc.StreamHandler {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return func(_ any, down grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(down)
		ctx, cancel := context.WithCancel(down.Context())
		defer cancel()
		fields, _ := metadata.FromIncomingContext(ctx)
		up, err := client.NewStream(metadata.NewOutgoingContext(ctx, fields.Copy()), both, method)
		if err != nil {
			return err
		}
		go func() {
			if !pump(down, up) {
				cancel()
				return
			}
			_ = up.CloseSend() // an error shows in the answer
		}()
		header, err := up.Header()
		if err == nil {
			err = down.SendHeader(header)
		}
		for err == nil {
			var m message
			if err = up.RecvMsg(&m); err == nil {
				err = down.SendMsg(&m)
			}
		}
		down.SetTrailer(up.Trailer())
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// pump sends a request's messages on and reports whether it came to its end.
func pump(down grpc.ServerStream, up grpc.ClientStream) bool {
	for {
		var m message
		if err := down.RecvMsg(&m); err != nil {
			return errors.Is(err, io.EOF)
		}
		if err := up.SendMsg(&m); err != nil {
			return false
		}
	}
}
