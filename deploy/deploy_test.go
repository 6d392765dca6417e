// Package deploy_test holds what is deployed beside Sluice to what Sluice is.
package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rules is the part of a file of rules that is looked at here.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Record, Expr string
			Labels, Annotations map[string]string
		}
	}
}

func alertRules(t *testing.T) rules {
	t.Helper()
	var r rules
	if err := yaml.Unmarshal(read(t, "prometheus", "sluice.rules.yml"), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEveryAlertHasARunbookAndATest: whoever is woken is told what to do, and an alert that has
// never fired is not one.
func TestEveryAlertHasARunbookAndATest(t *testing.T) {
	runbook := string(read(t, "..", "docs", "runbook.md"))
	tests := string(read(t, "prometheus", "sluice.rules.test.yml"))
	alerts := 0
	for _, g := range alertRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			alerts++
			if want := "docs/runbook.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
				t.Errorf("%s: runbook %q, want %q", r.Alert, r.Annotations["runbook"], want)
			}
			if !strings.Contains(runbook, "\n## "+r.Alert+"\n") {
				t.Errorf("docs/runbook.md has no section %q", r.Alert)
			}
			fires := regexp.MustCompile(`alertname: ` + r.Alert + `\s+exp_alerts:\s+- exp_labels`)
			if !fires.MatchString(tests) {
				t.Errorf("no test has %s fire", r.Alert)
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s: severity %q, want page or ticket", r.Alert, s)
			}
		}
	}
	if n := strings.Count(runbook, "\n## "); n != alerts {
		t.Errorf("docs/runbook.md has %d sections for %d alerts", n, alerts)
	}
}

