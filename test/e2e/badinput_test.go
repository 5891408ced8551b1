package e2e

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/client"
	"berth/workspace"
)

// says checks that a message names what, where and what to do.
func says(t *testing.T, message string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(message, w) {
			t.Errorf("%q doesn't say %q", message, w)
		}
	}
}

func TestBadConfig(t *testing.T) {
	d := newDaemon(t)
	path := filepath.Join(d.dir, "berthd.toml")
	for content, want := range map[string]string{"data_dri = \"/x\"": "data_dri", "[node": "line 1"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, d.fails("--config", path), path, want)
	}
}

func TestSecondDaemon(t *testing.T) {
	d := newDaemon(t)
	d.up()
	says(t, d.fails(), d.data(), "in use", "--data-dir")
	// Another data directory, the same socket.
	says(t, d.fails("--data-dir", filepath.Join(d.dir, "other")), d.socket(), "--socket")
	if _, err := d.client.Status(t.Context()); err != nil {
		t.Errorf("the first daemon was disturbed: %v", err)
	}
}

func TestSocketPathHoldsAFile(t *testing.T) {
	d := newDaemon(t)
	if err := os.WriteFile(d.socket(), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, d.fails(), d.socket(), "isn't a socket")
	if raw, _ := os.ReadFile(d.socket()); string(raw) != "precious" {
		t.Error("the file is gone")
	}
}

func TestNoContainerd(t *testing.T) {
	d := newDaemon(t)
	nowhere := filepath.Join(d.dir, "nowhere.sock")
	says(t, d.fails("--containerd-address", nowhere), nowhere, "containerd.address")

	if _, err := os.Stat("/run/containerd/containerd.sock"); err == nil {
		t.Log("this host has a containerd, so that the rest can't be seen here")
		return
	}
	// None answers, and none can be started: there is no binary in PATH.
	cmd := exec.Command(filepath.Join(host.bin, "berthd"), d.commandLine()...)
	cmd.Args = append(cmd.Args, "--containerd-address", "")
	cmd.Env = []string{"PATH=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it ran without containerd:\n%s", out)
	}
	says(t, string(out), "containerd", "apt install containerd")
}

// A torn log is refused, and left as it is for whoever repairs it.
func TestTornRaftLog(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.signal(15)
	logs, err := filepath.Glob(filepath.Join(d.data(), "raft", "*.db"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("raft log: %v %v", logs, err)
	}
	whole, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, torn := range map[string][]byte{
		"truncated": whole[:len(whole)/3],
		"garbage":   bytes.Repeat([]byte("torn"), 8192),
	} {
		if err := os.WriteFile(logs[0], torn, 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, d.fails(), logs[0])
		if after, _ := os.ReadFile(logs[0]); !bytes.Equal(after, torn) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if err := os.WriteFile(logs[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	d.up()
	if _, err := d.client.Template(t.Context(), "demo"); err != nil {
		t.Errorf("the repaired log lost something: %v", err)
	}
}

func TestSimulationLimits(t *testing.T) {
	d := newDaemon(t)
	says(t, d.fails("--simulate-gpus", "B9000:2"), "B9000", "A100-SXM4-80GB")
	says(t, d.fails("--simulate-gpus", "", "--node-cpu-milli", "9000000"), "9000000", "simulate_gpus")
	d.args = []string{"--node-cpu-milli", "9000000"}
	d.up()
	s, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	says(t, strings.Join(s.Warnings, "\n"), "9000000")
}

func TestBadImages(t *testing.T) {
	d := newDaemon(t)
	d.up()
	stored := lines(t, ctr("images", "ls", "-q"))
	for name, archive := range map[string][]byte{
		"not an archive": []byte("hello"),
		"not OCI":        tarOf(t, "readme.txt"),
		"climbs out":     tarOf(t, "../../etc/passwd"),
		"truncated":      host.archive[:len(host.archive)/2],
	} {
		_, err := d.client.ImportImage(t.Context(), bytes.NewReader(archive), client.ImportOptions{}, nil)
		if workspace.CodeOf(err) != workspace.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := lines(t, ctr("images", "ls", "-q")); n != stored {
		t.Errorf("%d images are stored, before there were %d", n, stored)
	}
}

func tarOf(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadInstances(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	if _, err := d.client.PutTemplate(t.Context(), workspace.Template{
		Name: "asks", Image: imageName, Kind: workspace.KindInteractive, Stoppable: true,
		Variables: []workspace.Variable{{Name: "port", Type: workspace.VarInt, Required: true}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.PutTemplate(t.Context(), workspace.Template{
		Name: "absent", Image: "nowhere:1", Kind: workspace.KindInteractive, Stoppable: true,
	}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, template string
		variables      map[string]string
		want           []string
	}{
		{"unknown template", "none", nil, []string{"none"}},
		{"missing variable", "asks", nil, []string{"port", "required"}},
		{"wrong variable", "asks", map[string]string{"port": "many"}, []string{"port", "many", "whole number"}},
		{"unknown variable", "asks", map[string]string{"port": "1", "colour": "red"}, []string{"colour", "port"}},
		{"image missing", "absent", nil, []string{"nowhere:1", "berth image import"}},
	} {
		n := newInstance("bad", tc.template, 1)
		n.Template.Variables = tc.variables
		_, err := d.client.CreateInstance(t.Context(), n)
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
			continue
		}
		says(t, err.Error(), tc.want...)
		if _, err := d.client.Instance(t.Context(), "bad"); workspace.CodeOf(err) != workspace.CodeNotFound {
			t.Errorf("%s: something was stored: %v", tc.name, err)
		}
	}
}

// What no node could ever run fails at once, and says what the cluster has.
func TestImpossibleRequests(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	kind := "H100"
	for name, change := range map[string]func(*workspace.ResourceRequest){
		"gpu_count_impossible": func(r *workspace.ResourceRequest) { *r.GPUCount = 9 },
		"gpu_kind_absent":      func(r *workspace.ResourceRequest) { r.GPUType = &kind },
		"resources_impossible": func(r *workspace.ResourceRequest) { *r.CPUMilli = 900000 },
	} {
		n := newInstance(strings.ReplaceAll(name, "_", "-"), "demo", 1)
		change(&n.Resources)
		inst, err := d.client.CreateInstance(t.Context(), n)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if inst.Status != workspace.StatusFailed || inst.Reason != name {
			t.Errorf("%s: %s (%s)", name, inst.Status, inst.Reason)
		}
		if name != "resources_impossible" {
			says(t, inst.Message, "8", "A100-SXM4-80GB")
		}
	}
}
