package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/routing/storetest"
)

// TestTwoGatewaysShareARedis: a change on one is seen on both, of two changes at
// once one wins, and an outage is survived.
func TestTwoGatewaysShareARedis(t *testing.T) {
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	a := startServe(t, "--routes", "routes.yaml", "--store", redis.URL())
	b := startServe(t, "--routes", "routes.yaml", "--store", redis.URL())

	a.must(t, "weights", "fraud", "v7=50", "v8=50", "--actor", "anna", "--reason", "half")
	storetest.Eventually(t, "the change is seen on the other gateway", func() bool {
		return strings.Contains(b.must(t, "get"), "revision 2")
	})
	if got := b.must(t, "history"); !strings.Contains(got, "anna") || !strings.Contains(got, "half") {
		t.Errorf("history on the other gateway:\n%s", got)
	}

	var group sync.WaitGroup
	codes := make([]int, 2)
	for i, gateway := range []*served{a, b} {
		group.Go(func() {
			_, codes[i] = gateway.sluice("weights", "fraud", fmt.Sprintf("v7=%d", i+1), "--expect", "2")
		})
	}
	group.Wait()
	if codes[0]+codes[1] != exitLostRace {
		t.Errorf("two changes to revision 2 end with %v, want 0 and 3", codes)
	}

	redis.Hang()
	begun := time.Now()
	out, code := a.sluice("promote", "fraud", "v8", "--yes")
	if took := time.Since(begun); code != exitFailure || took > 4*time.Second || !strings.Contains(out, redis.URL()) || !strings.Contains(out, "try: sluice status") {
		t.Errorf("a change without Redis: exit code %d after %v\n%s", code, took, out)
	}
	storetest.Eventually(t, "the status says so", func() bool {
		out := b.must(t, "status")
		return strings.Contains(out, "not followed: serving what the store said") && strings.Contains(out, "problem")
	})
	redis.Resume()
	storetest.Eventually(t, "changes can be made again", func() bool {
		_, code := b.sluice("promote", "fraud", "v8")
		return code == 0
	})
	storetest.Eventually(t, "both agree", func() bool {
		return a.must(t, "get") == b.must(t, "get")
	})
}

// TestStartWithoutRedis serves the last good state, and says how old it is.
func TestStartWithoutRedis(t *testing.T) {
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t)
	writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	kept := t.TempDir()
	listen := deadAddress(t)
	first := startServe(t, "--routes", "routes.yaml", "--store", redis.URL(), "--state-dir", kept, "--listen", listen)
	first.must(t, "weights", "fraud", "v7=1")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	again := startServe(t, "--store", redis.URL(), "--state-dir", kept, "--listen", listen)
	out := again.must(t, "status")
	for _, want := range []string{"gateway    ready", "revision   2", "not followed: serving what the cache said", "problem", "cache "} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	bare := startServe(t, "--store", redis.URL())
	if out := bare.must(t, "status"); !strings.Contains(out, "not ready") || !strings.Contains(out, "no routing state") {
		t.Errorf("without a cache:\n%s", out)
	}
	bare.log.await(t, "not ready; try")
}

