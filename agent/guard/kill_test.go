package guard

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoRunsCgroup: what isn't a run's cgroup is neither taken nor killed.
func TestNoRunsCgroup(t *testing.T) {
	h := thisHost()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]string{"a directory": t.TempDir(), "the file system": "/sys/fs/cgroup", "a file": "/etc/passwd"}
	for name, root := range hierarchies(t) {
		refused["the root of "+name] = root
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range cgroupDirs(string(own), "", string(mounts)) {
		refused["the guard's own "+dir] = dir
	}
	for name, dir := range refused {
		if err := h.check(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: check of %s: %v", name, dir, err)
		}
		if left, err := h.kill([]string{dir}); !errors.Is(err, ErrInvalid) || left != remainsSome {
			t.Errorf("%s: kill of %s: %v, %v", name, dir, left, err)
		}
	}
	const gone = "/sys/fs/cgroup/gone/by/now"
	if left, err := h.kill([]string{gone}); h.check(gone) != nil || left != remainsGone || err != nil {
		t.Errorf("one that is gone: %v, %v", left, err)
	}
}

// TestFrozenRun: somebody has frozen it, with a cgroup below.
func TestFrozenRun(t *testing.T) {
	here := hierarchies(t)
	for _, c := range []struct{ hierarchy, file, text string }{
		{"freezer", freezerState, "FROZEN"}, {"v2", "cgroup.freeze", "1"},
	} {
		if here[c.hierarchy] == "" {
			continue // this host has another version
		}
		t.Run(c.hierarchy, func(t *testing.T) {
			w := start(t, strings.ReplaceAll(nested, "$DIRS", dirsFor(t, []string{c.hierarchy})), c.hierarchy)
			for _, dir := range []string{w.dirs[0] + "/in/ner", w.dirs[0]} {
				if err := write(dir, c.file, c.text); err != nil {
					t.Fatal(err)
				}
			}
			go func() { _ = w.cmd.Wait() }()
			h := thisHost()
			eventually(t, "it is empty", func() bool {
				left, err := h.kill(w.dirs)
				if err != nil {
					t.Fatal(err)
				}
				return left != remainsSome
			})
		})
	}
}

// TestCgroupsOf a process that is started as a runtime does.
func TestCgroupsOf(t *testing.T) {
	w := start(t, idle, "freezer", "pids", "v2")
	go func() { _ = w.cmd.Wait() }()
	dirs, err := CgroupsOf(w.cmd.Process.Pid)
	if err != nil || len(dirs) != len(w.dirs) {
		t.Errorf("%v, %v; want %v", dirs, err, w.dirs)
	}
	for _, dir := range dirs {
		if !strings.Contains(dir, "/berth-guard-test-") {
			t.Errorf("%s is in no cgroup of the test", dir)
		}
	}
	// Its children are where their parent is: none is the first process of a run.
	if dirs, err := CgroupsOf(os.Getpid()); err == nil {
		t.Errorf("of a process in its parent's cgroups: %v", dirs)
	}
	if _, err := CgroupsOf(1 << 22); err == nil {
		t.Error("of no process")
	}
	if _, err := ProcessStart(1 << 22); err == nil {
		t.Error("start of no process")
	}
}

// TestNotice: what a container may have put there is neither followed nor waited
// for.
func TestNotice(t *testing.T) {
	h := thisHost()
	dir := t.TempDir()
	precious, link, pipe, file := filepath.Join(dir, "precious"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	for _, err := range []error{
		os.WriteFile(precious, []byte("x"), 0o600), os.Symlink(precious, link), unix.Mkfifo(pipe, 0o600), os.WriteFile(file, []byte("an older text"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{link, pipe, filepath.Join(dir, "none", "file")} {
		if err := h.notice(bad, "ends"); err == nil {
			t.Errorf("%s was written", bad)
		}
	}
	if text, _ := os.ReadFile(precious); string(text) != "x" {
		t.Errorf("the file behind the link: %q", text)
	}
	if err := h.notice(file, "ends"); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "ends" {
		t.Errorf("the notice: %q", text)
	}
}
