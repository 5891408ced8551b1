package volume_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

// fill writes until nothing more goes in, and gives how much did and the error.
func fill(t *testing.T, path string) (mib int64, err error) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := []byte(strings.Repeat("x", 1<<20))
	for mib < 1024 && len(block) >= 4096 {
		_, err = file.Write(block)
		if syncErr := file.Sync(); err == nil {
			err = syncErr
		}
		if err != nil {
			block = block[:len(block)/2] // up to the last block
		} else if len(block) == 1<<20 {
			mib++
		}
	}
	return mib, err
}

func TestWritesEndAtTheSize(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 32)
	written, err := fill(t, filepath.Join(path, "large"))
	if !errors.Is(err, unix.ENOSPC) || written < 20 || written > 32 {
		t.Errorf("a volume of 32 MiB took %d MiB, then gave %v, want ENOSPC", written, err)
	}
	if list := f.mustList(); list[0].DiskMiB > 32 || list[0].UsedMiB > 32 {
		t.Errorf("a full volume of 32 MiB takes more: %+v", list[0])
	}
	f.mustUnmount("vol")
	f.mustMount("vol", 32)
	f.mustRemove("vol")
}

func TestUnmountGivesBlocksBack(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 32)
	if _, err := fill(t, filepath.Join(path, "large")); err == nil {
		t.Fatal("a volume of 32 MiB took a GiB")
	}
	if err := os.Remove(filepath.Join(path, "large")); err != nil {
		t.Fatal(err)
	}
	full := f.mustList()[0].DiskMiB
	f.mustUnmount("vol")
	if after := f.mustList()[0].DiskMiB; full < 20 || after > 10 {
		t.Errorf("an emptied volume takes %d MiB of the disk, it took %d MiB before it was unmounted", after, full)
	}
}

func TestNewVolumeIsSparse(t *testing.T) {
	f := open(t)
	f.mustMount("vol", 10240)
	if list := f.mustList(); list[0].DiskMiB > 16 || list[0].SizeMiB != 10240 {
		t.Errorf("a new volume takes much of the disk: %+v", list[0])
	}
	tables, err := exec.Command("/usr/sbin/dumpe2fs", f.image("vol")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if groups, zeroed := strings.Count(string(tables), ": (Blocks "), strings.Count(string(tables), "ITABLE_ZEROED"); groups == 0 || zeroed != groups {
		t.Errorf("%d of %d groups count as zeroed: the kernel will write zeros into the rest", zeroed, groups)
	}
}

func TestMountOptions(t *testing.T) {
	f := open(t)
	f.mustMount("vol", 16)
	options := f.mounted()[0].Options
	for _, option := range []string{"rw", "nosuid", "nodev"} {
		if !slices.Contains(strings.Split(options, ","), option) {
			t.Errorf("mounted with %s, want %s in it", options, option)
		}
	}
	if super := f.mounted()[0].VFSOptions; !strings.Contains(super, "errors=remount-ro") {
		// The image's own default says so; then the kernel doesn't list it.
		if out, err := exec.Command("/usr/sbin/dumpe2fs", "-h", f.image("vol")).Output(); err != nil || !strings.Contains(string(out), "Remount read-only") {
			t.Errorf("errors don't make it read-only: %s, %v", super, err)
		}
	}
}

// The user owns the directory and must still not be able to make the volume
// unusable, or to make another look like it.
func TestMarkerStays(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 16)
	marker := filepath.Join(path, ".berth-volume")
	for name, change := range map[string]func() error{
		"remove": func() error { return os.Remove(marker) },
		"rename": func() error { return os.Rename(marker, marker+"2") },
		"write":  func() error { return os.WriteFile(marker, []byte("other\n"), 0o600) },
	} {
		if err := change(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s the marker: %v, want EPERM", name, err)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 {
		t.Errorf("a new volume has %v (%v), want only its marker", entries, err)
	}
}

// mutable takes the protection from a marker, as only root can.
func mutable(t *testing.T, marker string) {
	t.Helper()
	file, err := os.Open(marker)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, 0); err != nil {
		t.Fatal(err)
	}
}

func TestMarkerIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(marker string) error{
		"missing": os.Remove,
		"of another": func(marker string) error {
			return os.WriteFile(marker, []byte("other\n"), 0o444)
		},
		"a longer id": func(marker string) error {
			return os.WriteFile(marker, []byte("vol2\n"), 0o444)
		},
		"a user's": func(marker string) error { return os.Chown(marker, 1000, 1000) },
		"a link": func(marker string) error {
			if err := os.Rename(marker, marker+"2"); err != nil {
				return err
			}
			return os.Symlink(marker+"2", marker)
		},
		"a pipe": func(marker string) error {
			if err := os.Remove(marker); err != nil {
				return err
			}
			return unix.Mkfifo(marker, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			marker := filepath.Join(f.mustMount("vol", 16), ".berth-volume")
			mutable(t, marker)
			if err := spoil(marker); err != nil {
				t.Fatal(err)
			}
			if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
				t.Errorf("Mount of a mounted one: %v, want ErrCorrupt", err)
			}
			f.mustUnmount("vol")
			if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
				t.Errorf("Mount: %v, want ErrCorrupt", err)
			}
			if mounted := f.mounted(); len(mounted) > 0 {
				t.Errorf("still mounted: %v", mounted[0])
			}
		})
	}
}

// Mount namespaces keep a file system alive that isn't mounted here any more.
func TestInUseInAnotherNamespace(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 16)
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	container := exec.Command("/bin/sh", "-c", `exec 3>>"$0"; echo ready; read go; echo after >&3; read end`, file)
	container.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	stdin, err := container.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := container.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := container.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); container.Wait() })
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Unmount": func() error { return f.Unmount(t.Context(), "vol") },
		"Remove":  func() error { return f.Remove(t.Context(), "vol") },
	} {
		if err := call(); !errors.Is(err, runtime.ErrInUse) {
			t.Errorf("%s: %v, want ErrInUse", name, err)
		}
		if list := f.mustList(); len(list) != 1 || !list[0].Mounted {
			t.Errorf("after %s: %+v, want it mounted", name, list)
		}
	}
	// A host that lost its own mount finds the file system alive.
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	f.mustMount("vol", 16)
	if loops := f.loops(); len(loops) != 1 {
		t.Errorf("%d loop devices for one image", len(loops))
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "both namespaces see one file system", func() bool {
		raw, err := os.ReadFile(file)
		return err == nil && string(raw) == "beforeafter\n"
	})
	// One that goes away meanwhile, as when a container starts, is waited for.
	removed := make(chan error)
	go func() { removed <- f.Remove(t.Context(), "vol") }()
	runtimetest.Eventually(t, "Remove has unmounted it here", func() bool { return len(f.mounted()) == 0 })
	stdin.Close()
	container.Wait()
	if err := <-removed; err != nil {
		t.Errorf("Remove: %v", err)
	}
	if left := f.mustList(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}
