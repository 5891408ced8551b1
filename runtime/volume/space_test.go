package volume_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/runtime/volume"
)

func TestNoSpace(t *testing.T) {
	spec := runtime.VolumeSpec{ID: "vol", SizeMiB: 16}
	t.Run("larger than the disk", func(t *testing.T) {
		f := open(t)
		for _, size := range []int64{1 << 32, math.MaxInt64} {
			huge := spec
			huge.SizeMiB = size
			if _, err := f.Mount(t.Context(), huge); !errors.Is(err, runtime.ErrNoSpace) {
				t.Errorf("Mount of %d MiB: %v, want ErrNoSpace", size, err)
			}
		}
		if left := f.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		f.mustMount("vol", 16)
		spec.SizeMiB = 1 << 40
		if _, err := f.Mount(t.Context(), spec); !errors.Is(err, runtime.ErrNoSpace) {
			t.Errorf("growth to %d MiB: %v, want ErrNoSpace", spec.SizeMiB, err)
		}
		if list := f.mustList(); list[0].SizeMiB != 16 || !list[0].Mounted {
			t.Errorf("a refused growth changes the volume: %+v", list[0])
		}
		spec.SizeMiB = 16
	})
	t.Run("below the reserve", func(t *testing.T) {
		f := open(t)
		scarce := f.reopen(volume.Config{ReserveMiB: 1 << 40})
		if _, err := scarce.Mount(t.Context(), spec); !errors.Is(err, runtime.ErrNoSpace) {
			t.Errorf("Mount: %v, want ErrNoSpace", err)
		}
		if left := f.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		f.mustMount("vol", 16) // one that exists can be mounted
		f.mustUnmount("vol")
		if _, err := scarce.Mount(t.Context(), spec); err != nil {
			t.Errorf("Mount of an old volume: %v", err)
		}
	})
	t.Run("mkfs finds the disk full", func(t *testing.T) {
		disk := open(t) // a small one
		f := &fixture{t: t, dir: filepath.Join(disk.mustMount("disk", 64), "volumes")}
		volumes := f.reopen(volume.Config{ReserveMiB: -1})
		if _, err := fill(t, filepath.Join(disk.dir, "mounts/disk/large")); err == nil {
			t.Fatal("the disk isn't full")
		}
		if _, err := volumes.Mount(t.Context(), spec); !errors.Is(err, runtime.ErrNoSpace) {
			t.Errorf("Mount: %v, want ErrNoSpace", err)
		}
		if left := f.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if err := os.Remove(filepath.Join(disk.dir, "mounts/disk/large")); err != nil {
			t.Fatal(err)
		}
		if _, err := volumes.Mount(t.Context(), spec); err != nil {
			t.Errorf("Mount with room: %v", err)
		}
		if err := runtimetest.WhileInUse(func() error { return volumes.Remove(t.Context(), spec.ID) }); err != nil {
			t.Error(err)
		}
		runtimetest.Eventually(t, "its loop device is free", func() bool { return len(f.loops()) == 0 })
		volumes.Close()
		disk.mustRemove("disk")
	})
}

func TestWithoutTools(t *testing.T) {
	f := open(t)
	f.mustMount("old", 16)
	f.mustUnmount("old")
	volume.WithoutTools(t)
	err := f.tryMount("vol")
	if err == nil || errors.Is(err, runtime.ErrCorrupt) {
		t.Errorf("Mount without mkfs.ext4: %v", err)
	} else if want := "volume vol: create: mkfs.ext4 isn't on this host: install the package e2fsprogs"; err.Error() != want {
		t.Errorf("Mount without mkfs.ext4: %v, want %s", err, want)
	}
	f.mustMount("old", 16)
	_, err = f.Mount(t.Context(), runtime.VolumeSpec{ID: "old", SizeMiB: 32})
	if err == nil || f.mustList()[0].SizeMiB != 16 {
		t.Errorf("growth without resize2fs: %v, %+v", err, f.mustList())
	}
}
