package containerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCgroupFiles(t *testing.T) {
	for _, test := range []struct {
		name  string
		fs    cgroupFS
		files map[string]string
		pids  []int
		oom   uint64
		swap  bool
	}{
		{
			name: "v1", pids: []int{11, 12, 13}, oom: 2, swap: true,
			files: map[string]string{
				"pids/berth/a/cgroup.procs":          "12\n11\n",
				"memory/berth/a/cgroup.procs":        "11\n",
				"memory/berth/a/child/cgroup.procs":  "13\n",
				"memory/berth/a/memory.oom_control":  "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
				"memory/berth/b/memory.oom_control":  "oom_kill 0\n",
				"memory/memory.memsw.limit_in_bytes": "1\n",
				"devices/berth/b/cgroup.procs":       "99\n",
			},
		},
		{
			name: "v1 without swap accounting", pids: nil,
			files: map[string]string{
				"pids/berth/a/cgroup.procs":         "0\n",
				"memory/berth/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 0\n",
			},
		},
		{
			name: "v2", fs: cgroupFS{unified: true}, pids: []int{21, 22}, oom: 1, swap: true,
			files: map[string]string{
				"berth/a/cgroup.procs":       "21\n",
				"berth/a/child/cgroup.procs": "22\n",
				"berth/a/memory.events":      "low 0\nhigh 0\nmax 7\noom 3\noom_kill 1\noom_group_kill 0\n",
				"berth/b/cgroup.procs":       "99\n",
			},
		},
		{
			name: "v2 with pressure but no kill", fs: cgroupFS{unified: true}, swap: true,
			files: map[string]string{"berth/a/memory.events": "oom 3\noom_kill 0\noom_group_kill 0\n"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.fs.root = tree(t, test.files)
			if got := test.fs.processes("/berth/a"); !slices.Equal(got, test.pids) {
				t.Errorf("processes are %v, want %v", got, test.pids)
			}
			if got := test.fs.oomKills("/berth/a"); got != test.oom {
				t.Errorf("oomKills is %d", got)
			}
			if got := test.fs.limitsSwap(); got != test.swap {
				t.Errorf("limitsSwap is %t", got)
			}
			if test.fs.oomKills("/berth/none") > 0 || len(test.fs.processes("/berth/none")) > 0 {
				t.Error("a cgroup that doesn't exist has something")
			}
		})
	}
}

// TestCgroupKill uses files for the cgroup and a real process: what is listed
// gets SIGKILL until the list is empty, or the caller has enough.
func TestCgroupKill(t *testing.T) {
	victim := exec.Command("sleep", "600")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(victim.Process.Pid)
	fs := cgroupFS{root: tree(t, map[string]string{"pids/berth/a/cgroup.procs": pid + "\n"})}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_ = victim.Wait()
		cancel() // the file never gets empty
	}()
	if err := fs.kill(ctx, "/berth/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("kill: %v, want the context's error", err)
	}
	if victim.ProcessState == nil {
		t.Error("the process lives")
	}
	if err := fs.kill(t.Context(), "/berth/none"); err != nil {
		t.Errorf("kill in no cgroup: %v", err)
	}
}

// TestCgroupOfTheHost: no mistake elsewhere may end all that runs. The pid is of
// a process that may die.
func TestCgroupOfTheHost(t *testing.T) {
	victim := exec.CommandContext(t.Context(), "sleep", "600")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Wait() }()
	defer func() { _ = victim.Process.Kill() }()
	root := tree(t, map[string]string{"pids/cgroup.procs": strconv.Itoa(victim.Process.Pid) + "\n"})
	for _, path := range []string{"", "/", "/..", "."} {
		fs := cgroupFS{root: root}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := fs.kill(ctx, path); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("kill in %q: %v", path, err)
		}
		cancel()
		if err := fs.remove(path); err == nil {
			t.Errorf("%q can be removed", path)
		}
	}
	if err := victim.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the process is gone: %v", err)
	}
}

// TestCgroupKillUnified: where the kernel has it, one write kills all.
func TestCgroupKillUnified(t *testing.T) {
	fs := cgroupFS{unified: true, root: tree(t, map[string]string{
		"berth/a/cgroup.procs": strconv.Itoa(os.Getpid()) + "\n", // would end the test if signalled
		"berth/a/cgroup.kill":  "",
	})}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := fs.kill(ctx, "/berth/a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("kill: %v", err)
	}
	if content, _ := os.ReadFile(filepath.Join(fs.root, "berth/a/cgroup.kill")); string(content) != "1" {
		t.Errorf("cgroup.kill has %q, want 1", content)
	}
}

func TestCgroupRemove(t *testing.T) {
	fs := cgroupFS{root: t.TempDir()}
	for _, dir := range []string{"pids/berth/a/child", "memory/berth/a", "memory/berth/b"} {
		if err := os.MkdirAll(filepath.Join(fs.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // idempotent
		if err := fs.remove("/berth/a"); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if dirs := fs.dirs("/berth/a"); len(dirs) > 0 {
		t.Errorf("left: %v", dirs)
	}
	if len(fs.dirs("/berth/b")) != 1 {
		t.Error("another cgroup went too")
	}
}
