package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/proto/inference"
	"sluice/routing"
)

// standIn is a gateway that can be told to do wrong, which the real one cannot.
// It forwards ModelInfer by the router's table and one connection per endpoint.
type standIn struct {
	inference.UnimplementedGRPCInferenceServiceServer
	listen string
	router *routing.Router
	fault  fault
	ready  chan struct{}
	lis    net.Listener

	died  chan struct{}
	mu    sync.Mutex
	calls int
	conns map[string]*grpc.ClientConn
}

// fault is what a stand-in does wrong.
type fault struct {
	failEvery int    // every so many calls, one fails
	anonymous bool   // answers do not say who gave them
	deaf      bool   // no call is answered
	wrong     string // the version that serves all calls
	dies      bool   // Run fails at the tenth call
}

// standInWith makes stand-ins with a fault, for a Config.
func standInWith(f fault) func(string, *routing.Router, *routing.Watcher) (Gateway, error) {
	return func(listen string, router *routing.Router, _ *routing.Watcher) (Gateway, error) {
		return &standIn{
			listen: listen, router: router, fault: f,
			ready: make(chan struct{}), died: make(chan struct{}), conns: make(map[string]*grpc.ClientConn),
		}, nil
	}
}

func (s *standIn) Ready() <-chan struct{} { return s.ready }
func (s *standIn) Addr() net.Addr         { return s.lis.Addr() }
func (s *standIn) AdminAddr() net.Addr    { return nil }

func (s *standIn) Run(ctx context.Context) (err error) {
	if s.lis, err = net.Listen("tcp", s.listen); err != nil {
		return err
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	inference.RegisterGRPCInferenceServiceServer(server, s)
	close(s.ready)

	served := make(chan error, 1)
	go func() {
		err := server.Serve(s.lis)
		if errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			err = nil
		}
		served <- err
	}()
	defer func() {
		for _, conn := range s.conns {
			conn.Close()
		}
	}()
	select {
	case <-ctx.Done():
		server.GracefulStop()
		return <-served
	case <-s.died:
		server.Stop()
		return errors.Join(<-served, errors.New("died"))
	}
}

func (s *standIn) ModelInfer(ctx context.Context, req *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	if s.fault.deaf {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	table := s.router.Current()
	route, ok := table.Route(req.GetModelName())
	if !ok {
		return nil, status.Error(codes.NotFound, "no route")
	}
	version, err := s.choose(route)
	if err != nil {
		return nil, err
	}
	if !s.fault.anonymous {
		header := metadata.Pairs("sluice-version", version.Name, "sluice-revision", strconv.FormatUint(table.Revision(), 10))
		if err := grpc.SetHeader(ctx, header); err != nil {
			return nil, err
		}
	}

	s.mu.Lock()
	s.calls++
	calls := s.calls
	conn, err := s.connection(version.Endpoints[calls%len(version.Endpoints)])
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.fault.dies && calls == 10 {
		close(s.died)
	}
	if s.fault.failEvery > 0 && calls%s.fault.failEvery == 0 {
		return nil, status.Error(codes.DataLoss, "told to fail")
	}
	return inference.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, req)
}

func (s *standIn) choose(route *routing.Route) (*routing.Version, error) {
	if s.fault.wrong != "" {
		version, _ := route.Version(s.fault.wrong)
		return version, nil
	}
	choice, err := route.Choose("", "", rand.Uint64())
	return choice.Version, err
}

// connection is that to an endpoint; the lock must be held.
func (s *standIn) connection(addr string) (*grpc.ClientConn, error) {
	if conn := s.conns[addr]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		s.conns[addr] = conn
	}
	return conn, err
}
