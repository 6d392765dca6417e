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
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bench/counters"
	"sluice/bench/peer"
	"sluice/bench/process"
	"sluice/loopback"
)

// startPatience is how long a process may take until it answers a call, on a machine that does other
// work, too. Nobody waits that long for one that has ended.
const startPatience = 30 * time.Second

// startAttempts is how often a peer is started if somebody else has taken its address first.
const startAttempts = 3

// yard is what fleets are started from, as often as somebody wants one.
type yard struct {
	folder string
	cert   *peer.TLS
	trust  *tls.Config // for who connects with TLS
	peers  []peer.Peer
	secure []bool // whether peers take plaintext, TLS or, with both values, each
	// workers is what [peer.Site] has.
	workers int
	starts  int // fleets so far; each has a folder of its own
}

// fleet is the backend and the peers in front of it, all running.
type fleet struct {
	*yard
	number    int // from 1
	backend   *process.Process
	addresses counters.Addresses
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

// member returns the peer of a name that speaks TLS, or the one that does not. There must be one.
func (f *fleet) member(name string, secure bool) *member {
	i := slices.IndexFunc(f.members, func(m *member) bool { return m.name() == name && (m.trust != nil) == secure })
	return f.members[i]
}

// prepare builds the backend and makes the certificate that fleets have in common.
func prepare(ctx context.Context, root, folder string, peers []peer.Peer, secure []bool, workers int) (*yard, error) {
	y := &yard{folder: folder, peers: peers, secure: secure, workers: workers}
	var err error
	if y.cert, y.trust, err = makeCertificate(folder); err != nil {
		return nil, err
	}
	if err := process.Build(ctx, root, nil, "-o", y.backendBinary(), "./bench/backend"); err != nil {
		return nil, fmt.Errorf("build backend: %w", err)
	}
	return y, nil
}

// backendBinary is where prepare builds the backend.
func (y *yard) backendBinary() string { return filepath.Join(y.folder, "backend") }

// start starts a backend, then each peer, once for plaintext and once for TLS if both are asked
// for. On an error everything already started is stopped.
func (y *yard) start(ctx context.Context) (_ *fleet, err error) {
	y.starts++
	f := &fleet{yard: y, number: y.starts}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	if err := f.startBackend(); err != nil {
		return nil, err
	}
	for _, s := range y.secure {
		for _, p := range y.peers {
			if err := f.add(ctx, p, s); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// place is where a process of this fleet has its files. An earlier fleet's are in another: what a gateway left
// there must not be what the next one starts from.
func (f *fleet) place(name string) string {
	return filepath.Join(f.folder, fmt.Sprintf("start-%d", f.number), name)
}

// startBackend starts the backend and reads its addresses.
func (f *fleet) startBackend() error {
	folder := f.place("backend")
	if err := writeFiles(folder, nil); err != nil {
		return fmt.Errorf("start backend: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start backend: %w", err)
	}
	defer reader.Close()
	f.backend, err = process.Start(process.Command{Path: f.backendBinary(), Args: []string{"-cert", f.cert.Cert, "-key", f.cert.Key}}, filepath.Join(folder, "log"), writer)
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

// add starts one peer and waits until a call through it is answered correctly. Between the moment its
// address is found free and the moment it listens somebody else may take it: then it gets another one.
func (f *fleet) add(ctx context.Context, p peer.Peer, secure bool) error {
	for attempt := 1; ; attempt++ {
		err := f.tryToAdd(ctx, p, secure)
		// In the words of strerror, which all peers print.
		if err == nil || attempt == startAttempts || !strings.Contains(strings.ToLower(err.Error()), "address already in use") {
			return err
		}
	}
}

func (f *fleet) tryToAdd(ctx context.Context, p peer.Peer, secure bool) error {
	site := peer.Site{Folder: f.place(p.Name()), Backend: f.addresses.Data, Copies: f.addresses.Copies, Workers: f.workers}
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
	if err := m.awaitAnswer(ctx); err != nil {
		m.stop()
		return err
	}
	f.members = append(f.members, m)
	return nil
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
		if err == nil || errors.Is(err, errTerms) {
			return err
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
func (y *yard) bodyFile(size int) string {
	return filepath.Join(y.folder, fmt.Sprintf("request-%d", size))
}

// stop ends every process of the fleet, all at once: some take a moment.
func (f *fleet) stop() {
	var all sync.WaitGroup
	for _, m := range f.members {
		all.Go(m.stop)
	}
	all.Wait()
	if f.backend != nil {
		f.backend.Stop()
	}
}

// stop ends the member's processes, if it has any.
func (m *member) stop() {
	if m.process != nil {
		m.process.Stop()
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