func TestStateInMemoryFollowsTheFile(t *testing.T) {
	t.Chdir(t.TempDir())
	alive, dead := startModelServer(t), deadAddress(t)
	writeRoutes(t, "routes.yaml", alive, dead)
	gateway := startServe(t, "--routes", "routes.yaml")
	gateway.log.await(t, "routing state is in memory")
	text, err := os.ReadFile("routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "new", strings.Replace(string(text), "v7: 95", "v7: 60", 1))
	if err := os.Rename("new", "routes.yaml"); err != nil {
		t.Fatal(err)
	}
	storetest.Eventually(t, "the file is followed", func() bool {
		return strings.Contains(gateway.must(t, "history", "fraud"), "v7 95->60")
	})
	if got := gateway.must(t, "history", "--limit", "1"); !strings.Contains(got, "file ") {
		t.Errorf("history, want the actor file:\n%s", got)
	}
}

func TestStateOnDiskSurvivesARestart(t *testing.T) {
	t.Chdir(t.TempDir())
	writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	first := startServe(t, "--routes", "routes.yaml", "--store", "file:kept")
	first.must(t, "weights", "fraud", "v7=1", "--actor", "anna")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	again := startServe(t, "--routes", "routes.yaml", "--store", "file:kept")
	if got := again.must(t, "history"); !strings.Contains(got, "anna") {
		t.Errorf("history after a restart:\n%s", got)
	}
	if got := again.must(t, "status"); !strings.Contains(got, "differed from the store at the start in fraud") {
		t.Errorf("status after a restart, want that the file differs:\n%s", got)
	}
}

func TestStartWithoutRoutes(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--metrics-listen", "127.0.0.1:0")
	metrics := gateway.log.await(t, `metrics=(\S+)`)[1]
	probe := func(path string) int {
		resp, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if live, ready := probe("/livez"), probe("/readyz"); live != 200 || ready != 503 {
		t.Errorf("without routes /livez is %d and /readyz %d, want 200 and 503", live, ready)
	}
	if got := probe("/sluice.admin.v1.AdminService/Get"); got != 404 {
		t.Errorf("the admin service on the metrics address: %d, want 404", got)
	}
	gateway.must(t, "apply", "-f", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	if ready := probe("/readyz"); ready != 200 {
		t.Errorf("/readyz after apply: %d, want 200", ready)
	}
}

func TestAdminAccess(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "tokens", "view view-token-0123456789\noperate operate-token-0123456789\n")
	write(t, "bad-tokens", "operate x\n")
	for _, test := range []struct {
		name string
		o    serveOptions
		want string // empty if it is fine
		tls  bool
	}{
		{"loopback", serveOptions{admin: "127.0.0.1:1"}, "", false},
		{"loopback, IPv6", serveOptions{admin: "[::1]:1"}, "", false},
		{"localhost", serveOptions{admin: "localhost:1"}, "", false},
		{"loopback with tokens", serveOptions{admin: "127.0.0.1:1", tokenFile: "tokens"}, "", false},
		{"off", serveOptions{admin: "off"}, "", false},
		{"everywhere", serveOptions{admin: ":1"}, "--admin-token-file has to say who may use it", false},
		{"elsewhere", serveOptions{admin: "10.0.0.1:1"}, "--admin-token-file", false},
		{"a name", serveOptions{admin: "gateway:1"}, "--admin-token-file", false},
		{"elsewhere, insecure without tokens", serveOptions{admin: ":1", insecureAdmin: true}, "--admin-token-file", false},
		{"elsewhere in the clear", serveOptions{admin: ":1", tokenFile: "tokens"}, "--insecure-admin", false},
		{"elsewhere in the clear, as wanted", serveOptions{admin: ":1", tokenFile: "tokens", insecureAdmin: true}, "", false},
		{"elsewhere with TLS", serveOptions{admin: ":1", tokenFile: "tokens", tlsCert: "c", tlsKey: "k"}, "", true},
		{"loopback with TLS for data", serveOptions{admin: "127.0.0.1:1", tlsCert: "c", tlsKey: "k"}, "", false},
		{"bad tokens", serveOptions{admin: ":1", tokenFile: "bad-tokens", insecureAdmin: true}, "bad-tokens:1: want a role", false},
		{"no tokens there", serveOptions{admin: ":1", tokenFile: "none", insecureAdmin: true}, "no such file", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := adminAccess(test.o, slog.New(slog.DiscardHandler))
			if test.want == "" && (err != nil || a.tls != test.tls || (a.tokens == nil) != (test.o.tokenFile == "")) {
				t.Errorf("got %+v, %v", a, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestTokensOverTLS uses an admin address off loopback.
func TestTokensOverTLS(t *testing.T) {
	t.Chdir(t.TempDir())
	writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t))
	writeCertificate(t)
	write(t, "tokens", "view view-token-0123456789\noperate operate-token-0123456789\n")
	write(t, "view", "view-token-0123456789\n")
	write(t, "operate", "operate-token-0123456789\n")
	write(t, "two", "operate operate-token-0123456789\n")
	gateway := startServe(t, "--routes", "routes.yaml", "--admin", "0.0.0.0:0", "--admin-token-file", "tokens", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
	_, port, err := net.SplitHostPort(gateway.admin)
	if err != nil {
		t.Fatal(err)
	}
	secure := &served{admin: "https://127.0.0.1:" + port}
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no token", []string{"get"}, 1, "SLUICE_TOKEN_FILE"},
		{"view may get", []string{"get", "--token-file", "view"}, 0, "revision 1"},
		{"view may not change", []string{"weights", "fraud", "v7=1", "--token-file", "view"}, 1, `the token has the role "view"`},
		{"operate may change", []string{"weights", "fraud", "v7=1", "--token-file", "operate"}, 0, "revision 2"},
		{"another kind of file", []string{"get", "--token-file", "two"}, 1, "got 2 words, want one token"},
		{"no file", []string{"get", "--token-file", "none"}, 1, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := secure.sluice(append(test.args, "--admin-ca", "cert.pem")...)
			if code != test.code || !strings.Contains(out, test.want) || strings.Contains(out, "token-0123456789") {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, test.code, test.want, out)
			}
		})
	}
	if out, code := secure.sluice("get", "--token-file", "view"); code != 1 || !strings.Contains(out, "certificate") {
		t.Errorf("an unknown certificate: exit code %d\n%s", code, out)
	}
	elsewhere := &served{admin: "gateway.example.org:8002"}
	if out, code := elsewhere.sluice("get", "--token-file", "view"); code != 2 || !strings.Contains(out, "--insecure-admin") {
		t.Errorf("a token in the clear: exit code %d\n%s", code, out)
	}
}

// writeCertificate writes cert.pem and key.pem for this machine.
func writeCertificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func TestServeRefusesBadFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "bad.yaml", "routes: []\n")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--store", "mysql://user:secret@host"}, 2, `--store: got "mysql", want one of memory, file:DIR, redis://`},
		{[]string{"--routes", "none.yaml"}, 1, "none.yaml"},
		{[]string{"--routes", "bad.yaml"}, 1, "bad.yaml:1"},
		{[]string{"--store", "redis://user:secret@host:port"}, 2, `--store: got the address "host:port", want HOST or HOST:PORT`},
		{[]string{"--store", "file:"}, 2, "without a folder"},
		{[]string{"--tls-cert", "cert.pem"}, 2, "--tls-cert: got it alone, want --tls-key with it"},
		{[]string{"--tls-key", "key.pem"}, 2, "--tls-key: got it alone, want --tls-cert with it"},
		{[]string{"--tls-cert", "none.pem", "--tls-key", "none.pem"}, 1, "none.pem"},
		{[]string{"--drain-delay", "-1s"}, 2, "--drain-delay: got -1s, want 0s or more"},
		{[]string{"--io-threads", "257"}, 2, "--io-threads: got 257, want 0 to 256"},
		{[]string{"--drain-timeout", "0s"}, 2, "--drain-timeout: got 0s, want more than 0s"},
		{[]string{"--listen", "nonsense"}, 2, `--listen: got "nonsense", want HOST:PORT`},
		{[]string{"--metrics-listen", "host:port"}, 2, `--metrics-listen: got "host:port", want HOST:PORT`},
		{[]string{"--admin", "127.0.0.1:99999"}, 2, `--admin: got "127.0.0.1:99999", want HOST:PORT`},
		{[]string{"--config", "none.yaml"}, 1, "--config: open none.yaml"},
		{[]string{"--config", "bad.yaml"}, 2, `bad.yaml:1: routes: got a list, want text`},
		{[]string{"--admin", ":0"}, 2, "--admin-token-file"},
		{[]string{"--log-level", "loud"}, 2, "want debug, info, warn or error"},
	} {
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := run(ctx, append([]string{"serve", "--listen", "127.0.0.1:0", "--state-dir", t.TempDir()}, test.args...), &out, &out)
		cancel()
		if err == nil || exitCode(err) != test.code || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("serve %q = %v, want exit code %d and %q", test.args, err, test.code, test.want)
		}
	}
}

