package routing

import (
	"strings"
	"testing"
)

// TestEndpoints lists what is accepted, and what is refused beside
// testdata/endpoints.bad.yaml.
func TestEndpoints(t *testing.T) {
	for _, e := range []string{
		"localhost:1",
		"10.0.0.7:65535",
		"[::1]:8001",
		"[fe80::1%eth0]:8001",
		"[::ffff:10.0.0.1]:8001",
		"dns:///fraud-v7:8001",
		"dns:///10.0.0.7:8001",
		"dns:///[::1]:8001",
		"model_a.prod.svc.cluster.local.:8001",
		"7up:8001",
		strings.Repeat("a", 63) + ".b:1",
		strings.Repeat("a.", 126) + "a:1",
	} {
		if err := checkEndpoint(e); err != nil {
			t.Errorf("checkEndpoint(%q) = %v, want nil", e, err)
		}
	}
	for _, e := range []string{
		strings.Repeat("a", 64) + ".b:1",
		strings.Repeat("a.", 127) + "a:1",
		"dns:/h:1",
		"dns:////h:1",
		"dns:///",
		"dns:///:1",
		"unix:///run/model.sock",
		"h:",
		"h:00",
		"h:99999999999999999999",
		"[::1",
		"[]:1",
		"[h]:1",
		"[::1]x:1",
		"1.2.3:1",
		"1:1",
		"h..x:1",
		".:1",
		"h-:1",
		"h/x:1",
		"user@h:1",
		"h\n:1",
		"größe:1",
		"h:1 ",
	} {
		if err := checkEndpoint(e); err == nil {
			t.Errorf("checkEndpoint(%q) = nil, want an error", e)
		}
	}
}
