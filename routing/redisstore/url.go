package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Forms lists the URLs that [Open] accepts, for errors and help.
const Forms = `redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://... with TLS, ` +
	`redis+sentinel://[USER:PASSWORD@]HOST[:PORT],.../PRIMARY[/DB] or redis+cluster://[USER:PASSWORD@]HOST[:PORT],... ` +
	`(rediss+sentinel, rediss+cluster with TLS)`

// parameters are what may stand behind the question mark.
var parameters = []string{"prefix", "ca_file", "cert_file", "key_file", "server_name", "sentinel_user", "sentinel_password"}

// target is what a URL says.
type target struct {
	name             string // the URL without secrets
	addrs            []string
	user, password   string
	sentinelUser     string
	sentinelPassword string
	db               int
	primary          string // Sentinel's name for it
	cluster          bool
	prefix           string
	tls              *tls.Config
}

// IsURL reports whether a text means to be a URL of this package.
func IsURL(text string) bool {
	scheme, _, ok := strings.Cut(text, "://")
	return ok && schemes[scheme] != nil
}

// schemes say what a URL's scheme stands for.
var schemes = map[string]*struct {
	tls, sentinel, cluster bool
	port                   string
}{
	"redis":           {port: "6379"},
	"rediss":          {tls: true, port: "6379"},
	"redis+sentinel":  {sentinel: true, port: "26379"},
	"rediss+sentinel": {tls: true, sentinel: true, port: "26379"},
	"redis+cluster":   {cluster: true, port: "6379"},
	"rediss+cluster":  {tls: true, cluster: true, port: "6379"},
}

// goodPrefix matches what may stand in a hash tag and in an ACL pattern.
var goodPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

var errEncoding = errors.New("store: user and password cannot be read, want USER:PASSWORD with special characters percent-encoded, such as %40 for @")

// parseURL takes a URL apart. No error repeats it: it may hold a password.
func parseURL(text string) (*target, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	kind := schemes[scheme]
	if kind == nil {
		return nil, fmt.Errorf("store: got a URL with another scheme, want %s", Forms)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(path+query, "@") {
		return nil, errEncoding // what seems to be an address is half a password
	}
	t := &target{cluster: kind.cluster, prefix: "sluice"}
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		userinfo, err := url.Parse("redis://" + authority[:at+1] + "host")
		if err != nil {
			return nil, errEncoding
		}
		t.user = userinfo.User.Username()
		t.password, _ = userinfo.User.Password()
		authority = authority[at+1:]
	}
	var err error
	if t.addrs, err = parseAddrs(authority, kind.port); err != nil {
		return nil, err
	}
	if len(t.addrs) > 1 && !kind.sentinel && !kind.cluster {
		return nil, fmt.Errorf("store: got %d hosts, want one, or %s+sentinel or %s+cluster", len(t.addrs), scheme, scheme)
	}
	if kind.sentinel {
		t.primary, path, _ = strings.Cut(path, "/")
		if t.primary == "" {
			return nil, errors.New("store: got no name of the primary, want redis+sentinel://HOST,.../PRIMARY")
		}
	}
	if path != "" {
		if t.db, err = strconv.Atoi(path); err != nil || t.db < 0 || kind.cluster {
			return nil, fmt.Errorf("store: got the path %q, want the number of a database, or nothing for a cluster", path)
		}
	}
	t.name = nameOf(scheme, t)
	return t, t.parseQuery(query, kind.tls)
}

// nameOf returns the URL without what must not be shown.
func nameOf(scheme string, t *target) string {
	name := scheme + "://" + strings.Join(t.addrs, ",")
	if t.primary != "" {
		name += "/" + t.primary
	}
	if t.db != 0 {
		name += "/" + strconv.Itoa(t.db)
	}
	return name
}

func parseAddrs(text, port string) ([]string, error) {
	var addrs []string
	for a := range strings.SplitSeq(text, ",") {
		u := url.URL{Host: a}
		host, p := u.Hostname(), u.Port()
		if p == "" {
			p = port
		}
		named := strings.Contains(host, ":") && !strings.HasPrefix(a, "[") // a port that is no number
		if n, err := strconv.Atoi(p); host == "" || named || err != nil || n < 1 || n > 65535 || strings.ContainsAny(a, " /\\") {
			return nil, fmt.Errorf("store: got the address %q, want HOST or HOST:PORT", a)
		}
		addrs = append(addrs, net.JoinHostPort(host, p))
	}
	return addrs, nil
}

func (t *target) parseQuery(query string, useTLS bool) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("store: what follows the question mark cannot be read, want key=value&...")
	}
	for key := range values {
		if !slices.Contains(parameters, key) {
			return fmt.Errorf("store: got the parameter %q, want one of %s", key, strings.Join(parameters, ", "))
		}
	}
	if p := values.Get("prefix"); p != "" {
		if !goodPrefix.MatchString(p) {
			return fmt.Errorf("store: prefix: got %q, want 1 to 64 letters, digits, '.', '_' or '-'", p)
		}
		if p != t.prefix {
			t.name += "?prefix=" + p
		}
		t.prefix = p
	}
	t.sentinelUser, t.sentinelPassword = values.Get("sentinel_user"), values.Get("sentinel_password")
	if !useTLS {
		for _, key := range []string{"ca_file", "cert_file", "key_file", "server_name"} {
			if values.Has(key) {
				return fmt.Errorf("store: %s: got a setting for TLS, want a scheme that begins with rediss", key)
			}
		}
		return nil
	}
	return t.parseTLS(values)
}

func (t *target) parseTLS(values url.Values) error {
	t.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: values.Get("server_name")}
	if file := values.Get("ca_file"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("store: ca_file: %w", err)
		}
		t.tls.RootCAs = x509.NewCertPool()
		if !t.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("store: ca_file: got %s without a certificate, want PEM", file)
		}
	}
	cert, key := values.Get("cert_file"), values.Get("key_file")
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("store: cert_file and key_file: %w", err)
	}
	t.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// options are those of the client library.
func (t *target) options(cfg Config) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:            t.addrs,
		Username:         t.user,
		Password:         t.password,
		SentinelUsername: t.sentinelUser,
		SentinelPassword: t.sentinelPassword,
		DB:               t.db,
		MasterName:       t.primary,
		IsClusterMode:    t.cluster,
		TLSConfig:        t.tls,

		// A write that is repeated unseen could be made twice, and whoever waits
		// wants to know soon.
		MaxRetries:            -1,
		DialerRetries:         1,
		DialTimeout:           cfg.Timeout,
		ReadTimeout:           cfg.Timeout,
		WriteTimeout:          cfg.Timeout,
		PoolTimeout:           cfg.Timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              8, // one follows, others read and write now and then
		PipelinePoolSize:      -1,

		// Both would need further permissions.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}
