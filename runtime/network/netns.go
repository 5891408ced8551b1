package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

const ownNetNS = "/proc/thread-self/ns/net"

// onOwnThread runs do on a thread that nothing else uses meanwhile and brings it
// back to the namespace of this process. A thread that can't be brought back
// ends with its goroutine.
func onOwnThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		restored, err := doAndReturn(do)
		if restored {
			goruntime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func doAndReturn(do func() error) (restored bool, err error) {
	home, err := os.Open(ownNetNS)
	if err != nil {
		return true, err
	}
	defer home.Close()
	err = do()
	return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil, err
}

// inNetNS runs do on a thread in the namespace at path. Sockets that do opens
// stay in it.
func inNetNS(path string, do func() error) error {
	target, err := os.Open(path) // #nosec G304 -- below RunDir, its name is checked
	if err != nil {
		return err
	}
	defer target.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return do()
	})
}

// makeNetNS makes a namespace that stays as long as its name: a mount on a file.
// It has no IPv6, and prepare runs in it.
func makeNetNS(path string, prepare func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- as /run/netns
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444) // #nosec G304 -- below RunDir, its name is checked
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace (needs root): %w", err)
		}
		for _, scope := range []string{"all", "default"} {
			if _, err := setSysctl("net/ipv6/conf/"+scope+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := prepare(); err != nil {
			return err
		}
		if err := unix.Mount(ownNetNS, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount a network namespace on %s: %w", path, err)
		}
		return nil
	})
}

// removeNetNS is no error when there is none, and takes all mounts on the name
// away. Processes in the namespace keep it, without its name.
func removeNetNS(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not mounted
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isNetNS is false for a name without its mount, as a crash leaves it.
func isNetNS(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Type == unix.NSFS_MAGIC
}

// setSysctl writes a value below /proc/sys that isn't so yet.
func setSysctl(name, value string) (changed bool, err error) {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path) // #nosec G304 -- names are ours
	if err != nil {
		return false, err
	}
	if string(old) == value+"\n" {
		return false, nil
	}
	return true, os.WriteFile(path, []byte(value), 0o644) // #nosec G306 -- a kernel setting
}
