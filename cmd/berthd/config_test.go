package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func load(t *testing.T, file string, env, flags map[string]string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berthd.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	return loadConfig(path, true, lookup, flags)
}

func TestConfigPrecedence(t *testing.T) {
	file := "name = \"file\"\nlog_level = \"warn\"\n[node]\ncpu_milli = 1000\nmemory_mib = 2000\n"
	env := map[string]string{"BERTH_NAME": "env", "BERTH_NODE_CPU_MILLI": "3000"}
	c, err := load(t, file, env, map[string]string{"name": "flag"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "flag" || c.Node.CPUMilli != 3000 || c.Node.MemoryMiB != 2000 || c.LogLevel != "warn" || c.LogFormat != "text" {
		t.Fatalf("flag > environment > file > default doesn't hold: %+v", c)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		flags      map[string]string
		want       []string
	}{
		{"unknown key", "name = \"a\"\ndata_dri = \"/x\"\n", nil, []string{"data_dri", "line 2", "berthd.toml"}},
		{"unknown key in a table", "[node]\ncpus = 4\n", nil, []string{"node.cpus", "line 2"}},
		{"bad TOML", "name = \n", nil, []string{"line 1", "berthd.toml"}},
		{"wrong type", "[node]\ncpu_milli = \"many\"\n", nil, []string{"line 2", "berthd.toml"}},
		{"bad number", "", map[string]string{"node-cpu-milli": "many"}, []string{"--node-cpu-milli", "whole number"}},
		{"open HTTP", "http_listen = \"0.0.0.0:7180\"\n", nil, []string{"0.0.0.0:7180", "loopback"}},
		{"no port", "http_listen = \"localhost\"\n", nil, []string{"localhost", "127.0.0.1:7180"}},
		{"unknown model", "simulate_gpus = \"B9000:8\"\n", nil, []string{"B9000", "A100-SXM4-80GB"}},
		{"log level", "log_level = \"loud\"\n", nil, []string{"loud", "debug, info"}},
		{"subnet", "[network]\nsubnet = \"10.0.0.0/30\"\n", nil, []string{"network.subnet", "10.89.0.0/16"}},
		{"port range", "[network]\nport_range = \"80-90\"\n", nil, []string{"network.port_range", "30000-32767"}},
		{"publish address", "[network]\npublish_address = \"here\"\n", nil, []string{"network.publish_address", "here"}},
		{"deny", "[network]\ndeny = [\"10.0.0.1\"]\n", nil, []string{"network.deny", "10.0.0.1"}},
		{"dns", "[network]\ndns = [\"one\"]\n", nil, []string{"network.dns", "one"}},
		{"bridge", "[network]\nbridge = \"a-bridge-of-a-long-name\"\n", nil, []string{"network.bridge"}},
		{"water", "[images]\nlow_water_percent = 90\n", nil, []string{"low_water_percent (90)"}},
		{"image size", "[images]\nmax_gib = 0\n", nil, []string{"images.max_gib"}},
		{"history", "[history]\nkeep_days = 0\n", nil, []string{"history.keep_days 0"}},
		{"export", "[history]\nexport = \"ledger.jsonl\"\n", nil, []string{"history.export", "ledger.jsonl", "whole path"}},
		{"sharing", "[gpu]\nsharing = \"fair\"\n", nil, []string{"gpu.sharing", "timeslice"}},
		{"no UUID", "[gpu]\nexclude = [\"0\"]\n", nil, []string{"[gpu]", "\"0\"", "nvidia-smi -L"}},
		{"metrics address", "[metrics]\nlisten = \"here\"\n", nil, []string{"metrics.listen"}},
		{"metrics key", "[metrics]\nlisten = \"0.0.0.0:7182\"\ntls_cert = \"a\"\n", nil, []string{"metrics.tls_key"}},
		{"metrics for nobody", "[metrics]\nbearer_file = \"/a\"\n", nil, []string{"metrics.listen", "bearer_file"}},
		{"registry twice", "[[registry]]\nhost = \"a\"\n[[registry]]\nhost = \"a\"\n", nil, []string{"[[registry]]", "once"}},
		{"mirror", "[[registry]]\nhost = \"a\"\nmirrors = [\"b\"]\n", nil, []string{"mirror \"b\""}},
		{"negative size", "[reserve]\nmemory_mib = -1\n", nil, []string{"[reserve]", "negative"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load(t, tc.file, nil, tc.flags)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q doesn't say %q", err, w)
				}
			}
		})
	}
}

func TestConfigFileMayBeAbsentOnlyByDefault(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	missing := filepath.Join(t.TempDir(), "berthd.toml")
	if _, err := loadConfig(missing, false, none, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := loadConfig(missing, true, none, nil); err == nil || !strings.Contains(err.Error(), missing) {
		t.Fatalf("a named file that isn't there: %v", err)
	}
}

func TestEveryKeyHasAFlagAVariableAndHelp(t *testing.T) {
	c := defaultConfig()
	seen := map[string]bool{}
	for _, k := range configKeys(&c) {
		if k.help == "" || seen[k.flag()] || seen[k.env()] {
			t.Errorf("%s: help %q, --%s, %s", k.path, k.help, k.flag(), k.env())
		}
		seen[k.flag()], seen[k.env()] = true, true
	}
	if !seen["node-cpu-milli"] || !seen["BERTH_RUN_DIR"] {
		t.Errorf("names have changed: %v", seen)
	}
}

// The shipped example is what the defaults are.
func TestExampleConfigIsTheDefault(t *testing.T) {
	raw, err := os.ReadFile("../../docs/examples/berthd.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, string(raw), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("docs/examples/berthd.toml isn't what the defaults are (-default +example):\n%s", diff)
	}
}

func TestOffer(t *testing.T) {
	host := Sizes{CPUMilli: 2000, MemoryMiB: 4000, StorageMiB: 9000}
	c := Config{Reserve: Sizes{CPUMilli: 500, MemoryMiB: 5000}}
	got, note, err := offer(c, host)
	if err != nil || note != "" || got != (Sizes{1500, 0, 9000}) {
		t.Fatalf("the host's less the reserve: %+v %q %v", got, note, err)
	}
	c.Node = Sizes{CPUMilli: 8000, MemoryMiB: 100}
	if _, _, err := offer(c, host); err == nil || !strings.Contains(err.Error(), "cpu_milli 8000 of 2000") {
		t.Fatalf("more than the host has, without simulated GPUs: %v", err)
	}
	c.SimulateGPUs = "T4:1"
	got, note, err = offer(c, host)
	if err != nil || got.CPUMilli != 8000 || got.MemoryMiB != 100 || !strings.Contains(note, "cpu_milli 8000 of 2000") {
		t.Fatalf("more than the host has, with simulated GPUs: %+v %q %v", got, note, err)
	}
}

func TestCommandLine(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"version"}, &out, &errs); code != 0 || out.String() != "berthd dev\n" {
		t.Errorf("version: %d %q %q", code, &out, &errs)
	}
	out.Reset()
	if code := run(t.Context(), []string{"config", "check", "--config", "/dev/null", "--name", "n1"}, &out, &errs); code != 0 ||
		!strings.Contains(out.String(), "name = n1\n") {
		t.Errorf("config check: %d %q %q", code, &out, &errs)
	}
	if code := run(t.Context(), []string{"run", "--config", "/nowhere/berthd.toml"}, &out, &errs); code != 1 ||
		!strings.Contains(errs.String(), "/nowhere/berthd.toml") {
		t.Errorf("run without its file: %d %q", code, &errs)
	}
}
