package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Stop ends the containerd that Spawn started in the directory; its containers go
// on. No containerd there is no error.
func Stop(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if pid := ownPid(dir); pid > 0 {
		if err := end(ctx, pid, unix.SIGTERM); err != nil {
			return fmt.Errorf("stop containerd in %s: %w", dir, err)
		}
	}
	return nil
}

// runcState is where containerd's shim has runc keep what it knows of containers,
// whichever containerd it works for.
const runcState = "/run/containerd/runc"

// Clear stops the containerd of the directory and all of its containers, for good,
// so that the directory can be removed: their processes, shims, mounts and
// cgroups. It is for demos and tests, and for what a crash has left. The parent of
// cgroups goes too if it is empty; it may have containers of others.
func Clear(ctx context.Context, dir, cgroupParent string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := Stop(ctx, dir); err != nil {
		return err
	}
	bundles, err := filepath.Glob(filepath.Join(dir, "state", "io.containerd.runtime.v2.task", "*", "*"))
	if err != nil {
		return err
	}
	for _, pid := range processesWith("-address", filepath.Join(dir, socketName)) {
		if err := end(ctx, pid, unix.SIGKILL); err != nil {
			return fmt.Errorf("stop the shims of containerd in %s: %w", dir, err)
		}
	}
	for _, bundle := range bundles {
		if err := clearContainer(ctx, bundle); err != nil {
			return err
		}
	}
	hostCgroups().removeEmpty(cgroupParent)
	return unmountBelow(dir)
}

// clearContainer ends the container of a bundle, in the cgroup that runc was told.
func clearContainer(ctx context.Context, bundle string) error {
	namespace, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
	spec, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without, runc had nothing to make
		return err
	}
	if cgroup := specCgroup(spec, id); cgroup != "" {
		if err := hostCgroups().kill(ctx, cgroup); err != nil {
			return err
		}
		if err := hostCgroups().remove(cgroup); err != nil {
			return err
		}
		hostCgroups().removeEmpty(filepath.Dir(cgroup))
	}
	return os.RemoveAll(filepath.Join(runcState, namespace, id))
}

// ownPid is the containerd of the directory, 0 when there is none. It leads a
// session, what it is about to start doesn't.
func ownPid(dir string) int {
	for _, pid := range processesWith("--config", filepath.Join(dir, configName)) {
		if session, err := unix.Getsid(pid); err == nil && session == pid {
			return pid
		}
	}
	return 0
}

// processesWith finds the processes whose command line has the flag with the
// value.
func processesWith(flag, value string) []int {
	wanted := []byte("\x00" + flag + "\x00" + value + "\x00")
	var pids []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		content, err := os.ReadFile(line)
		if err != nil || !bytes.Contains(content, wanted) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// end signals a process and waits until it has gone, or is a zombie that its
// parent hasn't collected.
func end(ctx context.Context, pid int, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for ctx.Err() == nil {
		// Readable means ended. The wait is short so that ctx is looked at.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((100 * time.Millisecond).Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return fmt.Errorf("process %d: %w", pid, context.Cause(ctx))
}

func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	var failures []error
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			failures = append(failures, fmt.Errorf("unmount %s: %w", mount.Mountpoint, err))
		}
	}
	return errors.Join(failures...)
}
