package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"sluice/gateway/admin"
)

// access says who may use an admin address, and how it is reached.
type access struct {
	tokens *admin.TokenFile // nil if none are needed
	tls    bool
}

// adminAccess decides that for the flags of sluice serve: on loopback whoever is
// on this machine; elsewhere those with a token, which must not cross a network
// in the clear unless the operator says so.
func adminAccess(o serveOptions, log *slog.Logger) (access, error) {
	var a access
	if o.admin == "off" {
		return a, nil
	}
	elsewhere := !isLoopback(o.admin)
	a.tls = elsewhere && o.tlsCert != ""
	switch {
	case elsewhere && o.tokenFile == "":
		return a, fmt.Errorf("--admin: got %s, which is not on loopback: --admin-token-file has to say who may use it", o.admin)
	case elsewhere && !a.tls && !o.insecureAdmin:
		return a, fmt.Errorf("--admin: got %s, where tokens would be sent without TLS: "+
			"set --tls-cert and --tls-key or, in a network that can be trusted, --insecure-admin", o.admin)
	case o.tokenFile == "":
		return a, nil
	}
	var err error
	a.tokens, err = admin.OpenTokens(o.tokenFile, log)
	return a, err
}

// isLoopback reports whether an address is reached from this machine alone. Of
// names only localhost is taken to be.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
