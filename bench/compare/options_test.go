package main

import (
	"bytes"
	"context"
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
	want := []scenario{{4096, 4, 8}, {4096, 4, 32}, {4096, 100, 4}, {65536, 4, 8}, {65536, 4, 32}, {65536, 100, 4}}
	if !slices.Equal(o.scenarios, want) {
		t.Errorf("scenarios = %v, want %v", o.scenarios, want)
	}
	if o.rounds != 3 || o.seconds != 3*time.Second || o.warmUp != time.Second {
		t.Errorf("%d rounds of %v after %v, want 3 of 3s after 1s", o.rounds, o.seconds, o.warmUp)
	}
}

func TestWrongUsageNamesTheFlagAndWhatIsAccepted(t *testing.T) {
	for _, test := range []struct{ arguments, want string }{
		{"-rounds 0", "-rounds: got 0, want 1 to 100"},
		{"-seconds 0", "-seconds: got 0s, want 100ms to 1m0s"},
		{"-seconds 9e9", "-seconds: got "},
		{"-warm-up 2m", "-warm-up: got 2m0s"},
		{"-sizes 4KB", `-sizes: got "4KB", want 64 to 1MiB`},
		{"-sizes 2MiB", `-sizes: got "2MiB"`},
		{"-sizes 63", `-sizes: got "63"`},
		{"-sizes 99999999999999999KiB", `-sizes: got "99999999999999999KiB"`},
		{"-shapes 4", `-shapes: got "4", want connections x streams`},
		{"-shapes 4x0", `-shapes: got "4x0"`},
		{"-shapes 4x8x2", `-shapes: got "4x8x2"`},
		{"-o yaml", `-o: got "yaml", want table or json`},
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

func TestAnUnknownPeerIsNamedWithThoseThereAre(t *testing.T) {
	o, err := parse([]string{"-peers", "nginx,apache"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = o.choose(context.Background(), o.known("", ""))
	if err == nil || !strings.Contains(err.Error(), `got "apache", want some of sluice,nghttpx,haproxy,nginx,haproxy-tcp,direct`) {
		t.Errorf("choose = %v, want the name and the choice there is", err)
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
