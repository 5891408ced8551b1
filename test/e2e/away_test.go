package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/client"
	"berth/runtime/containerd"
	"berth/workspace"
)

// node waits until the daemon's node is ready, or isn't for a reason.
func (d *daemon) node(ready bool, reason string) workspace.Node {
	d.t.Helper()
	var node workspace.Node
	d.eventually(fmt.Sprintf("the node's readiness is %t (%s)", ready, reason), func(ctx context.Context) error {
		page, err := d.client.Nodes(ctx, client.ListOptions{})
		if err != nil {
			return err
		}
		if node = page.Items[0]; node.Ready != ready || node.Reason != reason {
			return fmt.Errorf("it is %t (%s: %s)", node.Ready, node.Reason, node.Message)
		}
		return nil
	})
	return node
}

// containerdOf starts a containerd for one test, which nobody starts again by
// itself. end takes away what is left of it.
func containerdOf(t *testing.T, dir string) (spawn func() string, end func()) {
	t.Helper()
	ctx := context.Background()
	spawn = func() string {
		t.Helper()
		address, err := containerd.Spawn(ctx, containerd.SpawnConfig{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	return spawn, func() {
		if err := containerd.Clear(ctx, dir, cgroupParent); err != nil {
			t.Error(err)
		}
	}
}

// While containerd is away its containers live, the node says why it takes no
// work, and what ends then is seen when it is back, with its exit code.
func TestEndsWhileContainerdIsDown(t *testing.T) {
	dir, err := os.MkdirTemp(host.dir, "k")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "c")
	d := newDaemon(t)
	spawn, end := containerdOf(t, own)
	d.args = []string{"--containerd-address", spawn()}
	defer end()
	defer d.cleanUp()
	d.up()
	d.prepare()
	d.template("leaves", "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done")
	d.create("stays", "demo")
	d.create("leaves", "leaves")
	stays, leaves := d.waitFor("stays", "running"), d.waitFor("leaves", "running")
	d.says(leaves.Run, "ready")
	before, ending := pid(t, stays.Run), d.child(leaves.Run)

	if err := syscall.Kill(serving(t, own), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	down := d.node(false, "runtime_unavailable")
	says(t, down.Message, "containerd")
	if inst, err := d.client.Instance(t.Context(), "stays"); err != nil || inst.Status != workspace.StatusRunning {
		t.Errorf("without containerd, the instance is %s (%v)", inst.Status, err)
	}
	if err := syscall.Kill(ending, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	spawn()
	d.node(true, "")
	failed := d.over("leaves")
	if failed.Phase != workspace.PhaseFailed || failed.ExitCode == nil || *failed.ExitCode != 5 {
		t.Errorf("what ended meanwhile: %s (%s: %s)", failed.Phase, failed.Reason, failed.Message)
	}
	if again := d.waitFor("stays", "running"); again.Run != stays.Run || pid(t, again.Run) != before {
		t.Errorf("what lived on is another: run %s, then %s", stays.Run, again.Run)
	}
	d.stop("stays")
	d.allFree()
}

// child is the process that a container's init runs.
func (d *daemon) child(run string) int {
	d.t.Helper()
	first := pid(d.t, run)
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range all {
		raw, _ := os.ReadFile(path) // gone meanwhile
		_, rest, _ := strings.Cut(string(raw), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(first) {
			n, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				d.t.Fatal(err)
			}
			return n
		}
	}
	d.t.Fatalf("run %s has no process below %d", run, first)
	return 0
}
