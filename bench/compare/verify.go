package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"

	"sluice/bench/payload"
	"sluice/bench/peer"
	"sluice/bench/rawcodec"
)

// verifySizes are the framed request sizes a peer has to carry before it is
// measured: one that fits any window and one that needs credit to be returned.
var verifySizes = []int{4 << 10, 512 << 10}

// errTerms says that a peer's TLS is not like the others': their costs would not compare.
var errTerms = errors.New("TLS on other terms")

// verify makes one call of each size with a real gRPC client, which looks at every byte of
// the answer, and at the terms of TLS.
func verify(ctx context.Context, m *member) error {
	want, err := payload.Answer(payload.AnswerSize)
	if err != nil {
		return err
	}
	security := insecure.NewCredentials()
	if m.trust != nil {
		security = credentials.NewTLS(m.trust)
	}
	connection, err := grpc.NewClient("passthrough:///"+m.address,
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawcodec.Codec{})),
	)
	if err != nil {
		return fmt.Errorf("verify %s: %w", m.address, err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, size := range verifySizes {
		request, err := payload.Request(payload.Model, size)
		if err != nil {
			return err
		}
		answer := rawcodec.Message{Keep: true}
		var far grpcpeer.Peer
		err = connection.Invoke(ctx, payload.InferMethod, &rawcodec.Message{Body: payload.Message(request)}, &answer, grpc.Peer(&far))
		if err != nil {
			return fmt.Errorf("call of %s: %w", payload.Size(size).Text(), err)
		}
		if info, ok := far.AuthInfo.(credentials.TLSInfo); ok {
			if err := peer.TLSTerms(info.State); err != nil {
				return fmt.Errorf("%s: %w: %w", m.name(), errTerms, err)
			}
		}
		if !bytes.Equal(answer.Body, payload.Message(want)) {
			return fmt.Errorf("call of %s: the answer has %d bytes and is not the backend's", payload.Size(size).Text(), len(answer.Body))
		}
	}
	return nil
}
