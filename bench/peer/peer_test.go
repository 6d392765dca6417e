package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var site = Site{Folder: "/somewhere", Listen: "127.0.0.1:8001", Backend: "127.0.0.1:9001"}

func TestEveryProxyIsToldBothAddresses(t *testing.T) {
	for _, p := range []Peer{&Sluice{Binary: "/bin/sluice"}, Nghttpx{}, HAProxy{}, HAProxy{TCP: true}, Nginx{}, Envoy{}, GRPCGo("/src", "/bin"), Bare("/src", "/bin")} {
		launch := p.Launch(site)
		text := launch.Command.String()
		for _, file := range launch.Files {
			text += file.Content
		}
		for _, port := range []string{"8001", "9001"} {
			if !strings.Contains(text, port) {
				t.Errorf("%s: port %s is missing in\n%s", p.Name(), port, text)
			}
		}
		if strings.Contains(text, "%!") {
			t.Errorf("%s: a value is missing in\n%s", p.Name(), text)
		}
	}
	if launch := (Direct{}).Launch(site); launch.Command != nil {
		t.Errorf("direct starts %v, want nothing", launch.Command)
	}
}

func TestEveryProxyIsToldItsWorkers(t *testing.T) {
	for _, test := range []struct {
		peer                Peer
		default_, one, many string // what is in its command or its files
	}{
		{&Sluice{Binary: "/bin/sluice"}, "/routes.yaml", "GOMAXPROCS=1 /bin/sluice serve", "GOMAXPROCS=7 /bin/sluice serve"},
		{Bare("/src", "/bin"), "/bin/relay", "GOMAXPROCS=1 /bin/relay", "GOMAXPROCS=7 /bin/relay"},
		{DataPath("/src", "/bin"), "/bin/datapath", "GOMAXPROCS=1 /bin/datapath", "GOMAXPROCS=7 /bin/datapath"},
		{Nghttpx{}, "workers=1\n", "workers=1\n", "workers=7\n"},
		{HAProxy{}, "nbthread 1\n", "nbthread 1\n", "nbthread 7\n"},
		{HAProxy{TCP: true}, "nbthread 1\n", "nbthread 1\n", "nbthread 7\n"},
		{Nginx{}, "worker_processes 1;", "worker_processes 1;", "worker_processes 7;"},
		{Nginx{}, "8001 http2;", "8001 http2;", "8001 http2 reuseport;"},
		{Envoy{}, "--concurrency 1 ", "--concurrency 1 ", "--concurrency 7 "},
		{Envoy{}, "", "", "      connection_balance_config: {exact_balance: {}}\n      filter_chains:"},
		{GRPCGo("/src", "/bin"), "/bin/grpc-go", "GOMAXPROCS=1 /bin/grpc-go", "GOMAXPROCS=7 /bin/grpc-go"},
	} {
		for workers, want := range map[int]string{0: test.default_, 1: test.one, 7: test.many} {
			site := site
			site.Workers = workers
			launch := test.peer.Launch(site)
			text := launch.Command.String()
			for _, file := range launch.Files {
				text += "\n" + file.Content
			}
			if !strings.Contains(text, want) || workers == 0 && strings.Contains(text, "GOMAXPROCS") || strings.Contains(text, "%!") {
				t.Errorf("%s with %d workers: want %q in\n%s", test.peer.Name(), workers, want, text)
			}
		}
	}
}

// What is measured in parts reads by the same transport as the whole, and that one is the user's: whatever the number of
// workers, GOMAXPROCS alone tells it, and the default number of threads that read follows from that.
func TestSluiceAndItsPartsDifferInNothingBecauseOfWorkers(t *testing.T) {
	parts := []Peer{&Sluice{Binary: "/bin/sluice"}, Bare("/src", "/bin"), DataPath("/src", "/bin")}
	for _, v := range Variants() {
		parts = append(parts, &Sluice{Binary: "/bin/sluice", Variant: v})
	}
	for _, p := range parts {
		site := site
		free := p.Launch(site).Command
		for _, workers := range []int{1, 2, 7} {
			site.Workers = workers
			got := p.Launch(site).Command
			if !slices.Equal(got.Args, free.Args) {
				t.Errorf("%s with %d workers has the arguments %q, want %q as without a number", p.Name(), workers, got.Args, free.Args)
			}
			cores := fmt.Sprintf("GOMAXPROCS=%d", workers)
			if rest := slices.DeleteFunc(slices.Clone(got.Env), func(v string) bool { return v == cores }); len(rest) != len(got.Env)-1 || !slices.Equal(rest, free.Env) {
				t.Errorf("%s with %d workers has the environment %q, want %q and %s", p.Name(), workers, got.Env, free.Env, cores)
			}
		}
	}
}

