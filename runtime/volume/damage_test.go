package volume_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/volume"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("%s holds %.20q (%v), want %q", path, got, err, text)
	}
}

// A process that was killed leaves one of these.
func TestCrashPoints(t *testing.T) {
	unfinished := func(f *fixture) string {
		work := filepath.Join(f.dir, "images", ".new-vol")
		if err := os.MkdirAll(filepath.Join(work, "root"), 0o755); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, "image"), make([]byte, 4096), 0o600); err != nil {
			f.t.Fatal(err)
		}
		return work
	}
	t.Run("before the rename, then New", func(t *testing.T) {
		f := open(t)
		work := unfinished(f)
		again := f.reopen(volume.Config{})
		if list, err := again.List(t.Context()); len(list) > 0 || err != nil {
			t.Errorf("List gives %+v, %v", list, err)
		}
		if _, err := os.Lstat(work); err == nil {
			t.Error("New leaves an unfinished volume")
		}
	})
	t.Run("before the rename, then Mount", func(t *testing.T) {
		f := open(t)
		work := unfinished(f)
		f.mustMount("vol", 16)
		if _, err := os.Lstat(work); err == nil {
			t.Error("Mount leaves an unfinished volume")
		}
	})
	t.Run("before the rename, then Remove", func(t *testing.T) {
		f := open(t)
		unfinished(f)
		f.mustRemove("vol")
		if left := f.left(); len(left) > 0 {
			t.Errorf("Remove leaves %v", left)
		}
	})
	t.Run("before the mount", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		write(t, filepath.Join(path, "file"), "kept")
		f.mustUnmount("vol")
		f.reopen(volume.Config{})
		f.mustMount("vol", 16)
		wantFile(t, filepath.Join(path, "file"), "kept")
	})
	t.Run("after the image is removed", func(t *testing.T) {
		f := open(t)
		f.mustMount("vol", 16)
		f.mustUnmount("vol")
		if err := os.Remove(f.image("vol")); err != nil {
			t.Fatal(err)
		}
		f.reopen(volume.Config{})
		if left := f.left(); len(left) > 0 {
			t.Errorf("New leaves %v", left)
		}
	})
	t.Run("after the image has grown", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		f.mustUnmount("vol")
		if err := os.Truncate(f.image("vol"), 64<<20); err != nil {
			t.Fatal(err)
		}
		f.mustMount("vol", 16)
		if written, err := fill(t, filepath.Join(path, "large")); written < 40 || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("the image has 64 MiB, the volume took %d MiB (%v)", written, err)
		}
	})
}

// copyWhileMounted is what the disk has when the power goes.
func copyWhileMounted(t *testing.T, f *fixture, id string) {
	t.Helper()
	cut := filepath.Join(t.TempDir(), "cut")
	if out, err := exec.Command("cp", "--sparse=always", f.image(id), cut).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	f.mustUnmount(id)
	if out, err := exec.Command("cp", "--sparse=always", cut, f.image(id)).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

func TestPowerCut(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 32)
	write(t, filepath.Join(path, "file"), "synced")
	copyWhileMounted(t, f, "vol")
	if out, _ := exec.Command("/usr/sbin/dumpe2fs", "-h", f.image("vol")).Output(); !strings.Contains(string(out), "needs_recovery") {
		t.Fatal("the test made no unclean file system")
	}
	f.mustMount("vol", 32)
	wantFile(t, filepath.Join(path, "file"), "synced")
}

