package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/loopback"
	pb "sluice/proto/inference"
	"sluice/sample"
)

// targetVariable tells the client role where the gateway is.
const targetVariable = "SLUICE_E2E_TARGET"

// backendRole serves version v1 of the sample model until it is killed. It prints
// its address.
func backendRole() error {
	m, err := sample.Load("v1")
	if err != nil {
		return err
	}
	addr, err := loopback.FreeAddr()
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("listening on", lis.Addr())
	return sample.NewServer(m, nil).Serve(lis)
}

// clientStreams is how many streams the client role keeps open.
const clientStreams = 50

// clientRole keeps streams of predictions busy until it is killed. It prints that
// all of them are under way.
func clientRole() error {
	cc, err := grpc.NewClient(os.Getenv(targetVariable), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	begun := make(chan struct{}, clientStreams)
	streams, ctx := errgroup.WithContext(context.Background())
	for range clientStreams {
		streams.Go(func() error {
			stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(ctx)
			if err != nil {
				return err
			}
			for i := 0; ; i++ {
				if err := stream.Send(sample.NewRequest(model, heldBack()[0].Measurements)); err != nil {
					return err
				}
				if _, err := stream.Recv(); err != nil {
					return err
				}
				if i == 0 {
					begun <- struct{}{}
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	for range clientStreams {
		select {
		case <-begun:
		case <-ctx.Done():
			return errors.Join(streams.Wait(), cc.Close())
		}
	}
	fmt.Println("streaming")
	return errors.Join(streams.Wait(), cc.Close())
}
