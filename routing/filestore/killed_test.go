package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/storetest"
)

// writerVariable, if it is set, makes the tests' program change the store in that folder until it is killed.
const writerVariable = "SLUICE_TEST_WRITES_TO"

// changeTo makes revision n. It takes some 16 KB, so that the journal is folded into the state after sixty changes.
func changeTo(n uint64) *routing.Update {
	u := &routing.Update{Expected: n - 1, Actor: "writer", RequestKey: fmt.Sprint("key-", n)}
	for i := range 40 {
		r := storetest.Route(fmt.Sprint("m", i), fmt.Sprint("v", n))
		r.Versions[0].Provenance = &routingv1.Provenance{Artifact: strings.Repeat("x", 250)}
		u.Set = append(u.Set, r)
	}
	return u
}

// writeUntilKilled makes one change after the other, and says of each that is made its revision and id.
func writeUntilKilled(dir string, out io.Writer) error {
	s, err := filestore.Open(dir)
	if err != nil {
		return err
	}
	at, err := s.Load(context.Background())
	if err != nil {
		return err
	}
	for n := at.Revision + 1; ; n++ {
		c, err := s.Update(context.Background(), changeTo(n))
		var slow *routing.UnavailableError
		for errors.As(err, &slow) { // the disk has not written it in time: the same request finds out what became of it
			time.Sleep(10 * time.Millisecond)
			c, err = s.Update(context.Background(), changeTo(n))
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, c.GetRevision(), c.GetId()); err != nil {
			return err
		}
	}
}

// TestKilledWritersLoseNoChangeThatWasAnswered kills a process that changes the store, again and again. Every change that it was
// told of is there with its id, at most one more is, the history has no gap, and its request may be repeated.
func TestKilledWritersLoseNoChangeThatWasAnswered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	answered := make(map[uint64]string) // ids by revision
	var last uint64
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, left := bufio.NewScanner(out), 1+rng.IntN(50)
		for lines.Scan() {
			var revision uint64
			var id string
			if _, err := fmt.Sscan(lines.Text(), &revision, &id); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if revision != last+1 {
				t.Fatalf("round %d: revision %d follows %d", round, revision, last)
			}
			answered[revision], last = id, revision
			if left--; left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); left > 0 {
			t.Fatalf("round %d: the writer ended by itself: %v\n%s", round, err, stderr.String())
		}

		s := open(t, dir)
		at := storetest.Load(t, s)
		if at.Revision != last && at.Revision != last+1 {
			t.Fatalf("round %d: at revision %d, want %d, which was answered, or the one behind it", round, at.Revision, last)
		}
		for i := range 40 {
			if v := at.Routes[fmt.Sprint("m", i)].GetRoute().GetVersions()[0].GetName(); v != fmt.Sprint("v", at.Revision) {
				t.Errorf("round %d: route %d has version %s at revision %d", round, i, v, at.Revision)
			}
		}
		history := storetest.History(t, s, routing.HistoryQuery{Limit: 2000})
		if len(history) != int(at.Revision) {
			t.Fatalf("round %d: %d changes in the history at revision %d", round, len(history), at.Revision)
		}
		for i, c := range history {
			if want := at.Revision - uint64(i); c.GetRevision() != want {
				t.Fatalf("round %d: revision %d in the place of %d", round, c.GetRevision(), want)
			}
			if id, ok := answered[c.GetRevision()]; ok && c.GetId() != id {
				t.Errorf("round %d: revision %d has id %s, and was answered with %s", round, c.GetRevision(), c.GetId(), id)
			}
			if i > 0 && history[i-1].GetPredecessorId() != c.GetId() {
				t.Errorf("round %d: revision %d does not follow %d", round, c.GetRevision()+1, c.GetRevision())
			}
		}
		if c := storetest.Update(t, s, changeTo(last)); c.GetRevision() != last || c.GetId() != answered[last] {
			t.Errorf("round %d: the last request again made revision %d, want the answer of then, %d", round, c.GetRevision(), last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		last = at.Revision
	}
	t.Logf("%d changes, %d of them answered", last, len(answered))
}
