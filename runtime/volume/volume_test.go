package volume_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/runtime/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a directory of volumes and who looks at it from outside.
type fixture struct {
	*volume.Volumes
	t   testing.TB
	dir string
}

func open(t *testing.T) *fixture {
	f := openBench(t)
	t.Cleanup(func() { // whatever the test came to
		for _, m := range f.mounted() {
			if err := unix.Unmount(m.Mountpoint, 0); err != nil {
				t.Errorf("unmount %s: %v", m.Mountpoint, err)
			}
		}
		runtimetest.Eventually(t, "loop devices are free", func() bool { return len(f.loops()) == 0 })
	})
	return f
}

func openBench(t testing.TB) *fixture {
	f := &fixture{t: t, dir: t.TempDir()}
	f.Volumes = f.reopen(volume.Config{})
	return f
}

func (f *fixture) reopen(cfg volume.Config) *volume.Volumes {
	f.t.Helper()
	cfg.Dir = f.dir
	volumes, err := volume.New(cfg)
	if err != nil {
		f.t.Fatalf("New: %v", err)
	}
	f.t.Cleanup(func() { volumes.Close() })
	return volumes
}

// mounted are the mounts below the directory, the last one first.
func (f *fixture) mounted() []*mountinfo.Info {
	f.t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(f.dir))
	if err != nil {
		f.t.Fatal(err)
	}
	slices.Reverse(mounts)
	return mounts
}

// loops are the files below the directory that are behind loop devices.
func (f *fixture) loops() []string {
	f.t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		f.t.Fatal(err)
	}
	var behind []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(raw), f.dir) {
			behind = append(behind, strings.TrimSpace(string(raw)))
		}
	}
	return behind
}

// left is all that the volumes leave on the host.
func (f *fixture) left() []string {
	f.t.Helper()
	left, err := filepath.Glob(filepath.Join(f.dir, "*", "*"))
	if err != nil {
		f.t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(f.dir, "*", ".*"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range f.mounted() {
		left = append(left, "mount "+m.Mountpoint)
	}
	return slices.Concat(left, hidden, f.loops())
}

func (f *fixture) image(id string) string { return filepath.Join(f.dir, "images", id+".img") }

func (f *fixture) mustMount(id string, mib int64) string {
	f.t.Helper()
	path, err := f.Mount(f.t.Context(), runtime.VolumeSpec{ID: id, SizeMiB: mib, Owner: runtime.User{UID: 1000, GID: 1000}})
	if err != nil {
		f.t.Fatalf("Mount: %v", err)
	}
	return path
}

func (f *fixture) mustUnmount(id string) {
	f.t.Helper()
	if err := runtimetest.WhileInUse(func() error { return f.Unmount(f.t.Context(), id) }); err != nil {
		f.t.Fatalf("Unmount: %v", err)
	}
}

func (f *fixture) mustRemove(id string) {
	f.t.Helper()
	if err := runtimetest.WhileInUse(func() error { return f.Remove(f.t.Context(), id) }); err != nil {
		f.t.Fatalf("Remove: %v", err)
	}
}

func (f *fixture) mustList() []runtime.Volume {
	f.t.Helper()
	list, err := f.List(f.t.Context())
	if err != nil {
		f.t.Fatalf("List: %v", err)
	}
	return list
}

// tryMount mounts a volume of 16 MiB that may fail to.
func (f *fixture) tryMount(id string) error {
	f.t.Helper()
	_, err := f.Mount(f.t.Context(), runtime.VolumeSpec{ID: id, SizeMiB: 16})
	return err
}

func TestSuite(t *testing.T) {
	f := open(t)
	runtimetest.VolumesSuite(t, runtimetest.VolumesHost{
		Volumes: f.Volumes,
		Reopen:  func(*testing.T) runtime.Volumes { return f.reopen(volume.Config{}) },
		Reboot: func(t *testing.T) {
			for _, m := range f.mounted() {
				if err := unix.Unmount(m.Mountpoint, 0); err != nil {
					t.Fatal(err)
				}
			}
		},
		Hold: func(t *testing.T, volume runtime.Volume) func() {
			file, err := os.Create(filepath.Join(volume.Path, "held"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { file.Close() }
		},
		Leftovers: func(t *testing.T) []string {
			runtimetest.Eventually(t, "free loop devices are released", func() bool {
				return len(f.loops()) == len(f.mounted())
			})
			return f.left()
		},
	})
}