// As many threads that read as there are cores leave none to the rest, which is said and not refused.
func TestServeWarnsOfThreadsThatTakeEveryCore(t *testing.T) {
	cores := runtime.GOMAXPROCS(0)
	for _, test := range []struct {
		args []string
		warn bool
	}{
		{nil, false},
		{[]string{"--io-threads", "0"}, false},
		{[]string{"--io-threads", fmt.Sprint(cores - 1)}, false},
		{[]string{"--io-threads", fmt.Sprint(cores)}, true},
		{[]string{"--io-threads", fmt.Sprint(cores + 1)}, true},
	} {
		var out bytes.Buffer
		args := []string{"serve", "--listen", "127.0.0.1:0", "--state-dir", t.TempDir(), "--routes", "none.yaml"} // which ends it at once
		if err := run(t.Context(), append(args, test.args...), &out, &out); err == nil {
			t.Fatal("serve without its routes has not failed")
		}
		if got := strings.Contains(out.String(), `level=WARN msg="--io-threads leaves no core to the rest`); got != test.warn {
			t.Errorf("serve %q of %d cores warns: %v, want %v:\n%s", test.args, cores, got, test.warn, &out)
		}
	}
}

func TestNoGatewayThere(t *testing.T) {
	dead := deadAddress(t)
	out, code := (&served{admin: dead}).sluice("get")
	if want := "no gateway answers at http://" + dead + ": connection refused (try: sluice serve, or say where one is with --admin or SLUICE_ADMIN)"; code != 1 || !strings.Contains(out, want) {
		t.Errorf("exit code %d\n%s\nwant %s", code, out, want)
	}
	gateway := startServe(t)
	for _, other := range []string{startModelServer(t), gateway.data} {
		if out, code := (&served{admin: other}).sluice("get"); code != 1 || !strings.Contains(out, "is no admin address of sluice") {
			t.Errorf("another server: exit code %d\n%s", code, out)
		}
	}
	if out, code := (&served{admin: gateway.data}).sluice("watch"); code != 1 || !strings.Contains(out, "is no admin address of sluice") {
		t.Errorf("the data address: exit code %d\n%s", code, out)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = s.Serve(web) }()
	defer s.Close()
	// It closes the connection, and how that looks from here depends on the moment.
	if out, code := (&served{admin: web.Addr().String()}).sluice("watch"); code != 1 || !strings.Contains(out, "no admin address") && !strings.Contains(out, "no gateway answers") {
		t.Errorf("a web server: exit code %d\n%s", code, out)
	}
	for _, bad := range []string{"nonsense", "ftp://host:1", "http://host:1/path", ""} {
		if out, code := (&served{admin: bad}).sluice("get"); code != 2 || !strings.Contains(out, "want host:port") {
			t.Errorf("--admin %q: exit code %d\n%s", bad, code, out)
		}
	}
}

