package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sluice/bench/counters"
	"sluice/bench/peer"
	"sluice/bench/process"
	"sluice/loopback"
)

// startPatience is how long a process may take until it answers a call.
const startPatience = 10 * time.Second

// fleet is the backend and the peers in front of it, all running.
type fleet struct {
	folder    string
	cert      *peer.TLS
	trust     *tls.Config // for who connects with TLS
	backend   *process.Process
	addresses counters.Addresses
	workers   int // as [peer.Site] has them
	members   []*member
}

// member is a peer that has been started, or the backend's own address for a
// peer with nothing to start.
type member struct {
	peer    peer.Peer
	trust   *tls.Config // nil: it speaks plaintext
	address string
	process *process.Process // nil for direct
}

// name returns the peer's name.
func (m *member) name() string { return m.peer.Name() }

// of returns the members that speak TLS, or those that do not.
func (f *fleet) of(secure bool) (out []*member) {
	for _, m := range f.members {
		if (m.trust != nil) == secure {
			out = append(out, m)
		}
	}
	return out
}

// startFleet builds and starts the backend, then each peer, once for plaintext and once
// for TLS if both are asked for. On an error everything already started is stopped.
func startFleet(ctx context.Context, root, folder string, peers []peer.Peer, secure []bool, workers int) (_ *fleet, err error) {
	f := &fleet{folder: folder, workers: workers}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	if f.cert, f.trust, err = makeCertificate(folder); err != nil {
		return nil, err
	}
	if err := f.startBackend(ctx, root); err != nil {
		return nil, err
	}
	for _, s := range secure {
		for _, p := range peers {
			if err := f.add(ctx, p, s); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// startBackend builds the backend, starts it and reads its addresses.
func (f *fleet) startBackend(ctx context.Context, root string) error {
	binary := filepath.Join(f.folder, "backend")
	if err := process.Build(ctx, root, nil, "-o", binary, "./bench/backend"); err != nil {
		return fmt.Errorf("build backend: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start backend: %w", err)
	}
	defer reader.Close()
	f.backend, err = process.Start(process.Command{Path: binary, Args: []string{"-cert", f.cert.Cert, "-key", f.cert.Key}}, binary+".log", writer)
	// The backend has its own end; ours would keep the pipe open after it.
	if err := errors.Join(err, writer.Close()); err != nil {
		return err
	}
	if err := reader.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		return fmt.Errorf("start backend: %w", err)
	}
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("start backend: %w: %s", err, f.backend.Log())
	}
	if err := json.Unmarshal(line, &f.addresses); err != nil {
		return fmt.Errorf("start backend: %w", err)
	}
	return nil
}

// add starts one peer and waits until a call through it is answered correctly.
func (f *fleet) add(ctx context.Context, p peer.Peer, secure bool) error {
	site := peer.Site{Folder: filepath.Join(f.folder, "peers", p.Name()), Backend: f.addresses.Data, Copies: f.addresses.Copies, Workers: f.workers}
	m := &member{peer: p}
	if secure {
		site.Folder += "-tls"
		site.TLS, m.trust = f.cert, f.trust
		if o, ok := p.(peer.Opaque); ok && o.Opaque() {
			site.Backend = f.addresses.Secure
		}
	}
	m.address = site.Backend
	var err error
	if site.Listen, err = loopback.FreeAddr(); err != nil {
		return err
	}
	launch := p.Launch(site)
	if launch.Command != nil {
		if err := writeFiles(site.Folder, launch.Files); err != nil {
			return fmt.Errorf("%s: %w", p.Name(), err)
		}
		m.address = site.Listen
		m.process, err = process.Start(*launch.Command, filepath.Join(site.Folder, "log"), nil)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
	f.members = append(f.members, m)
	return m.awaitAnswer(ctx)
}

// awaitAnswer calls until the right answer comes, the process ends, or patience does.
func (m *member) awaitAnswer(ctx context.Context) error {
	deadline, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	var ended <-chan struct{}
	if m.process != nil {
		ended = m.process.Ended()
	}
	for {
		err := verify(deadline, m)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended at once: %s", m.name(), m.process.Log())
		case <-deadline.Done():
			return errors.Join(fmt.Errorf("%s does not answer: %w", m.name(), err), m.said())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// said returns what the process logged, as an error to join to another.
func (m *member) said() error {
	if m.process == nil || m.process.Log() == "" {
		return nil
	}
	return fmt.Errorf("%s said: %s", m.name(), m.process.Log())
}

// bodyFile is where writeBodies puts a request of a size.
func (f *fleet) bodyFile(size int) string {
	return filepath.Join(f.folder, fmt.Sprintf("request-%d", size))
}

// stop ends every process of the fleet.
func (f *fleet) stop() {
	for _, m := range f.members {
		if m.process != nil {
			m.process.Stop()
		}
	}
	if f.backend != nil {
		f.backend.Stop()
	}
}

// writeFiles creates a peer's folder with its files. Others may read it: a
// proxy started by root gives its workers to another user.
func writeFiles(folder string, files []peer.File) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(folder, file.Name), []byte(file.Content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// standIn has stand-ins for ports and paths.
var standIn = peer.Site{Folder: "FOLDER", Listen: "127.0.0.1:8001", Backend: "127.0.0.1:9001", Copies: "127.0.0.1:9002"}

// printLaunch writes how a peer is started, with stand-ins for ports and paths.
func printLaunch(w io.Writer, p peer.Peer, version string, workers int) {
	site := standIn
	site.Workers = workers
	launch := p.Launch(site)
	fmt.Fprintf(w, "# %s (%s)\n", p.Name(), version)
	if launch.Command == nil {
		fmt.Fprint(w, "nothing is started\n\n")
		return
	}
	fmt.Fprintln(w, launch.Command)
	for _, file := range launch.Files {
		fmt.Fprintf(w, "\n## FOLDER/%s\n%s", file.Name, file.Content)
	}
	fmt.Fprintln(w)
}
