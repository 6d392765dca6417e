package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/sample"
)

// prometheus is a real one that scrapes a gateway every second.
type prometheus struct{ url string }

// startPrometheus runs Prometheus with the rules in deploy/, whose patience is cut down to seconds, until
// the test ends.
func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed; try: apt-get install prometheus")
	}
	dir := t.TempDir()
	rules, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", "sluice.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	impatient := regexp.MustCompile(`for: \d+m`).ReplaceAllString(string(rules), "for: 1s")
	impatient = regexp.MustCompile(`interval: 15s`).ReplaceAllString(impatient, "interval: 1s")
	writeFile(t, filepath.Join(dir, "sluice.rules.yml"), impatient)
	writeFile(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [sluice.rules.yml]
scrape_configs: [{job_name: sluice, static_configs: [{targets: [%q]}]}]
`, target))
	addr := freeAddr(t)
	startProcess(t, nil, binary, "--config.file", filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addr, "--log.level", "warn")
	return &prometheus{"http://" + addr}
}

// query returns the results of an expression: labels and value.
func (p *prometheus) query(expr string) (map[string]string, error) {
	resp, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Error != "" {
		return nil, fmt.Errorf("%s: %w", answer.Error, err)
	}
	if len(answer.Data.Result) == 0 {
		return nil, fmt.Errorf("%s has no result", expr)
	}
	first := answer.Data.Result[0]
	first.Metric["value"] = fmt.Sprint(first.Value[1])
	return first.Metric, nil
}

// TestPrometheusTellsWhichVersionFails: a real Prometheus reads the metrics, and the alerts that are
// deployed with Sluice fire, for the version that fails and for the model whose callers notice.
func TestPrometheusTellsWhichVersionFails(t *testing.T) {
	t.Parallel()
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	metrics := freeAddr(t)
	s := startSluice(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, endpoints: [%q]}, {name: v2, endpoints: [%q]}]
    weights: {v1: 1, v2: 1}
    slo: {availability: 99.9}
`, model, v1.addr, v2.addr), "--metrics-listen", metrics)
	p := startPrometheus(t, metrics)
	load := startLoad(model, 2, dial(t, s.addr))
	defer func() { close(load.stopped); load.callers.Wait() }() // that calls fail is what this is about
	eventually(t, time.Minute, "calls are seen", func() error {
		_, err := p.query(fmt.Sprintf(`sum(sluice_call_duration_seconds_count{model=%q, code="OK"}) > 10`, model))
		return err
	})
	eventually(t, time.Minute, "no alert is left from before the first scrape", func() error {
		if _, err := p.query(`absent(ALERTS{alertstate="firing"})`); err != nil {
			alert, _ := p.query(`ALERTS{alertstate="firing"}`)
			return fmt.Errorf("%v: %w", alert, err)
		}
		return nil
	})
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal})
	for name, labels := range map[string]map[string]string{
		"SluiceBreakerOpen":          {"model": model, "version": "v2", "severity": "ticket"},
		"SluiceErrorBudgetBurnsFast": {"model": model, "severity": "page"},
	} {
		eventually(t, 60*time.Second, name+" fires", func() error {
			alert, err := p.query(fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing"}`, name))
			if err != nil {
				return err
			}
			for label, want := range labels {
				if alert[label] != want {
					return fmt.Errorf("%s is %q, want %q", label, alert[label], want)
				}
			}
			return nil
		})
	}
	if _, err := p.query(`ALERTS{alertname="SluiceBreakerOpen", version="v1"}`); err == nil {
		t.Error("there is an alert for the version that is well")
	}
}
