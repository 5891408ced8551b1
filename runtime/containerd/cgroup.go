package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// cgroupFS is the host's cgroup tree: one unified hierarchy (v2), or a folder
// per controller (v1, hybrid). A container's cgroup is looked at as files: that
// works while containerd is down, and for processes it doesn't know of.
type cgroupFS struct {
	root    string
	unified bool
}

func hostCgroups() cgroupFS {
	return cgroupFS{root: "/sys/fs/cgroup", unified: cgroups.Mode() == cgroups.Unified}
}

// dirs are the directories that make up the cgroup, those that exist.
func (c cgroupFS) dirs(path string) []string {
	if c.unified {
		dir := filepath.Join(c.root, path)
		if _, err := os.Stat(dir); err != nil {
			return nil
		}
		return []string{dir}
	}
	// Controllers mounted together appear under several names; that is harmless.
	dirs, _ := filepath.Glob(filepath.Join(c.root, "*", path))
	return dirs
}

// processes lists the live processes of the cgroup and all below it.
func (c cgroupFS) processes(path string) []int {
	var pids []int
	for _, dir := range c.dirs(path) {
		_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				pids = append(pids, readProcs(filepath.Join(name, "cgroup.procs"))...)
			}
			return nil // a cgroup that has gone meanwhile has no processes
		})
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

func readProcs(file string) []int {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var pids []int
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 0 stands for a process of a pid namespace that isn't ours to see.
		if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill sends SIGKILL to all processes until none is left or ctx ends. Once PID 1
// of the container's pid namespace is dead nothing in it can fork, so this ends
// unless a process is stuck in the kernel.
func (c cgroupFS) kill(ctx context.Context, path string) error {
	if err := notRoot(path); err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		pids := c.processes(path)
		if len(pids) == 0 {
			return nil
		}
		if !c.killAtOnce(path) {
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup %s still has processes after SIGKILL, the first of %d is %d: %w", path, len(pids), pids[0], context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// notRoot is the last guard before the processes of the whole host are killed for
// those of a container.
func notRoot(path string) error {
	if filepath.Join("/", path) == "/" {
		return fmt.Errorf("cgroup %q is the whole host, not a container's", path)
	}
	return nil
}

// killAtOnce uses the kernel's own way (v2, Linux 5.14), where there is one.
func (c cgroupFS) killAtOnce(path string) bool {
	return c.unified && os.WriteFile(filepath.Join(c.root, path, "cgroup.kill"), []byte("1"), 0) == nil
}

// oomKills is how many processes of the cgroup the kernel has killed for want of
// memory, PID 1 or not. 0 when the cgroup is gone.
func (c cgroupFS) oomKills(path string) uint64 {
	file := filepath.Join(c.root, "memory", path, "memory.oom_control")
	if c.unified {
		file = filepath.Join(c.root, path, "memory.events")
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			count, _ := strconv.ParseUint(text, 10, 64)
			return count
		}
	}
	return 0
}

// remove removes the cgroup, its children first. It fails while a process lives
// in it.
func (c cgroupFS) remove(path string) error {
	if err := notRoot(path); err != nil {
		return err
	}
	var failures []error
	for _, dir := range c.dirs(path) {
		var tree []string
		_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				tree = append(tree, name)
			}
			return nil
		})
		for _, name := range slices.Backward(tree) {
			if err := unix.Rmdir(name); err != nil && !errors.Is(err, unix.ENOENT) {
				failures = append(failures, fmt.Errorf("remove cgroup %s: %w", name, err))
			}
		}
	}
	return errors.Join(failures...)
}

// removeEmpty removes a cgroup that holds nothing; one that does stays.
func (c cgroupFS) removeEmpty(path string) {
	for _, dir := range c.dirs(path) {
		_ = unix.Rmdir(dir)
	}
}

// limitsSwap: some v1 kernels don't account swap, and refuse its limit.
func (c cgroupFS) limitsSwap() bool {
	if c.unified {
		return true
	}
	_, err := os.Stat(filepath.Join(c.root, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}
