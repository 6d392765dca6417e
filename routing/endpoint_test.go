package routing

import (
	"strings"
	"testing"
)

// TestEndpoints lists what is accepted, and what is refused beside
// testdata/endpoints.bad.yaml.
func TestEndpoints(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"localhost:1":                          true,
		"10.0.0.7:65535":                       true,
		"[::1]:8001":                           true,
		"[fe80::1%eth0]:8001":                  true,
		"[::ffff:10.0.0.1]:8001":               true,
		"dns:///fraud-v7:8001":                 true,
		"dns:///10.0.0.7:8001":                 true,
		"dns:///[::1]:8001":                    true,
		"model_a.prod.svc.cluster.local.:8001": true,
		"7up:8001":                             true,
		strings.Repeat("a", 63) + ".b:1":       true,
		strings.Repeat("a", 64) + ".b:1":       false,
		strings.Repeat("a.", 126) + "a:1":      true,
		strings.Repeat("a.", 127) + "a:1":      false,
		"dns:/h:1":                             false,
		"dns:////h:1":                          false,
		"dns:///":                              false,
		"dns:///:1":                            false,
		"unix:///run/model.sock":               false,
		"h:":                                   false,
		"h:00":                                 false,
		"h:99999999999999999999":               false,
		"[::1":                                 false,
		"[]:1":                                 false,
		"[h]:1":                                false,
		"[::1]x:1":                             false,
		"1.2.3:1":                              false,
		"1:1":                                  false,
		"h..x:1":                               false,
		".:1":                                  false,
		"h-:1":                                 false,
		"h/x:1":                                false,
		"user@h:1":                             false,
		"h\n:1":                                false,
		"größe:1":                              false,
		"h:1 ":                                 false,
	} {
		if err := checkEndpoint(endpoint); (err == nil) != ok {
			t.Errorf("checkEndpoint(%q) = %v, want accepted: %v", endpoint, err, ok)
		}
	}
}
