package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/bench/peer"
)

// optional are peers that are measured only when named.
var optional = []string{"haproxy-tcp", "relay", "datapath", "sluice-plain", "sluice-quiet", "sluice-shadow", "sluice-drift", "sluice-labels", "sluice-labels-read", "sluice-unsampled", "sluice-sampled", "sluice-10", "sluice-10k"}

// groups are names for several peers.
var groups = map[string][]string{
	// What is there of the gateway: bare, with policies, with these and telemetry, and with a shadow, too.
	"gateway": {"sluice", "sluice-plain", "sluice-quiet", "sluice-shadow"},
}

// errUsage says that the command line is wrong, which only what it names tells.
var errUsage = errors.New("usage")

// bounds are peers that show what is possible at most, not an alternative.
var bounds = []string{"haproxy-tcp", "direct"}

// known returns every peer there is, in the order of the tables.
func (o *options) known(root, folder string) []peer.Peer {
	gateways := []*peer.Sluice{{Source: root, Folder: folder}}
	for _, v := range peer.Variants() {
		gateways = append(gateways, &peer.Sluice{Variant: v, Source: root, Folder: folder})
	}
	var peers []peer.Peer
	for _, g := range append(gateways, o.extra...) {
		g.Env = o.sluiceEnv
		if o.routes != "" {
			g.Variant.Routes = o.ownRoutes
		}
		peers = append(peers, g)
	}
	return append(peers, peer.Bare(root, folder), peer.DataPath(root, folder),
		peer.Nghttpx{}, peer.HAProxy{}, peer.Envoy{Binary: o.envoy}, peer.Nginx{}, peer.GRPCGo(root, folder),
		peer.HAProxy{TCP: true}, peer.Direct{})
}

// ownRoutes are those of -sluice-routes, where they are needed.
func (o *options) ownRoutes(site peer.Site) string {
	return strings.NewReplacer(standIn.Backend, site.Backend, standIn.Copies, site.Copies).Replace(o.routes)
}

// choose locates the peers asked for. One that is not installed is skipped and
// reported as such; any other trouble is an error, a peer named that does not
// exist too.
func (o *options) choose(ctx context.Context, all []peer.Peer) (chosen []peer.Peer, versions []peerVersion, skipped []skippedPeer, err error) {
	var names []string
	for _, p := range all {
		names = append(names, p.Name())
	}
	for _, name := range o.peers {
		if !slices.Contains(names, name) {
			return nil, nil, nil, fmt.Errorf("%w: -peers: got %q, want some of %s", errUsage, name, strings.Join(names, ","))
		}
	}
	if !slices.Contains(names, o.reference) {
		return nil, nil, nil, fmt.Errorf("%w: -reference: got %q, want one of %s", errUsage, o.reference, strings.Join(names, ","))
	}
	for _, p := range all {
		wanted := slices.Contains(o.peers, p.Name())
		if len(o.peers) == 0 {
			wanted = !slices.Contains(optional, p.Name())
		}
		if !wanted {
			continue
		}
		version, err := p.Locate(ctx)
		if errors.Is(err, peer.ErrMissing) {
			skipped = append(skipped, skippedPeer{p.Name(), err.Error()})
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		chosen = append(chosen, p)
		versions = append(versions, peerVersion{p.Name(), version})
	}
	if len(chosen) == 0 {
		return nil, nil, nil, errors.New("no peer is left to measure")
	}
	return chosen, versions, skipped, nil
}
