package breaker

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata/*.txt")

// Stories about breakers, to be read and written by whoever runs them. A line that begins with ">" is
// something that happens, "#" begins a comment; the other lines are what the breaker does and how it
// stands then, and are written by go test -update.
//
//	> settings KEY=VALUE ...            in the words of a routing document
//	> RESULT [xN] [every D]             N calls with this result, one after the other
//	> begin NAME, > end NAME RESULT     a call that takes its time
//	> wait D
//	> force-open, > reset               an operator
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				got := play(t, string(want))
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if !bytes.Equal([]byte(got), want) {
					t.Errorf("the story has changed; go test -update rewrites it. Now:\n%s", got)
				}
			})
		})
	}
}

// stage is where a scenario plays.
type stage struct {
	t     *testing.T
	b     *Breaker
	sub   *Subscription
	start time.Time
	held  map[string]*Permit
	out   strings.Builder
}

// play runs the commands of a scenario and returns it with the answers of now.
func play(t *testing.T, script string) string {
	s := &stage{t: t, b: newTestBreaker(Settings{}), start: time.Now(), held: make(map[string]*Permit)}
	s.sub = s.b.events.Subscribe(1000)
	for line := range strings.Lines(script) {
		command, isCommand := strings.CutPrefix(line, "> ")
		if !isCommand {
			if line == "\n" || strings.HasPrefix(line, "#") {
				s.out.WriteString(line)
			}
			continue
		}
		s.out.WriteString(line)
		s.do(strings.Fields(command))
		for len(s.sub.C()) > 0 {
			s.event(<-s.sub.C())
		}
		s.state()
	}
	return s.out.String()
}

func (s *stage) do(args []string) {
	switch name := args[0]; name {
	case "settings":
		s.b.update(s.settings(args[1:]))
	case "wait":
		time.Sleep(s.duration(args[1]))
	case "force-open":
		s.b.ForceOpen(time.Now())
	case "reset":
		s.b.Reset(time.Now())
	case "begin":
		p, err := s.b.Allow(time.Now())
		s.held[args[1]] = &p
		s.say("%s is %s", args[1], admitted(err))
	case "end":
		s.held[args[1]].Done(Result{Outcome: s.outcome(args[2]), At: time.Now(), RequestID: args[1]})
	default:
		s.calls(s.outcome(name), args[1:])
	}
}

// calls makes calls in a row and tells how many were admitted or refused, as that changes.
func (s *stage) calls(o Outcome, args []string) {
	n, every := 1, time.Duration(0)
	for i := 0; i < len(args); i++ {
		if args[i] == "every" {
			i++
			every = s.duration(args[i])
			continue
		}
		var err error
		if n, err = strconv.Atoi(strings.TrimPrefix(args[i], "x")); err != nil {
			s.t.Fatal(err)
		}
	}
	was, row := "", 0
	tell := func(now string) {
		if row > 0 && now != was {
			s.say("%d %s", row, was)
			row = 0
		}
		was = now
		row++
	}
	for range n {
		tell(admitted(call(s.b, o)))
		for len(s.sub.C()) > 0 {
			if row > 0 {
				s.say("%d %s", row, was)
			}
			row = 0
			s.event(<-s.sub.C())
		}
		time.Sleep(every)
	}
	if row > 0 {
		s.say("%d %s", row, was)
	}
}

func admitted(err error) string {
	switch {
	case errors.Is(err, ErrProbing):
		return "refused, the probe is under way"
	case err != nil:
		return "refused"
	}
	return "admitted"
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(&s.out, "    "+format+"\n", args...) }

func (s *stage) event(e Event) {
	note := ""
	if !e.OpenUntil.IsZero() {
		note = fmt.Sprintf(", open for %v", e.OpenUntil.Sub(e.At))
	}
	if e.RequestID != "" {
		note += ", request " + e.RequestID
	}
	if e.DryRun {
		note += " [dry run]"
	}
	s.say("* %v -> %v: %v%s", e.From, e.To, e.Cause, note)
}

func (s *stage) state() {
	st := s.b.Status(time.Now())
	c := st.Counts
	fmt.Fprintf(&s.out, "%10v  %v", time.Since(s.start).Round(time.Millisecond), st.State)
	if st.State == Closed {
		fmt.Fprintf(&s.out, "  %d calls: %d failed, %d overloaded, %d slow; %d failures in a row", c.Calls, c.Failures, c.Overloaded, c.Slow, c.Consecutive)
	}
	if st.State == Open && !st.Forced {
		fmt.Fprintf(&s.out, "  probe in %v", max(time.Until(st.OpenUntil), 0))
	}
	s.out.WriteString("\n")
}

func (s *stage) outcome(name string) Outcome {
	i := slices.Index(outcomeNames[:], name)
	if i < 0 {
		s.t.Fatalf("no command and no result: %q", name)
	}
	return Outcome(i)
}

func (s *stage) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stage) settings(pairs []string) (r Settings) {
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		var err error
		var n uint64
		switch key {
		case "failure_ratio":
			r.FailureRatio, err = strconv.ParseFloat(value, 64)
		case "slow_ratio":
			r.SlowRatio, err = strconv.ParseFloat(value, 64)
		case "min_calls":
			n, err = strconv.ParseUint(value, 10, 32)
			r.MinCalls = uint32(n)
		case "consecutive":
			n, err = strconv.ParseUint(value, 10, 32)
			r.Consecutive = uint32(n)
		case "open_for":
			r.OpenFor = s.duration(value)
		case "max_open_for":
			r.MaxOpenFor = s.duration(value)
		case "slow_call":
			r.SlowCall = s.duration(value)
		case "dry_run":
			r.DryRun, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("no setting %q", key)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return r
}
