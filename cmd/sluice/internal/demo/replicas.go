package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/sample"
)

const (
	// replicasPerVersion is the number of model servers each version has.
	replicasPerVersion = 2
	// replicaGrace is how long a model server may take over its last calls. They
	// have been answered by then, unless something is broken.
	replicaGrace = 2 * time.Second
)

// replicas are running model servers.
type replicas struct {
	servers []*sample.Server
	addrs   map[string][]string         // by version
	knobs   map[string]*sample.Knobs    // by version, of all of its servers
	of      map[string][]*sample.Server // by version
	serving errgroup.Group
}

// startReplicas serves every version on loopback ports of the system's choice.
// Whoever started them owes them a stop.
func startReplicas(ctx context.Context, versions []*sample.Model) (*replicas, error) {
	r := &replicas{
		addrs: make(map[string][]string), knobs: make(map[string]*sample.Knobs), of: make(map[string][]*sample.Server),
	}
	for _, model := range versions {
		r.knobs[model.Version] = new(sample.Knobs)
		for range replicasPerVersion {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, errors.Join(fmt.Errorf("model server %s: %w", model.Version, err), r.stop(ctx))
			}
			server := sample.NewServer(model, r.knobs[model.Version])
			r.serving.Go(func() error { return server.Serve(lis) })
			r.servers = append(r.servers, server)
			r.of[model.Version] = append(r.of[model.Version], server)
			r.addrs[model.Version] = append(r.addrs[model.Version], lis.Addr().String())
		}
	}
	return r, nil
}

// endpoints are the addresses of each version's servers.
func (r *replicas) endpoints() map[string][]string { return r.addrs }

// calls is how many calls a version's servers have got.
func (r *replicas) calls(version string) (sum uint64) {
	for _, s := range r.of[version] {
		sum += s.Counters().Begun
	}
	return sum
}

// stop ends all servers and returns what went wrong with one while it served.
// It has its own time, whether or not ctx has ended.
func (r *replicas) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replicaGrace)
	defer cancel()
	for _, server := range r.servers {
		server.Shutdown(ctx)
	}
	if err := r.serving.Wait(); err != nil {
		return fmt.Errorf("model server: %w", err)
	}
	return nil
}
