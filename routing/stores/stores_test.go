package stores_test

import (
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sluice/routing/stores"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for _, test := range []struct {
		spec, name string
		kind       stores.Kind
	}{
		{"", "memory", stores.Memory},
		{"memory", "memory", stores.Memory},
		{"file:" + dir, "file:" + dir, stores.File},
		{"redis://u:secret@h/3", "redis://h:6379/3", stores.Redis},
		{"rediss://h:1", "rediss://h:1", stores.Redis},
		{"redis://[::1]:1?prefix=a", "redis://[::1]:1?prefix=a", stores.Redis},
		{"redis+sentinel://u:secret@a,b:2/main/1?sentinel_password=secret", "redis+sentinel://a:26379,b:2/main/1", stores.Redis},
		{"redis+cluster://a,b", "redis+cluster://a:6379,b:6379", stores.Redis},
	} {
		s, kind, err := stores.Open(test.spec)
		if err != nil || kind != test.kind || s.String() != test.name {
			t.Errorf("Open(%s) = %v, %v, %v, want %s", test.spec, s, kind, err, test.name)
			continue
		}
		if kind != stores.Redis {
			storetest.Set(t, s, storetest.Route("m", "v1"))
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close of %s = %v", test.spec, err)
		}
	}
}

// TestErrorsSayWhatIsAcceptedAndNoSecrets, however the secret was mistyped.
func TestErrorsSayWhatIsAcceptedAndNoSecrets(t *testing.T) {
	for spec, want := range map[string]string{
		"postgres://u:secret@h":                      `got "postgres", want one of memory, file:DIR, redis://`,
		"rediss":                                     `got "rediss", want one of memory`,
		"file:":                                      "without a folder",
		"redis://u:secret@":                          `got the address "", want HOST or HOST:PORT`,
		"redis://u:secret@h:70000":                   `got the address "h:70000"`,
		"redis://u:secret@h:1,h:2":                   "got 2 hosts, want one, or redis+sentinel or redis+cluster",
		"redis://u:secret@h/x":                       `got the path "x", want the number of a database`,
		"redis+cluster://u:secret@h/1":               "nothing for a cluster",
		"redis+sentinel://u:secret@h":                "got no name of the primary",
		"redis://u:%zzsecret@h":                      "user and password cannot be read",
		"redis://u:secret?more@h":                    "user and password cannot be read",
		"redis://u:secret/more@h":                    "user and password cannot be read",
		"redis://u:secret@h?pasword=secret":          `got the parameter "pasword", want one of prefix`,
		"redis://u:secret@h?prefix=a{b}":             `prefix: got "a{b}"`,
		"redis://u:secret@h?ca_file=/f":              "want a scheme that begins with rediss",
		"rediss://u:secret@h?ca_file=/does/not":      "ca_file: open /does/not",
		"rediss://u:secret@h?cert_file=/does/not":    "cert_file and key_file",
		"redis+sentinel://h/m?sentinel_password=%zz": "cannot be read",
	} {
		s, _, err := stores.Open(spec)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%s) = %v, want %q and no secret", spec, err, want)
		}
	}
}
