package demo

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemoRollsOutAndCountsWhatCameBack(t *testing.T) {
	var out bytes.Buffer
	// Stages of a second and a half: the line of the second second is from the middle of the second one, and
	// not from the moment at which the stage changes.
	err := Run(t.Context(), Config{Listen: "127.0.0.1:0", For: 4500 * time.Millisecond, Rate: 300, Gateway: standInWith(fault{}), Out: &out})
	if err != nil {
		t.Fatalf("Run() = %v\n%s", err, &out)
	}
	account := readSummary(t, out.String())
	_, held := sample.Split()
	for _, s := range stages {
		for _, version := range []string{before, after} {
			l, ok := account[cell{s, version}]
			if !ok {
				t.Errorf("summary lacks split %v, version %s:\n%s", s, version, &out)
				continue
			}
			weight := float64(s.weight(version))
			if (weight == 0) != (l.calls == 0) {
				t.Errorf("split %v: %d calls of %s, which has %v %% of the weight", s, l.calls, version, weight)
			}
			// However few calls a busy machine has made: 5 sigma of a draw, in points.
			calls := float64(account[cell{s, before}].calls + account[cell{s, after}].calls)
			if slack := 5 * math.Sqrt(weight*(100-weight)/calls); math.Abs(l.share-weight) > slack+0.1 {
				t.Errorf("split %v: share of %s = %v %%, want about %v %%", s, version, l.share, weight)
			}
			model, err := sample.Load(version)
			if err != nil {
				t.Fatal(err)
			}
			if want := 100 * model.Accuracy(held); l.calls > 100 && (l.accuracy < want-15 || l.accuracy > want+15) {
				t.Errorf("split %v: accuracy of %s = %v %%, want about %v %%", s, version, l.accuracy, want)
			}
		}
	}
	if !strings.Contains(out.String(), "split v1=50 v2=50, revision 2: v2 ") {
		t.Errorf("no line tells of version v2 in the second stage:\n%s", &out)
	}
}

// summaryLine is a line of the summary, in percent where that is printed.
type summaryLine struct {
	calls           int
	share, accuracy float64
}

func readSummary(t *testing.T, out string) map[cell]summaryLine {
	t.Helper()
	account := make(map[cell]summaryLine)
	row := regexp.MustCompile(`(?m)^ *(\d+)/(\d+) +(v\d) +\d+ % +([\d.]+) % +([1-9]\d*) +0 .* ([\d.]+) %$|^ *(\d+)/(\d+) +(v\d) +0 % +0\.0 % +0 +0 +- +- +-$`)
	for _, m := range row.FindAllStringSubmatch(strings.ReplaceAll(out, "  \n", "\n"), -1) {
		if m[7] != "" {
			account[cell{split{number(t, m[7]), number(t, m[8])}, m[9]}] = summaryLine{}
			continue
		}
		share, err1 := strconv.ParseFloat(m[4], 64)
		accuracy, err2 := strconv.ParseFloat(m[6], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("summary line %q: %v %v", m[0], err1, err2)
		}
		account[cell{split{number(t, m[1]), number(t, m[2])}, m[3]}] = summaryLine{int(number(t, m[5])), share, accuracy}
	}
	return account
}

func number(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// TestDemoAdmitsWhatGoesWrong: a demo in front of a broken gateway must not
// look like a success.
func TestDemoAdmitsWhatGoesWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the parallel subtests
	for _, test := range []struct {
		name   string
		fault  fault
		listen string
		want   string
	}{
		{"calls fail", fault{failEvery: 20}, "127.0.0.1:0", "calls failed, the first with: rpc error: code = DataLoss desc = told to fail"},
		{"answers are anonymous", fault{anonymous: true}, "127.0.0.1:0", "answers did not say which version"},
		{"weights are ignored", fault{wrong: before}, "127.0.0.1:0", "split v1=0 v2=100: "},
		{"nothing is answered", fault{deaf: true}, "127.0.0.1:0", "no answer through the gateway at 127.0.0.1:"},
		{"the gateway dies", fault{dies: true}, "127.0.0.1:0", "gateway: died"},
		{"the port is taken", fault{}, taken.Addr().String(), "address already in use"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := Run(context.Background(), Config{Listen: test.listen, For: time.Second, Rate: 100, Gateway: standInWith(test.fault), Out: new(bytes.Buffer)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run() = %v, want %q", err, test.want)
			}
		})
	}
}

func TestDemoEndsInOrderWhenInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out := &watched{pattern: "calls/s", seen: sync.OnceFunc(interrupt)}
	if err := Run(ctx, Config{Listen: "127.0.0.1:0", Rate: 100, Gateway: standInWith(fault{}), Out: out}); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	if !strings.Contains(out.String(), "0 failed\n") {
		t.Errorf("no summary after an interruption:\n%s", out)
	}
}

func TestDemoCanBeInterruptedBeforeItBegins(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if err := Run(ctx, Config{Listen: "127.0.0.1:0", Rate: 100, Gateway: standInWith(fault{}), Out: new(bytes.Buffer)}); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}

// watched is a buffer that reports when a pattern has been written.
type watched struct {
	bytes.Buffer
	pattern string
	seen    func()
}

func (w *watched) Write(p []byte) (int, error) {
	defer func() {
		if strings.Contains(w.String(), w.pattern) {
			w.seen()
		}
	}()
	return w.Buffer.Write(p)
}

// startRollout starts one over a store, until the test ends.
func startRollout(t *testing.T, store routing.Store) *rollout {
	t.Helper()
	r, err := newRollout(t.Context(), store, map[string][]string{before: {"127.0.0.1:1"}, after: {"127.0.0.1:2"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.watcher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.close()
	})
	return r
}

func TestRolloutBeginsAgainWithoutAnEnd(t *testing.T) {
	r := startRollout(t, memstore.New(memstore.Config{}))
	for i, want := range []split{{90, 10}, {50, 50}, {0, 100}, {90, 10}, {50, 50}} {
		if err := r.next(t.Context()); err != nil {
			t.Fatal(err)
		}
		table := r.router.Current()
		if got, ok := r.splitOf(table.RevisionText()); !ok || got != want || table.Revision() != uint64(i+1) {
			t.Errorf("revision %d is split %v, want %v", table.Revision(), got, want)
		}
		checkWeights(t, table, want)
	}
	for _, revision := range []string{"", "0", "x", "-1", "99"} {
		if s, ok := r.splitOf(revision); ok {
			t.Errorf("splitOf(%q) = %v, want none", revision, s)
		}
	}
	if err := r.end(t.Context()); err != nil || r.router.Current().Len() != 0 {
		t.Errorf("end = %v with %d routes left, want none", err, r.router.Current().Len())
	}
}

// TestOthersMayChangeTheSplit of the demo, which tells it by their weights.
func TestOthersMayChangeTheSplit(t *testing.T) {
	store := memstore.New(memstore.Config{})
	ours, theirs := startRollout(t, store), startRollout(t, store)
	if err := ours.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	for theirs.router.Current().Revision() < 1 {
		time.Sleep(time.Millisecond)
	}
	entry, revision, _ := theirs.watcher.Entry(sample.ModelName)
	route := proto.CloneOf(entry.GetRoute())
	route.Weights = map[string]uint32{before: 7, after: 3}
	if _, err := theirs.watcher.Update(t.Context(), &routing.Update{Expected: revision, Set: []*routingv1.Route{route}, Actor: "anna"}); err != nil {
		t.Fatal(err)
	}
	for ours.router.Current().Revision() < 2 {
		time.Sleep(time.Millisecond)
	}
	if got := ours.current(); got != (split{7, 3}) {
		t.Errorf("the split is %v, want what anna made of it", got)
	}
	if err := ours.next(t.Context()); err != nil || ours.current() != stages[1] {
		t.Errorf("next = %v and split %v, want %v", err, ours.current(), stages[1])
	}
}

func checkWeights(t *testing.T, table *routing.Table, want split) {
	t.Helper()
	route, ok := table.Route(sample.ModelName)
	if !ok {
		t.Fatal("no route for the model")
	}
	for _, name := range []string{before, after} {
		if version, ok := route.Version(name); !ok || version.Weight != want.weight(name) {
			t.Errorf("weight of %s = %+v, want %d", name, version, want.weight(name))
		}
	}
}
