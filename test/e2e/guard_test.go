package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/agent/guard"
)

func (d *daemon) guardDir() string { return filepath.Join(d.dir, "run", "guard") }

// guards are the processes of guards of this daemon.
func (d *daemon) guards() []int {
	d.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		d.t.Fatal(err)
	}
	var pids []int
	for _, path := range all {
		raw, _ := os.ReadFile(path) // empty for a zombie
		if strings.Contains(string(raw), "\x00guard\x00") && strings.Contains(string(raw), d.guardDir()+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				d.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// The guard comes with berthd, comes back when it is killed, and keeps a deadline
// while berthd is dead.
func TestGuardOutlivesTheDaemon(t *testing.T) {
	d := newDaemon(t)
	d.up()
	client := guard.NewClient(filepath.Join(d.guardDir(), "guard.sock"))
	before, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if all := d.guards(); len(all) != 1 || all[0] != before.Pid {
		t.Errorf("guards %v, %+v answers", all, before)
	}
	if before.Cgroup != "/berth-guard" || !before.Locked {
		t.Errorf("%+v", before)
	}
	run, dirs := due(t)
	defer func() { _ = run.Process.Kill() }()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	end := now.Nano()/1e6 + 4000
	if err := client.Set(t.Context(), guard.Deadline{Run: "due", BootID: before.BootID, Kill: end, Cgroups: dirs}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var after guard.Status
	d.eventually("a guard is back", func(ctx context.Context) error {
		after, err = client.Status(ctx)
		return err
	})
	if after.Entries != 1 || after.Pid == before.Pid {
		t.Errorf("the next guard: %+v", after)
	}
	d.kill()
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what was due: %v", err)
	}
	entries, err := client.List(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Killed < end || entries[0].Killed > end+1000 {
		t.Errorf("due at %d: %+v, %v", end, entries, err)
	}
	d.up()
	if all := d.guards(); len(all) != 1 || all[0] != after.Pid {
		t.Errorf("another start of berthd: guards %v, was %d", all, after.Pid)
	}
}

// due is a process in a cgroup of its own.
func due(t *testing.T) (run *exec.Cmd, dirs []string) {
	t.Helper()
	name := fmt.Sprintf("berth-e2e-due-%d", os.Getpid())
	var roots []string
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, missing := os.Stat(filepath.Join(root, "cgroup.procs")); missing == nil {
			roots = append(roots, root)
		}
	}
	script := ""
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Rmdir(dir) })
		script += "echo 0 >" + dir + "/cgroup.procs; "
	}
	run = exec.Command("/bin/sh", "-c", script+"trap '' TERM; echo; while :; do sleep 60; done")
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if dirs, err = guard.CgroupsOf(run.Process.Pid); err != nil || len(dirs) != len(roots) {
		t.Fatalf("cgroups of %d: %v, %v; want one in each of %v", run.Process.Pid, dirs, err, roots)
	}
	return run, dirs
}
