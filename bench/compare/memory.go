package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// memoryReport is a run of the memory modes, as -o json prints it.
type memoryReport struct {
	Machine   machine           `json:"machine"`
	Peers     []peerVersion     `json:"peers"`
	TLS       bool              `json:"tls,omitempty"`
	Workers   int               `json:"workers,omitempty"`
	SluiceEnv []string          `json:"sluice_env,omitempty"`
	Idle      []idleMemory      `json:"idle,omitempty"`
	NeverRead []neverReadMemory `json:"never_read,omitempty"`
}

// measureMemory runs the memory modes asked for, one peer after the other.
func (o *options) measureMemory(ctx context.Context, y *yard, now session, stdout, stderr io.Writer) error {
	f, err := y.start(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	out := memoryReport{Machine: now.Machine, Peers: now.Peers, TLS: o.secure, Workers: now.Workers, SluiceEnv: now.SluiceEnv}
	var failed error
	for _, m := range f.members {
		if m.process == nil {
			continue // there is no proxy whose memory could be read
		}
		if o.idle > 0 {
			idle, err := measureIdle(ctx, m, o.idle, o.settle, stderr)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name(), err))
				continue
			}
			out.Idle = append(out.Idle, idle)
		}
		if o.neverRead > 0 {
			never, err := measureNeverRead(ctx, f, m, o, stderr)
			if err != nil {
				failed = errors.Join(failed, err, m.said())
				continue
			}
			out.NeverRead = append(out.NeverRead, never)
		}
	}
	out.Machine.LoadAfter = loadAverage()
	return errors.Join(out.write(stdout, o.output), failed)
}

// write prints the report in one of the formats of -o.
func (r *memoryReport) write(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	fmt.Fprintln(w, r.Machine)
	for _, p := range r.Peers {
		fmt.Fprintf(w, "  %s: %s\n", p.Name, p.Version)
	}
	fmt.Fprintf(w, "  %s\n", workersText(r.Workers))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Idle) > 0 {
		fmt.Fprintf(table, "\nidle connections, %s, after one call each; resident memory\n", r.security())
		fmt.Fprintln(table, "  peer\tconnections\tbefore MiB\tidle MiB\tclosed MiB\tKiB per connection")
		for _, m := range r.Idle {
			fmt.Fprintf(table, "  %s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", m.Peer, m.Connections,
				mib(m.Before), mib(m.Idle), mib(m.After), float64(m.PerConnection)/1024)
		}
	}
	if len(r.NeverRead) > 0 {
		fmt.Fprintf(table, "\nclients that never read, %s; resident memory\n", r.security())
		fmt.Fprintln(table, "  peer\tclients x calls\tcalls at backend\toffered MiB\tbefore MiB\tpeak MiB\tafter MiB\tpeak KiB per client\tothers meanwhile")
		for _, m := range r.NeverRead {
			fmt.Fprintf(table, "  %s\t%dx%d\t%d\t%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t%s\n", m.Peer, m.Clients, m.Streams, m.Arrived,
				mib(m.Offered), mib(m.Before), mib(m.Peak), mib(m.After), float64(m.PerClient)/1024, served(m))
		}
	}
	return table.Flush()
}

func (r *memoryReport) security() string {
	if r.TLS {
		return "TLS"
	}
	return "plaintext"
}

// served says what an ordinary client met while others did not read.
func served(m neverReadMemory) string {
	if !m.Served {
		return "not served"
	}
	return fmt.Sprintf("served in %d ms", m.ServedMillis)
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
