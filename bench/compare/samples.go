package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// sample is one measurement of one peer. A sample with Invalid set has no
// figures: a proxy that answers calls itself is faster than one that forwards them.
type sample struct {
	Scenario scenario `json:"scenario"`
	Kind     kind     `json:"kind"`
	Peer     string   `json:"peer"`
	Round    int      `json:"round"`             // from 0
	Turn     int      `json:"turn"`              // from 0: how many peers were measured before it in its round
	Workers  int      `json:"workers,omitempty"` // as -workers says; 0: one, and Go's default

	Calls     uint64  `json:"calls"`
	Seconds   float64 `json:"seconds"`
	CPUMicros float64 `json:"cpu_us_per_call"` // the proxy's processes; 0 for direct
	PerSecond float64 `json:"calls_per_second"`
	Rate      float64 `json:"asked_per_second,omitempty"` // of kind half

	// Latencies, in microseconds. Of kind half they count from when a call was due. Quantiles that too few calls lie
	// beyond are left out.
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us,omitempty"`
	P999 float64 `json:"p99_9_us,omitempty"`

	GeneratorMicros float64 `json:"generator_cpu_us_per_call"`
	// Of kind half: the share of the calls that found no stream free when they were due, and how late the generator itself
	// began the others, in microseconds. Both are part of the latencies.
	Waited float64 `json:"waited_share,omitempty"`
	LagP50 float64 `json:"lag_p50_us,omitempty"`
	LagP99 float64 `json:"lag_p99_us,omitempty"`
	// OtherCores is the number of cores kept busy by processes that have no
	// part in the run.
	OtherCores float64 `json:"other_cores"`
	Invalid    string  `json:"invalid,omitempty"`
}

// String returns a sample's figures on one line.
func (s sample) String() string {
	if s.Invalid != "" {
		return "INVALID: " + s.Invalid
	}
	p99 := "     -"
	if s.P99 > 0 {
		p99 = fmt.Sprintf("%6.0f", s.P99)
	}
	return fmt.Sprintf("%7.1f us CPU  %6.0f/s  p50 %6.0f us  p99 %s us  (%d calls in %.1f s, generator %.1f us, others %.2f cores)",
		s.CPUMicros, s.PerSecond, s.P50, p99, s.Calls, s.Seconds, s.GeneratorMicros, s.OtherCores)
}

// key identifies a sample in a run.
type key struct {
	scenario scenario
	kind     kind
	peer     string
	round    int
}

func (s *sample) key() key { return key{s.Scenario, s.Kind, s.Peer, s.Round} }

// session says under which conditions samples were taken.
type session struct {
	Machine   machine       `json:"machine"`
	Peers     []peerVersion `json:"peers"`
	Skipped   []skippedPeer `json:"skipped,omitempty"`
	Workers   int           `json:"workers,omitempty"` // as -workers says; 0: one, and Go's default
	Seconds   float64       `json:"seconds_per_measurement"`
	Seed      uint64        `json:"order_seed,omitempty"` // the order of scenarios and peers was drawn by it
	Scenarios []scenario    `json:"scenarios,omitempty"`  // what was asked for, in the order of the tables
	fixed     bool          // scenarios came in one order in all rounds, as in older files, which do not name them
	SluiceEnv []string      `json:"sluice_env,omitempty"`
	Routes    string        `json:"sluice_routes,omitempty"` // the text of -sluice-routes
}

// record is a line of a file of samples: one of the three.
type record struct {
	Session *session `json:"session,omitempty"`
	Sample  *sample  `json:"sample,omitempty"`
	// LoadAfter ends the session before it, unless that was interrupted.
	LoadAfter string `json:"load_after,omitempty"`
}

// samples are the measurements of one run, in memory and, if it has a file, there too:
// a run that was stopped goes on where it was.
type samples struct {
	sessions []session
	all      []sample
	have     map[key]bool
	file     *os.File // nil: in memory only
}

// openSamples reads a file, if there is one by that name, and appends to it from then on.
// An empty name keeps samples in memory.
func openSamples(name string) (*samples, error) {
	s := &samples{have: make(map[key]bool)}
	if name == "" {
		return s, nil
	}
	if err := s.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var err error
	s.file, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	return s, err
}