func TestAMissingProgramIsMissingAndNothingElse(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, p := range []Peer{Nghttpx{}, HAProxy{}, Nginx{}, Envoy{}} {
		if _, err := p.Locate(context.Background()); !errors.Is(err, ErrMissing) {
			t.Errorf("%s: Locate = %v, want %v", p.Name(), err, ErrMissing)
		}
	}
	if _, err := (Direct{}).Locate(context.Background()); err != nil {
		t.Errorf("direct: Locate = %v", err)
	}
}

func TestABrokenProgramIsNotMissing(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "nginx"), []byte("#!/bin/sh\necho broken; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":/bin:/usr/bin")
	_, err := Nginx{}.Locate(context.Background())
	if err == nil || errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("Locate = %v, want an error with what the program said", err)
	}
}

func TestASluiceThatDoesNotBuildIsAnError(t *testing.T) {
	s := &Sluice{Source: t.TempDir(), Folder: t.TempDir()}
	if _, err := s.Locate(context.Background()); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("Locate = %v, want an error that is not skipped", err)
	}
}

func TestHashesOfFilesDiffer(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	sums := make(map[string]bool)
	for _, content := range []string{"a", "b", "a"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		sum, err := hashOf(name)
		if err != nil {
			t.Fatal(err)
		}
		sums[sum] = true
	}
	if !sums["ca978112ca1b"] || len(sums) != 2 { // by sha256sum
		t.Errorf("hashes of two contents: %v, want two, ca978112ca1b of \"a\"", sums)
	}
	if sum, err := hashOf(filepath.Join(name, "missing")); err == nil {
		t.Errorf("hash of no file = %q, want an error", sum)
	}
}

func TestSluiceGetsTheEnvironmentItIsGiven(t *testing.T) {
	launch := (&Sluice{Binary: "/bin/sluice", Env: []string{"GOMAXPROCS=1"}}).Launch(site)
	if got := launch.Command.Env; len(got) != 2 || got[1] != "GOMAXPROCS=1" {
		t.Errorf("environment = %q, want GOMAXPROCS=1 in it", got)
	}
}

func TestParseNamed(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sluice")
	if err := os.WriteFile(binary, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := ParseNamed("before=" + binary)
	if err != nil || s.Name() != "before" || s.Binary != binary {
		t.Errorf("ParseNamed = %+v, %v", s, err)
	}
	for _, text := range []string{"", "before", "=" + binary, "before=", "../before=" + binary, "a,b=" + binary, "before=/no/such/file"} {
		if _, err := ParseNamed(text); err == nil {
			t.Errorf("ParseNamed(%q) succeeded, want an error", text)
		}
	}
}

func TestEveryProxyThatEndsTLSHasTheCertificate(t *testing.T) {
	secure := site
	secure.TLS = &TLS{Cert: "/tls/cert.pem", Key: "/tls/key.pem", Both: "/tls/both.pem"}
	for _, p := range []Peer{&Sluice{Binary: "/bin/sluice"}, Nghttpx{}, HAProxy{}, Nginx{}, Envoy{}, GRPCGo("/src", "/bin")} {
		launch := p.Launch(secure)
		text := launch.Command.String()
		for _, file := range launch.Files {
			text += file.Content
		}
		both := strings.Contains(text, "/tls/both.pem")
		if !both && !(strings.Contains(text, "/tls/cert.pem") && strings.Contains(text, "/tls/key.pem")) || strings.Contains(text, "%!") {
			t.Errorf("%s: no certificate and key in\n%s", p.Name(), text)
		}
	}
}

func TestVariantsDiffer(t *testing.T) {
	seen := make(map[string]string)
	for _, v := range append(Variants(), Variant{Name: "sluice"}) {
		s := &Sluice{Binary: "/bin/sluice", Variant: v}
		launch := s.Launch(site)
		text := launch.Command.String() + launch.Files[0].Content + strings.Join(launch.Command.Env, " ")
		if other, ok := seen[text]; ok {
			t.Errorf("%s and %s are the same", v.Name, other)
		}
		seen[text] = v.Name
	}
}