func TestKernelErrorIsRepaired(t *testing.T) {
	spoil := func(t *testing.T, f *fixture) {
		trigger := filepath.Join("/sys/fs/ext4", filepath.Base(f.mounted()[0].Source), "trigger_fs_error")
		if err := os.WriteFile(trigger, []byte("made by a test"), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("while mounted", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		write(t, filepath.Join(path, "file"), "kept")
		spoil(t, f)
		if err := os.WriteFile(filepath.Join(path, "other"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write after an error: %v, want EROFS", err)
		}
		f.mustMount("vol", 16)
		wantFile(t, filepath.Join(path, "file"), "kept")
		write(t, filepath.Join(path, "other"), "written")
	})
	t.Run("while unmounted", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		write(t, filepath.Join(path, "file"), "kept")
		spoil(t, f)
		f.mustUnmount("vol")
		f.mustMount("vol", 16)
		wantFile(t, filepath.Join(path, "file"), "kept")
		f.mustUnmount("vol")
		if out, err := exec.Command("/usr/sbin/dumpe2fs", "-h", f.image("vol")).Output(); err != nil || strings.Contains(string(out), "with errors") {
			t.Errorf("the volume still counts as damaged (%v)", err)
		}
	})
	t.Run("while in use", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		held, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		spoil(t, f)
		if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrInUse) {
			t.Errorf("Mount: %v, want ErrInUse", err)
		}
	})
}

// overwrite puts other bytes into an image.
func overwrite(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	t.Run("that e2fsck repairs", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		write(t, filepath.Join(path, "file"), "kept")
		f.mustUnmount("vol")
		// A wrong checksum of the first group's descriptor: mount refuses it.
		overwrite(t, f.image("vol"), 4096+0x1e, []byte{0xaa, 0x55})
		f.mustMount("vol", 16)
		wantFile(t, filepath.Join(path, "file"), "kept")
	})
	for name, spoil := range map[string]func(image string) error{
		"no superblock": func(image string) error {
			overwrite(t, image, 0, make([]byte, 8192))
			return nil
		},
		"truncated": func(image string) error { return os.Truncate(image, 1<<20) },
		"empty":     func(image string) error { return os.Truncate(image, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			f.mustMount("vol", 16)
			f.mustUnmount("vol")
			if err := spoil(f.image("vol")); err != nil {
				t.Fatal(err)
			}
			err := f.tryMount("vol")
			if !errors.Is(err, runtime.ErrCorrupt) || !strings.Contains(err.Error(), "e2fsck -f") {
				t.Errorf("Mount: %v, want ErrCorrupt and what to do", err)
			}
			if _, err := os.Stat(f.image("vol")); err != nil {
				t.Errorf("a damaged image is gone: %v", err)
			}
			if mounted := f.mounted(); len(mounted) > 0 {
				t.Errorf("still mounted: %v", mounted[0])
			}
		})
	}
}

// What is there but isn't the volume is neither used nor deleted.
func TestNotTheVolume(t *testing.T) {
	t.Run("image deleted underneath", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		write(t, filepath.Join(path, "file"), "kept")
		if err := os.Remove(f.image("vol")); err != nil {
			t.Fatal(err)
		}
		if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
			t.Errorf("Mount: %v, want ErrCorrupt", err)
		}
		f.reopen(volume.Config{})
		wantFile(t, filepath.Join(path, "file"), "kept")
		f.mustRemove("vol")
		if left := f.left(); len(left) > 0 {
			t.Errorf("Remove leaves %v", left)
		}
	})
	t.Run("image replaced underneath", func(t *testing.T) {
		f := open(t)
		f.mustMount("vol", 16)
		f.mustMount("other", 16)
		f.mustUnmount("other")
		if err := os.Rename(f.image("other"), f.image("vol")); err != nil {
			t.Fatal(err)
		}
		if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
			t.Errorf("Mount: %v, want ErrCorrupt", err)
		}
	})
	t.Run("another file system on its path", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		f.mustUnmount("vol")
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
			t.Errorf("Mount: %v, want ErrCorrupt", err)
		}
	})
	t.Run("files in the bare directory", func(t *testing.T) {
		f := open(t)
		path := f.mustMount("vol", 16)
		f.mustUnmount("vol")
		file := filepath.Join(path, "file")
		write(t, file, "not on the volume")
		if err := f.tryMount("vol"); !errors.Is(err, runtime.ErrCorrupt) {
			t.Errorf("Mount: %v, want ErrCorrupt", err)
		}
		f.reopen(volume.Config{})
		wantFile(t, file, "not on the volume")
	})
}
