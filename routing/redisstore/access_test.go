package redisstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/routing"
	"sluice/routing/storetest"
)

// documented returns what docs/redis.md says in the given form, to be sent to
// Redis.
func documented(t *testing.T, form string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "redis.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(form).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("docs/redis.md says nothing like %s", form)
	}
	return strings.Fields(strings.Replace(m[1], "PASSWORD", "p@ss/w:rd", 1))
}

// credentials are those of the documented users, for a URL.
const credentials = "sluice:p%40ss%2Fw%3Ard@"

const gatewayUser = `(?m)^(ACL SETUSER sluice .*)$`

// TestDocumentedPermissionsSuffice takes the user from the documentation.
func TestDocumentedPermissionsSuffice(t *testing.T) {
	t.Parallel()
	acl := documented(t, gatewayUser)
	if forbidden := regexp.MustCompile(`\+(eval|keys|config|@|script)`); forbidden.MatchString(strings.Join(acl, " ")) {
		t.Errorf("docs/redis.md has %v, want a user with few permissions", acl)
	}
	server := storetest.StartRedis(t)
	server.Do(acl...)
	url := "redis://" + credentials + server.Addr
	storetest.Run(t, func(t *testing.T) routing.Store {
		server.Do("FLUSHALL")
		return open(t, url)
	})
	r := startReplica(t, url, "")
	r.mustSet(storetest.Route("m", "v0")) // whatever check ran last
	server.Do("FLUSHALL")
	r.awaitProblem("has lost its routing state")
	r.mustSet(storetest.Route("m", "v1"))
	r.awaitWell()
	if log := server.Do("ACL", "LOG"); log != "0" {
		t.Errorf("redis has refused %s commands", log)
	}
}

// TestPollingSufficesWhereStreamsAreForbidden: a user without XREAD sees changes,
// only later, and it shows; once allowed to, it reads the stream.
func TestPollingSufficesWhereStreamsAreForbidden(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	server.Do("ACL", "SETUSER", "gw", "on", ">pw", "~*", "+@all", "-xread")
	a, b := startReplica(t, "redis://gw:pw@"+server.Addr, ""), startReplica(t, server.URL(), "")
	b.mustSet(storetest.Route("m", "v1"))
	a.await("m", "v1 at 1")
	b.mustSet(storetest.Route("m", "v2"))
	a.await("m", "v2 at 2")
	a.awaitProblem("changes are seen seconds late, by polling")
	a.awaitProblem("NOPERM")
	if s := a.Status(); !s.Following || !strings.Contains(a.log.String(), "changes are seen seconds late") {
		t.Errorf("status %+v, want it to follow nevertheless, and the log to say how", s)
	}
	server.Do("ACL", "SETUSER", "gw", "+xread")
	a.awaitWell() // the stream was read, which is what clears it
}

func TestClusterIsAStoreLikeAnyOther(t *testing.T) {
	t.Parallel()
	_, bus, _ := net.SplitHostPort(storetest.FreeAddr(t)) // else its port plus 10000, which a connection may have
	server := storetest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus)
	server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	storetest.Eventually(t, "the cluster is up", func() bool {
		return server.Do("CLUSTER", "INFO") == "cluster_state:ok"
	})
	server.Do(append(documented(t, gatewayUser), documented(t, "a Cluster needs `([^`]*)`")...)...)
	storetest.Run(t, func(t *testing.T) routing.Store {
		server.Do("FLUSHALL")
		return open(t, "redis+cluster://"+credentials+server.Addr)
	})
	if log := server.Do("ACL", "LOG"); log != "0" {
		t.Errorf("redis has refused %s commands", log)
	}
}

func TestDatabaseAndPrefixKeepApart(t *testing.T) {
	t.Parallel()
	server := storetest.StartRedis(t)
	urls := []string{server.URL(), server.URL() + "/1", server.URL() + "?prefix=other", server.URL() + "/1?prefix=other"}
	for i, url := range urls {
		s := open(t, url)
		if at := storetest.Load(t, s); at.Revision != 0 {
			t.Errorf("%s begins at revision %d: it shares its state", url, at.Revision)
		}
		storetest.Set(t, s, storetest.Route("m", "v"+string(rune('0'+i))))
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	tlsAddr := storetest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(tlsAddr)
	storetest.StartRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)

	mutual := "rediss://" + tlsAddr + "?ca_file=" + cert + "&cert_file=" + cert + "&key_file=" + key
	s := open(t, mutual)
	storetest.Set(t, s, storetest.Route("m", "v1"))
	if h := s.Health(); h.Err != nil {
		t.Errorf("Health = %+v, want it well", h)
	}
	for what, url := range map[string]string{
		"unknown authority": "rediss://" + tlsAddr,
		"no certificate":    "rediss://" + tlsAddr + "?ca_file=" + cert,
		"another name":      mutual + "&server_name=other.example.org",
	} {
		_, err := open(t, url).Load(t.Context())
		var unavailable *routing.UnavailableError
		if !errors.As(err, &unavailable) {
			t.Errorf("%s: Load = %v, want it unavailable", what, err)
		}
	}
}

// writeCertificate makes one that is its own authority.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
