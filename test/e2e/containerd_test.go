package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/runtime/containerd"
)

// A containerd of berth's own that dies is started again; its containers don't
// notice, and can be stopped.
func TestOwnContainerdComesBack(t *testing.T) {
	d := newDaemon(t, "--containerd-address", "")
	own := filepath.Join(d.data(), "containerd")
	clearUp := func() {
		if err := containerd.Clear(context.Background(), own, cgroupParent); err != nil {
			t.Error(err)
		}
	}
	// Chosen beforehand, so that one of the host's isn't taken.
	if err := os.MkdirAll(d.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	choice := fmt.Sprintf(`{"address": %q, "own": true, "cgroup_parent": %q}`, filepath.Join(own, "containerd.sock"), cgroupParent)
	if err := os.WriteFile(filepath.Join(d.data(), "containerd.json"), []byte(choice), 0o600); err != nil {
		t.Fatal(err)
	}
	d.up()
	defer clearUp()
	defer d.cleanUp()
	d.prepare()
	d.create("box", "demo")
	inst := d.waitFor("box", "running")
	before := pid(t, inst.Run)
	if err := syscall.Kill(serving(t, own), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if pid(t, inst.Run) != before {
		t.Error("the container ended with its containerd")
	}
	if _, err := d.client.StopInstance(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	d.waitFor("box", "stopped")
	d.allFree()
}

// serving is the process of the containerd in a directory.
func serving(t *testing.T, dir string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		raw, _ := os.ReadFile(path) // gone meanwhile
		if strings.Contains(string(raw), "--config\x00"+filepath.Join(dir, "config.toml")) {
			n, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no containerd serves %s", dir)
	return 0
}