// TestWatchInLines is what a log collector sees.
func TestWatchInLines(t *testing.T) {
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t)
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)), "--store", redis.URL())
	ctx, interrupt := context.WithCancel(t.Context())
	out, lines := new(buffer), new(buffer)
	errs := make(chan error, 2)
	go func() { errs <- run(ctx, []string{"watch", "--admin", gateway.admin}, out, out) }()
	go func() {
		errs <- run(ctx, []string{"watch", "fraud", "-o", "json", "--admin", gateway.admin}, lines, lines)
	}()
	out.await(t, `revision 1, 1 model`)
	lines.await(t, `(?m)^\{"revision":"1","changes":.*\}$`)
	gateway.must(t, "weights", "fraud", "v7=1", "--actor", "anna", "--reason", "all")
	out.await(t, `(?m)^\d\d:\d\d:\d\d UTC revision 2  anna  fraud v7 95->1, v8 5->0  all$`)
	lines.await(t, `(?m)^\{"revision":"2",.*"actor":"anna".*\}$`)
	redis.Hang()
	out.await(t, `problem: redis://`)
	redis.Resume()
	out.await(t, `followed again`)
	interrupt()
	for range 2 {
		if err := <-errs; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch = %v", err)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	t.Setenv("SLUICE_ADMIN", gateway.admin)
	gateway.must(t, "weights", "fraud", "v7=1", "v8=1", "--actor", "anna", "--reason", "half")
	gateway.must(t, "weights", "fraud", "v7=95", "v8=5", "--actor", "bert", "--reason", "as before")
	for _, test := range []struct {
		words []string
		want  string
	}{
		{[]string{"get", ""}, "fraud\tv7=95 v8=5\n:4\n"},
		{[]string{"weights", ""}, "fraud\tv7=95 v8=5\n:4\n"},
		{[]string{"weights", "fraud", ""}, "v7=\tweight 95\nv8=\tweight 5\nv9=\tweight 0\n:6\n"},
		{[]string{"weights", "fraud", "v7=1", ""}, "v8=\tweight 5\nv9=\tweight 0\n:6\n"},
		{[]string{"promote", "fraud", ""}, "v7\tweight 95\nv8\tweight 5\nv9\tweight 0\n:4\n"},
		{[]string{"promote", "fraud", "v7", ""}, ":4\n"},
		{[]string{"rollback", "fraud", ""}, ":4\n"},
		{[]string{"rollback", "fraud", "--to", ""}, "3\tbert: as before\n2\tanna: half\n1\tfile: seeded from routes.yaml\n:36\n"},
		{[]string{"get", "-o", ""}, "table\njson\nyaml\n:4\n"},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), append([]string{"__complete"}, test.words...), &out, io.Discard); err != nil || out.String() != test.want {
			t.Errorf("%q: %q, %v, want %q", test.words, out.String(), err, test.want)
		}
	}
}

func TestExampleRoutesAreAccepted(t *testing.T) {
	if _, err := readRoutes("../../examples/penguins.yaml"); err != nil {
		t.Error(err)
	}
}

func TestUnknownCommands(t *testing.T) {
	for word, want := range map[string]string{
		"wieghts":  `unknown command "wieghts", did you mean weights? (try: sluice --help)`,
		"nonsense": `unknown command "nonsense" (try: sluice --help)`,
	} {
		err := run(t.Context(), []string{word}, io.Discard, io.Discard)
		if err == nil || err.Error() != want || exitCode(err) != exitUsage {
			t.Errorf("sluice %s = %v with exit code %d, want %s", word, err, exitCode(err), want)
		}
	}
}
