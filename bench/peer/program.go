package peer

import (
	"context"
	"fmt"
	"path/filepath"

	"sluice/bench/process"
)

// Program is a proxy of the bench's own, built from a folder of it.
type Program struct {
	Label  string // the name in flags and tables, and the folder below bench/
	About  string // what it is, as its version
	Source string // root of the module
	Folder string // where the binary is built
}

// GRPCGo is the usual way to write a gRPC proxy in Go.
func GRPCGo(source, folder string) Program {
	return Program{Label: "grpc-go", About: "a server whose handler of unknown services is a client", Source: source, Folder: folder}
}

// Bare is Sluice's frame relay without the gateway around it.
func Bare(source, folder string) Program {
	return Program{Label: "relay", About: "Sluice's frame relay alone: no model, no policies, no telemetry", Source: source, Folder: folder}
}

// DataPath is the gateway without what watches calls and repeats them.
func DataPath(source, folder string) Program {
	return Program{Label: "datapath", About: "Sluice's relay with identifying and choosing: no breakers, limits, copies, telemetry", Source: source, Folder: folder}
}

// Name returns the label.
func (p Program) Name() string { return p.Label }

func (p Program) binary() string { return filepath.Join(p.Folder, p.Label) }

// Locate builds the program.
func (p Program) Locate(ctx context.Context) (string, error) {
	if err := process.Build(ctx, p.Source, []string{"CGO_ENABLED=0"}, "-trimpath", "-o", p.binary(), "./bench/proxy/"+p.Label); err != nil {
		return "", fmt.Errorf("build %s: %w", p.Label, err)
	}
	return p.About, nil
}

// Launch starts the program, which has no configuration but its flags.
func (p Program) Launch(site Site) Launch {
	args := []string{"-listen", site.Listen, "-backend", site.Backend}
	if site.TLS != nil {
		args = append(args, "-cert", site.TLS.Cert, "-key", site.TLS.Key)
	}
	return Launch{Command: &process.Command{Path: p.binary(), Args: args, Env: site.goEnv()}}
}
