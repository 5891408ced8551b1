package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// counts of what a container is made of on a host. Equal before and after means
// that nothing leaked.
type counts struct {
	containers, tasks, snapshots, mounts, namespaces, loops, links, cgroups, shims int
}

func leftovers(t *testing.T) counts {
	t.Helper()
	return counts{
		containers: lines(t, ctr("containers", "ls", "-q")),
		tasks:      lines(t, ctr("tasks", "ls", "-q")),
		snapshots:  snapshots(t),
		mounts:     mounts(t),
		namespaces: namespaces(t),
		loops:      loops(t),
		links:      links(t),
		cgroups:    cgroups(t),
		shims:      shims(t),
	}
}

func ctr(args ...string) *exec.Cmd {
	return exec.Command("ctr", append([]string{"-a", host.containerd, "-n", "berth"}, args...)...)
}

func lines(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return len(strings.Fields(string(out)))
}

// snapshots counts the writable ones: those of images stay.
func snapshots(t *testing.T) int {
	t.Helper()
	out, err := ctr("snapshots", "ls").CombinedOutput()
	if err != nil {
		t.Fatalf("ctr snapshots: %v\n%s", err, out)
	}
	return strings.Count(string(out), "Active")
}

func mounts(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, host.dir) || strings.Contains(line, "/run/berth") {
			n++
		}
	}
	return n
}

// namespaces counts the network namespaces that processes of runs live in.
func namespaces(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, path := range all {
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "..", "cgroup"))
		if ns, err := os.Readlink(path); err == nil && strings.Contains(string(groups), ":"+cgroupParent+"/") {
			seen[ns] = true
		}
	}
	return len(seen)
}

func loops(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range all {
		if file, _ := os.ReadFile(path); strings.HasPrefix(string(file), host.dir) {
			n++
		}
	}
	return n
}

// links counts the interfaces of containers: they are in a bridge of the tests.
func links(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/sys/class/net/berthe2e*/brif/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// cgroups counts those of runs: one per controller on cgroup v1.
func cgroups(t *testing.T) int {
	t.Helper()
	n := 0
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroupParent + "/*/cgroup.procs", "/sys/fs/cgroup/*" + cgroupParent + "/*/cgroup.procs"} {
		all, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		n += len(all)
	}
	return n
}

// shims counts the living ones of the tests' containerd.
func shims(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range all {
		raw, _ := os.ReadFile(path) // empty for a zombie
		if line := string(raw); strings.Contains(line, "containerd-shim") && strings.Contains(line, host.containerd) {
			n++
		}
	}
	return n
}