// TestRulesPassTheirTests, by promtool, which make test installs.
func TestRulesPassTheirTests(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed; try: apt-get install prometheus")
	}
	for _, args := range [][]string{
		{"check", "config", "prometheus/prometheus.yml"},
		{"test", "rules", "prometheus/sluice.rules.test.yml"},
		{"test", "rules", "prometheus/sluice.budget.test.yml"},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\bsluice_[a-z0-9_]+`)
	labelMatch = regexp.MustCompile(`\b(sluice_[a-z0-9_]+)\{([^}]*)\}`)
	labelName  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	rated      = regexp.MustCompile(`\b(?:rate|increase|irate)\(\s*(sluice_[a-z0-9_]+)`)
	legend     = regexp.MustCompile(`\{\{([^}]*)\}\}`)
)

// documentedMetrics returns the labels of metrics by name, as docs/metrics.md has them; a test of the program
// holds that page to what is exposed.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	row := regexp.MustCompile("(?m)^\\| `(sluice_[a-z0-9_]+)` \\| (counter|gauge|histogram) \\| ([a-z_, ]*)\\|")
	for _, m := range row.FindAllStringSubmatch(string(read(t, "..", "docs", "metrics.md")), -1) {
		labels := append(strings.Split(strings.ReplaceAll(strings.TrimSpace(m[3]), " ", ""), ","), "instance", "job")
		all[m[1]] = labels
		if m[2] == "histogram" {
			all[m[1]+"_bucket"], all[m[1]+"_count"], all[m[1]+"_sum"] = append(labels, "le"), labels, labels
		}
	}
	if len(all) == 0 {
		t.Fatal("docs/metrics.md has no table of metrics")
	}
	return all
}

// checkExpr reports metrics and labels that do not exist.
func checkExpr(t *testing.T, where, expr string, documented map[string][]string) {
	t.Helper()
	for _, name := range metricName.FindAllString(expr, -1) {
		recorded := strings.Contains(expr, "model:"+name) // by a rule
		if _, ok := documented[name]; !ok && !recorded {
			t.Errorf("%s asks for %s, which docs/metrics.md does not name", where, name)
		}
	}
	for _, m := range labelMatch.FindAllStringSubmatch(expr, -1) {
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if labels, ok := documented[m[1]]; ok && !slices.Contains(labels, l[1]) {
				t.Errorf("%s asks for %s by %s, which is none of its labels", where, m[1], l[1])
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			if l = strings.TrimSpace(l); l != "" && !slices.Contains(labelsIn(expr, documented), l) {
				t.Errorf("%s groups by %s, which none of its metrics has", where, l)
			}
		}
	}
	for _, m := range rated.FindAllStringSubmatch(expr, -1) {
		if !strings.HasSuffix(m[1], "_total") && !strings.HasSuffix(m[1], "_bucket") && !strings.HasSuffix(m[1], "_count") && !strings.HasSuffix(m[1], "_sum") {
			t.Errorf("%s asks how fast %s grows, which is no counter", where, m[1])
		}
	}
}

// labelsIn returns the labels that the metrics of an expression have together, and those of every series.
func labelsIn(expr string, documented map[string][]string) []string {
	all := []string{"instance", "job"}
	for _, name := range metricName.FindAllString(expr, -1) {
		if all = append(all, documented[name]...); strings.Contains(expr, "model:"+name) {
			all = append(all, "model")
		}
	}
	return all
}

var (
	aggregated    = regexp.MustCompile(`^\(*(?:sum|max|min|avg|count)\(`)
	aggregatedBy  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	mayBeNegative = regexp.MustCompile(`\bsluice_slo_budget_left\b`)
	quotient      = regexp.MustCompile(`\) / (?:sum|max)`)
	perSecond     = regexp.MustCompile(`\brate\((sluice|process)_[a-z0-9_]*?(_seconds|_bytes)?_(?:total|count)\b`)
)

// labelsLeft returns the labels that an expression's series can have: those that it is summed up by, if it is.
func labelsLeft(expr string, documented map[string][]string) []string {
	by := aggregatedBy.FindAllStringSubmatch(expr, -1)
	if len(by) == 0 {
		if aggregated.MatchString(expr) {
			return nil
		}
		return labelsIn(expr, documented)
	}
	var left []string
	for _, m := range by {
		for l := range strings.SplitSeq(m[1], ",") {
			left = append(left, strings.TrimSpace(l))
		}
	}
	return left
}

// unitsOf returns the units of Grafana in which an expression can be shown; nil if its name does not say.
func unitsOf(expr string) []string {
	m := perSecond.FindStringSubmatch(expr)
	switch {
	case strings.HasPrefix(expr, "histogram_quantile("):
		return []string{"s"}
	case quotient.MatchString(expr):
		return []string{"percentunit", "s", "bytes"}
	case m == nil && regexp.MustCompile(`_seconds\{`).MatchString(expr):
		return []string{"s"}
	case m == nil && regexp.MustCompile(`_bytes\{`).MatchString(expr):
		return []string{"bytes"}
	case m == nil:
		return nil
	case m[2] == "_bytes":
		return []string{"Bps"}
	case m[2] == "_seconds" && strings.Contains(expr, "_seconds_total"):
		return []string{"percentunit"} // seconds of each second
	}
	return []string{"reqps", "cps"}
}

// checkSyntax has promtool read expressions of dashboards, as rules, with what Grafana puts in.
func checkSyntax(t *testing.T, where string, exprs []string) {
	t.Helper()
	filled := strings.NewReplacer("$__rate_interval", "5m", "$model", "fraud", "$version", ".*", "$instance", ".*")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	type group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	g := group{Name: "dashboard"}
	for i, e := range exprs {
		g.Rules = append(g.Rules, rule{fmt.Sprintf("panel:%d", i), filled.Replace(e)})
	}
	data, err := yaml.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", where, err, out)
	}
}

// TestDashboardsAndRulesAskForWhatIsThere, and panels do not lie over each other.
func TestDashboardsAndRulesAskForWhatIsThere(t *testing.T) {
	documented := documentedMetrics(t)
	for _, g := range alertRules(t).Groups {
		for _, r := range g.Rules {
			checkExpr(t, r.Alert+r.Record, r.Expr, documented)
		}
	}
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("dashboards %v, %v: want fleet, model, version comparison and breakers", files, err)
	}
	for _, file := range files {
		var d struct {
			UID, Title string
			Panels     []struct {
				Title   string
				GridPos struct{ X, Y, W, H int }
				Targets []struct{ Expr, LegendFormat string }

				FieldConfig struct {
					Defaults struct {
						Unit string
						Min  *float64
					}
				}
			}
			Annotations struct{ List []struct{ Name, Expr string } }
			Templating  struct {
				List []struct {
					Name  string
					Query any
				}
			}
		}
		if err := json.Unmarshal(read(t, file), &d); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if d.UID+".json" != filepath.Base(file) || d.Title == "" || len(d.Panels) == 0 {
			t.Errorf("%s: uid %q, title %q, %d panels", file, d.UID, d.Title, len(d.Panels))
		}
		for _, v := range d.Templating.List {
			checkExpr(t, fmt.Sprintf("%s, variable %s", file, v.Name), fmt.Sprint(v.Query), documented)
		}
		var exprs []string
		for _, a := range d.Annotations.List {
			checkExpr(t, fmt.Sprintf("%s, annotation %s", file, a.Name), a.Expr, documented)
			exprs = append(exprs, a.Expr)
		}
		taken := make(map[[2]int]string)
		for _, p := range d.Panels {
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other := taken[at]; other != "" || at[0] >= 24 {
						t.Fatalf("%s: %q lies over %q or beside the grid at %v", file, p.Title, other, at)
					}
					taken[at] = p.Title
				}
			}
			for _, target := range p.Targets {
				where := fmt.Sprintf("%s, %q", file, p.Title)
				checkExpr(t, where, target.Expr, documented)
				exprs = append(exprs, target.Expr)
				for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
					if !slices.Contains(labelsLeft(target.Expr, documented), m[1]) {
						t.Errorf("%s names its lines by %s, which is not left of its metrics' labels", where, m[1])
					}
				}
				shown := p.FieldConfig.Defaults
				if want := unitsOf(target.Expr); want != nil && !slices.Contains(want, shown.Unit) {
					t.Errorf("%s shows %s in %q, want one of %q", where, target.Expr, shown.Unit, want)
				}
				if shown.Min != nil && *shown.Min >= 0 && mayBeNegative.MatchString(target.Expr) {
					t.Errorf("%s hides what is below %v, and an overspent budget is", where, *shown.Min)
				}
			}
		}
		checkSyntax(t, file, exprs)
	}
}
