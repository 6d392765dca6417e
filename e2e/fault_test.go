package e2e

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/routing/storetest"
	"sluice/sample"
)

// command runs one command of the binary against the gateway and returns what it prints.
func (s *shared) command(args ...string) string {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--admin", strings.TrimPrefix(s.admin, "http://"))...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// told is a call by what its caller was told.
type told struct {
	begun, ended time.Time
	err          error
	fault        string // sluice-fault
	revision     string
}

// callOn calls the sample model from some callers, one call after the other each, until stop is called.
func callOn(cc *grpc.ClientConn, callers int) (stop func() []told) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var all []told
	var group sync.WaitGroup
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	for range callers {
		group.Go(func() {
			for ctx.Err() == nil {
				c := told{begun: time.Now()}
				callCtx, done := context.WithTimeout(context.Background(), 10*time.Second)
				a := infer(callCtx, cc, req)
				done()
				md := metadata.Join(a.header, a.trailer)
				c.ended, c.err = time.Now(), a.err
				c.fault, c.revision = strings.Join(md.Get("sluice-fault"), "|"), strings.Join(md.Get("sluice-revision"), "|")
				mu.Lock()
				all = append(all, c)
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() []told {
		cancel()
		group.Wait()
		return all
	}
}

// TestFaultReachesTheCallersOfEveryGateway: what is asked of one gateway strikes the callers of another, the
// share that was asked for, and nobody else; it ends by itself; and afterwards it is plain who did it, and
// to how many.
func TestFaultReachesTheCallersOfEveryGateway(t *testing.T) {
	t.Parallel()
	store := storetest.StartRedis(t).URL()
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	one := startShared(t, store, split(v1, v2, 1, 1)+"    breaker: {dry_run: true}\n")
	two := startShared(t, store, "")
	two.awaitV1(1)
	stop := callOn(dial(t, two.data), 4)

	const percent, lasts = 30, 4 * time.Second
	asked := time.Now()
	one.command("fault", "inject", model, "--version", "v2", "--status", "DATA_LOSS",
		"--percent", fmt.Sprint(percent), "--for", lasts.String(), "--reason", "game day", "--actor", "anna", "--yes")
	faults := func(s *shared) *adminv1.RouteFault {
		t.Helper()
		client := adminv1connect.NewFaultServiceClient(s.http, s.admin)
		resp, err := client.ListFaults(within(t, 10*time.Second), &adminv1.ListFaultsRequest{Model: model})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetFaults()) != 1 {
			return nil
		}
		return resp.GetFaults()[0]
	}
	eventually(t, 10*time.Second, "the other gateway knows of the fault", func() error {
		if faults(two) == nil {
			return fmt.Errorf("it lists none")
		}
		return nil
	})
	known, f := time.Now(), faults(two).GetFault()
	if d := f.GetUntil().AsTime().Sub(f.GetFrom().AsTime()); d != lasts {
		t.Errorf("it lasts %v, want %v", d, lasts)
	}
	until := f.GetUntil().AsTime()
	time.Sleep(time.Until(until.Add(time.Second)))
	all := stop()

	var struck, during, ofV2 float64
	after := 0
	for _, c := range all {
		hit := c.fault != ""
		if hit {
			struck++
			if c.fault != "v2 DATA_LOSS" || status.Code(c.err) != codes.DataLoss {
				t.Fatalf("a struck call: %v, sluice-fault %q", c.err, c.fault)
			}
			checkRefusal(t, c.err, codes.DataLoss, "FAULT_INJECTED", "until")
		} else if c.err != nil {
			t.Fatalf("a call that was not struck failed: %v", c.err)
		}
		switch {
		case c.ended.Before(asked) && hit, c.begun.After(until) && hit:
			t.Fatalf("struck outside of its time: %+v", c)
		case c.begun.After(known) && c.ended.Before(until):
			during++
			if hit {
				ofV2++
			}
		case c.begun.After(until):
			after++
			if c.revision != "2" {
				t.Fatalf("a call after its end, at revision %s: it ended by a change", c.revision)
			}
		}
	}
	share := percent / 100. / 2 // half of the calls are for v2
	if slack := 5 * math.Sqrt(during*share*(1-share)); during < 200 || math.Abs(ofV2-during*share) > slack {
		t.Errorf("struck %v of %v calls, want %v +- %v", ofV2, during, during*share, slack)
	}
	if after == 0 {
		t.Error("no call after its end: this shows nothing")
	}
	t.Logf("struck %v of %v calls while it acted (%.1f %%), none of %d after its end", ofV2, during, 100*ofV2/during, after)

	if got := faults(two); got.GetState() != "ended" || float64(got.GetStruck()) != struck {
		t.Errorf("the gateway lists %v, want it ended, with %v struck", got, struck)
	}
	if got := two.metric(`sluice_faults_injected_total{kind="status",model="penguins",version="v2"}`); got != struck {
		t.Errorf("the metric says %v, callers %v", got, struck)
	}
	if got := faults(one).GetStruck(); got != 0 {
		t.Errorf("the gateway without callers has struck %d", got)
	}
	if out := two.command("history", model); !strings.Contains(out, "anna") || !strings.Contains(out, "game day") || !strings.Contains(out, "fault") {
		t.Errorf("the history does not say who did it:\n%s", out)
	}
	if out := two.command("fault", "list"); !strings.Contains(out, "status DATA_LOSS") || !strings.Contains(out, fmt.Sprint(struck)) {
		t.Errorf("fault list says:\n%s", out)
	}
}
