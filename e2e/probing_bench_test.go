package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/bench/procfs"
	pb "sluice/proto/inference"
)

// modelHost is a server with any model that it is asked about. It counts questions.
type modelHost struct {
	pb.UnimplementedGRPCInferenceServiceServer
	questions atomic.Int64
}

func (h *modelHost) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	h.questions.Add(1)
	return &pb.ServerReadyResponse{Ready: true}, nil
}

func (h *modelHost) ModelReady(context.Context, *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	h.questions.Add(1)
	return &pb.ModelReadyResponse{Ready: true}, nil
}

// startModelHost serves at each of the addresses until the benchmark ends.
func startModelHost(b *testing.B, addrs []string) *modelHost {
	h := new(modelHost)
	s := grpc.NewServer()
	pb.RegisterGRPCInferenceServiceServer(s, h)
	for _, addr := range addrs {
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		go func() { _ = s.Serve(lis) }() // until Stop
	}
	b.Cleanup(s.Stop)
	return h
}

// cpu is the processor time that the process has used.
func (p *process) cpu(b *testing.B) time.Duration {
	used, err := procfs.CPU(p.cmd.Process.Pid)
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// BenchmarkProbing is what it costs to ask the servers of 1,000 routes with two versions each how they are, without
// any call: where two servers have all models, and where each version has a server of its own.
func BenchmarkProbing(b *testing.B) {
	const routes, port = 1000, 39001
	for name, addr := range map[string]func(route, version int) string{
		"2 servers": func(_, version int) string { return fmt.Sprintf("127.1.0.%d:%d", version+1, port) },
		"2000 servers": func(route, version int) string {
			return fmt.Sprintf("127.1.%d.%d:%d", 1+route/100, 1+2*(route%100)+version, port)
		},
	} {
		b.Run(name, func(b *testing.B) {
			known := make(map[string]bool)
			var addrs []string
			var document strings.Builder
			document.WriteString("routes:\n")
			for r := range routes {
				for v := range 2 {
					if a := addr(r, v); !known[a] {
						known[a] = true
						addrs = append(addrs, a)
					}
				}
				fmt.Fprintf(&document, "  - {model: m%d, versions: [{name: v1, server: triton, endpoints: [%q]}, {name: v2, server: triton, endpoints: [%q]}], weights: {v1: 1, v2: 1}}\n",
					r, addr(r, 0), addr(r, 1))
			}
			host := startModelHost(b, addrs)
			s := startSluice(b, document.String())
			time.Sleep(10 * time.Second) // until all are connected to
			for b.Loop() {
				cpu, questions, begun := s.cpu(b), host.questions.Load(), time.Now()
				time.Sleep(15 * time.Second)
				took := time.Since(begun).Seconds()
				b.ReportMetric(1000*(s.cpu(b)-cpu).Seconds()/took, "cpu-ms/s")
				b.ReportMetric(float64(host.questions.Load()-questions)/took, "questions/s")
			}
			b.ReportMetric(float64(s.residentMemory(b)>>20), "MiB")
		})
	}
}