// read adds what a file holds.
func (s *samples) read(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	var text io.Reader = bufio.NewReader(file)
	if strings.HasSuffix(name, ".gz") {
		if text, err = gzip.NewReader(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	decoder := json.NewDecoder(text)
	for {
		var r record
		err := decoder.Decode(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.sameTerms(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.keep(r)
	}
}

func (s *samples) keep(r record) {
	if r.Session != nil {
		now := *r.Session
		now.fixed = len(now.Scenarios) == 0
		s.sessions = append(s.sessions, now)
	}
	if r.Sample != nil {
		s.all = append(s.all, *r.Sample)
		s.have[r.Sample.key()] = true
	}
	if n := len(s.sessions); r.LoadAfter != "" && n > 0 {
		s.sessions[n-1].Machine.LoadAfter = r.LoadAfter
	}
}

// sameTerms returns an error if a record was made on other terms than those there are: such
// figures have nothing to do with each other.
func (s *samples) sameTerms(r record) error {
	if len(s.sessions) == 0 {
		return nil
	}
	first := s.sessions[0]
	if r.Sample != nil && r.Sample.Workers != first.Workers {
		return otherTerms{workersText(first.Workers), workersText(r.Sample.Workers)}
	}
	if r.Session == nil {
		return nil
	}
	for _, terms := range []func(session) string{
		func(o session) string { return workersText(o.Workers) },
		func(o session) string { return fmt.Sprintf("-seconds %g", o.Seconds) },
		func(o session) string { return fmt.Sprintf("-sluice-env %q", o.SluiceEnv) },
		func(o session) string { return fmt.Sprintf("-sluice-routes %q", o.Routes) },
		func(o session) string { return "load by " + o.Machine.Generator },
	} {
		if want, got := terms(first), terms(*r.Session); got != want {
			return otherTerms{want, got}
		}
	}
	return nil
}

// otherTerms are what figures were made with, and what others were.
type otherTerms struct{ want, got string }

func (e otherTerms) Error() string {
	return fmt.Sprintf("figures with %s cannot be mixed with those with %s: use another file", e.want, e.got)
}

// workersText says how many workers peers had.
func workersText(n int) string {
	switch n {
	case 0:
		return "one worker each, Go's programs by default"
	case 1:
		return "one worker each, Go's programs on one core"
	}
	return fmt.Sprintf("%d workers each, Go's programs on as many cores", n)
}

// add keeps a record and writes it down.
func (s *samples) add(r record) error {
	s.keep(r)
	if s.file == nil {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.file.Write(append(line, '\n'))
	return err
}

// begin notes a session. Peers must be what they were in the sessions before: figures of two
// builds under one name would be mixed.
func (s *samples) begin(now session) error {
	if err := s.sameTerms(record{Session: &now}); err != nil {
		return err
	}
	for _, earlier := range s.sessions {
		for _, p := range earlier.Peers {
			if i := slices.IndexFunc(now.Peers, func(q peerVersion) bool { return q.Name == p.Name }); i >= 0 && now.Peers[i] != p {
				return fmt.Errorf("%s holds figures of %s %q, this is %q: use another file", s.file.Name(), p.Name, p.Version, now.Peers[i].Version)
			}
		}
	}
	return s.add(record{Session: &now})
}

// end notes that the session is over, and the load average then.
func (s *samples) end(load string) error { return s.add(record{LoadAfter: load}) }

// close closes the file.
func (s *samples) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// of returns a peer's samples of a scenario, by round.
func (s *samples) of(sc scenario, k kind, peer string) map[int]sample {
	out := make(map[int]sample)
	for _, one := range s.all {
		if one.Scenario == sc && one.Kind == k && one.Peer == peer {
			out[one.Round] = one
		}
	}
	return out
}

// scenarios returns those there are samples of, in the order in which sessions name them, and others in that of the first ones.
func (s *samples) scenarios() (out []scenario) {
	measured := make(map[scenario]bool)
	for _, one := range s.all {
		measured[one.Scenario] = true
	}
	add := func(sc scenario) {
		if measured[sc] {
			out = append(out, sc)
			delete(measured, sc)
		}
	}
	for _, session := range s.sessions {
		for _, sc := range session.Scenarios {
			add(sc)
		}
	}
	for _, one := range s.all {
		add(one.Scenario)
	}
	return out
}

// only leaves the samples of some scenarios, to be shown in their order.
func (s *samples) only(wanted []scenario) error {
	all := s.scenarios()
	for _, sc := range wanted {
		if !slices.Contains(all, sc) {
			return fmt.Errorf("%w: -scenarios: got %v, which has no samples, want some of %s", errUsage, sc, list(all))
		}
	}
	s.all = slices.DeleteFunc(s.all, func(one sample) bool { return !slices.Contains(wanted, one.Scenario) })
	for i := range s.sessions {
		s.sessions[i].Scenarios = wanted
	}
	return nil
}

// list writes scenarios as -scenarios takes them.
func list(all []scenario) string {
	var words []string
	for _, one := range all {
		words = append(words, one.String())
	}
	return strings.Join(words, ",")
}

// hasPeer returns an error if no sample is of a peer.
func (s *samples) hasPeer(name string) error {
	var measured []string
	for _, p := range s.peers() {
		if slices.ContainsFunc(s.all, func(one sample) bool { return one.Peer == p.Name }) && !slices.Contains(measured, p.Name) {
			measured = append(measured, p.Name)
		}
	}
	if !slices.Contains(measured, name) {
		return fmt.Errorf("%w: -reference: got %q, which has no samples, want one of %s", errUsage, name, strings.Join(measured, ","))
	}
	return nil
}

// peers returns every peer of any session, in the order of the tables.
func (s *samples) peers() (out []peerVersion) {
	for _, session := range s.sessions {
		for _, p := range session.Peers {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
