package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaults(t *testing.T) {
	o, err := parse(nil, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	want := []scenario{{Size: 4096, Connections: 4, Streams: 8}, {Size: 4096, Connections: 4, Streams: 32}, {Size: 4096, Connections: 100, Streams: 4}, {Size: 65536, Connections: 4, Streams: 8}}
	if !slices.Equal(o.scenarios, want) {
		t.Errorf("scenarios = %v, want %v", o.scenarios, want)
	}
	if o.rounds != 5 || o.seconds != time.Second || !o.latency || o.h2load {
		t.Errorf("%d rounds of %v, half load %v, h2load %v, want 5 of 1s with it by ourselves", o.rounds, o.seconds, o.latency, o.h2load)
	}
}

func TestWrongUsageNamesTheFlagAndWhatIsAccepted(t *testing.T) {
	for _, test := range []struct{ arguments, want string }{
		{"-rounds 0", "-rounds: got 0, want 1 to 100"},
		{"-seconds 0", "-seconds: got 0s, want 100ms to 1m0s"},
		{"-seconds 9e9", "-seconds: got "},
		{"-warm-up 2m", "-warm-up: got 2m0s"},
		{"-workers 0", fmt.Sprintf("want 1 to %d, the number of cores, or all", runtime.NumCPU())},
		{"-workers both", "the number of cores, or all"},
		{"-scenarios 4KB:4x8", `-scenarios: got "4KB:4x8", want SIZE:`},
		{"-budget 0s", "-budget: got 0s"},
		{"-into a.gz", `-into: got "a.gz", want a file that is not compressed`},
		{"-into a -from b", "-into and -from: got both"},
		{"-generator wrk", `-generator: got "wrk", want own or h2load`},
		{"-generator h2load", "want -latency=false"},
		{"-generator h2load -latency=false -scenarios 4KiB:4x8:tls", "want -latency=false and scenarios without"},
		{"-o yaml", `-o: got "yaml", want table, markdown, svg or json`},
		{"-idle-memory -1", "-idle-memory: got -1, want 0 to 5000"},
		{"-never-read 5000", "-never-read: got 5000, want 0 to 1000"},
		{"-sluice-env GOGC", "want KEY=value"},
		{"-sluice nonsense", "want NAME=PATH"},
		{"nginx", `unexpected argument "nginx"`},
	} {
		var stderr bytes.Buffer
		if _, err := parse(strings.Fields(test.arguments), &stderr); err == nil {
			t.Errorf("parse(%s) succeeded, want an error", test.arguments)
		}
		if !strings.Contains(stderr.String(), test.want) {
			t.Errorf("parse(%s) printed %q, want %q", test.arguments, stderr.String(), test.want)
		}
	}
}

func TestGroupsOfPeersAndAllCores(t *testing.T) {
	o, err := parse(strings.Fields("-peers nginx,gateway -workers all"), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"nginx", "sluice", "sluice-plain", "sluice-quiet", "sluice-shadow"}; !slices.Equal(o.peers, want) {
		t.Errorf("peers = %q, want %q", o.peers, want)
	}
	if o.workers != runtime.NumCPU() {
		t.Errorf("workers = %d, want %d", o.workers, runtime.NumCPU())
	}
}

func TestAnUnknownPeerIsNamedWithThoseThereAre(t *testing.T) {
	o, err := parse([]string{"-peers", "nginx,apache"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = o.choose(context.Background(), o.known("", ""))
	if err == nil || !strings.Contains(err.Error(), `got "apache", want some of sluice,sluice-plain,sluice-quiet,sluice-shadow,sluice-drift,sluice-labels,sluice-labels-read,sluice-unsampled,sluice-sampled,sluice-10,sluice-10k,relay,datapath,nghttpx,haproxy,envoy,nginx,grpc-go,haproxy-tcp,direct`) {
		t.Errorf("choose = %v, want the name and the choice there is", err)
	}
	if exitCode(err) != 2 || exitCode(errors.New("broken")) != 1 {
		t.Errorf("exit code %d, want 2 as for other wrong usage, and 1 for what is none", exitCode(err))
	}
	o.peers, o.reference = nil, "apache"
	if _, _, _, err := o.choose(context.Background(), o.known("", "")); exitCode(err) != 2 || !strings.Contains(err.Error(), `-reference: got "apache", want one of sluice,`) {
		t.Errorf("choose with an unknown reference = %v, want the name and the choice there is", err)
	}
}

func TestPeersThatAreNotInstalledAreSkipped(t *testing.T) {
	o, err := parse([]string{"-peers", "nginx,direct"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	chosen, versions, skipped, err := o.choose(context.Background(), o.known("", ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(chosen) != 1 || chosen[0].Name() != "direct" || len(versions) != 1 {
		t.Errorf("chosen = %v, want direct alone", versions)
	}
	if len(skipped) != 1 || skipped[0].Name != "nginx" || !strings.Contains(skipped[0].Reason, "not installed") {
		t.Errorf("skipped = %v, want nginx, not installed", skipped)
	}
}
