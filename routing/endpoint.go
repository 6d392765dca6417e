package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// endpointForms says what checkEndpoint accepts.
const endpointForms = "host:port, [v6]:port or dns:///host:port"

// hostName matches names as resolvers take them: labels of letters, digits,
// hyphens and, for the sake of container platforms, underscores; at most 253
// bytes (RFC 1035, section 2.3.4) and a final dot.
var hostName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)

// checkEndpoint says why an endpoint cannot be an address. It resolves nothing.
func checkEndpoint(e string) error {
	address, isDNS := strings.CutPrefix(e, "dns:///")
	if !isDNS && strings.Contains(e, "://") {
		return errors.New("of schemes only dns:/// is known")
	}
	return checkAddress(address)
}

// checkAddress says why something cannot be dialled.
func checkAddress(address string) error {
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 || strings.HasSuffix(address, "]") {
		return errors.New("the port is missing")
	}
	host, port := address[:colon], address[colon+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
		return fmt.Errorf("the port %s is not a number from 1 to 65535", quote(port))
	}
	return checkHost(host)
}

func checkHost(host string) error {
	switch {
	case host == "":
		return errors.New("the host is missing")
	case strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]"):
		if ip, err := netip.ParseAddr(host[1 : len(host)-1]); err != nil || !ip.Is6() {
			return fmt.Errorf("%s is not an IPv6 address", quote(host[1:len(host)-1]))
		}
	case strings.Contains(host, ":"):
		return errors.New("an IPv6 address needs brackets")
	case looksNumeric(host):
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%s is not an IPv4 address", quote(host))
		}
	case len(strings.TrimSuffix(host, ".")) > 253 || !hostName.MatchString(host):
		return fmt.Errorf("%s is not a host name", quote(host))
	}
	return nil
}

// looksNumeric reports whether the last label of a host is a number. Such a
// name cannot be resolved, so it was meant to be an IPv4 address.
func looksNumeric(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}
