package packaging_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// families gives the metrics of the golden scrape with the names of their
// labels, as series of Prometheus: a histogram has three.
func families(t *testing.T) map[string]map[string]bool {
	t.Helper()
	raw, err := os.ReadFile("../metrics/testdata/scrape.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]bool{
		// Of Prometheus itself, and of every program that uses its Go library.
		"up": {}, "process_resident_memory_bytes": {}, "process_cpu_seconds_total": {},
	}
	line := regexp.MustCompile(`^(\w+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`(\w+)="`)
	for text := range strings.Lines(string(raw)) {
		if m := line.FindStringSubmatch(text); m != nil {
			if all[m[1]] == nil {
				all[m[1]] = map[string]bool{}
			}
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				all[m[1]][l[1]] = true
			}
		}
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:berth|process|go|DCGM)_\w+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
)

// exists checks that what an expression asks for is in the golden scrape.
func exists(t *testing.T, where, expr string, known map[string]map[string]bool) {
	t.Helper()
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: %s asks for nothing", where, expr)
	}
	for _, m := range found {
		labels, ok := known[m[1]]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, m[1])
			continue
		}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !labels[l[1]] && l[1] != "job" && l[1] != "instance" {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
}

type rule struct {
	Alert       string            `yaml:"alert,omitempty"`
	Record      string            `yaml:"record,omitempty"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlerts(t *testing.T) {
	const file = "prometheus/alerts.yml"
	promtool(t, "check", "rules", file)
	promtool(t, "test", "rules", "prometheus/alerts_test.yml")
	var alerts ruleFile
	readYAML(t, file, &alerts)
	var tests struct {
		Tests []struct {
			Name string `yaml:"name"`
		} `yaml:"tests"`
	}
	readYAML(t, "prometheus/alerts_test.yml", &tests)
	known := families(t)
	for _, group := range alerts.Groups {
		for _, r := range group.Rules {
			exists(t, r.Alert, r.Expr, known)
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: no summary, description or severity", r.Alert)
			}
			for _, name := range []string{r.Alert, r.Alert + ", silent"} {
				if !slices.ContainsFunc(tests.Tests, func(test struct {
					Name string `yaml:"name"`
				}) bool {
					return test.Name == name
				}) {
					t.Errorf("alerts_test.yml has no test %q", name)
				}
			}
		}
	}
}

type panel struct {
	Title   string         `json:"title"`
	Type    string         `json:"type"`
	ID      int            `json:"id"`
	GridPos map[string]int `json:"gridPos"`
	Targets []struct {
		Expr       string            `json:"expr"`
		Datasource map[string]string `json:"datasource"`
	} `json:"targets"`
}

// Every query of the dashboard is good PromQL, asks for what there is, and goes
// to the data source that its reader has chosen.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("grafana/berth.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels     []panel `json:"panels"`
		Templating struct {
			List []struct {
				Name string `json:"name"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	known, ids, group := families(t), map[int]bool{}, ruleGroup{Name: "dashboard"}
	variables := map[string]string{"$__rate_interval": "5m"}
	for _, v := range board.Templating.List {
		variables["$"+v.Name] = "x"
	}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos["x"]+p.GridPos["w"] > 24 {
			t.Errorf("panel %q: its id is used twice, or it is wider than the page", p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource["uid"] != "${datasource}" {
				t.Errorf("panel %q has a data source of its own: %v", p.Title, target.Datasource)
			}
			exists(t, p.Title, target.Expr, known)
			expr := target.Expr
			for _, name := range slices.Backward(slices.Sorted(maps.Keys(variables))) {
				expr = strings.ReplaceAll(expr, name, variables[name])
			}
			if strings.Contains(expr, "$") {
				t.Errorf("panel %q uses a variable that there isn't: %s", p.Title, target.Expr)
			}
			group.Rules = append(group.Rules, rule{Record: "panel:" + strings.Repeat("x", len(group.Rules)+1), Expr: expr})
		}
	}
	out, err := yaml.Marshal(ruleFile{Groups: []ruleGroup{group}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=none", file)
}

func TestExampleOfPrometheus(t *testing.T) {
	promtool(t, "check", "config", "--syntax-only", "../docs/examples/prometheus.yml")
}

// The list of metrics in the docs is the one of the golden scrape, with its
// words.
func TestMetricsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	scrape, err := os.ReadFile("../metrics/testdata/scrape.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:berth|DCGM)_\\w+)` \\| [^|]* \\| (.*) \\|$").FindAllStringSubmatch(string(raw), -1) {
		if _, twice := listed[m[1]]; twice {
			t.Errorf("docs/metrics.md lists %s twice", m[1])
		}
		listed[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (\w+) (.*)$`).FindAllStringSubmatch(string(scrape), -1) {
		if listed[m[1]] != m[2] {
			t.Errorf("docs/metrics.md says of %s %q, and /metrics %q", m[1], listed[m[1]], m[2])
		}
		delete(listed, m[1])
	}
	for name := range listed {
		t.Errorf("docs/metrics.md lists %s, which there isn't", name)
	}
}
