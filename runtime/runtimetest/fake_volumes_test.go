package runtimetest_test

import (
	"os"
	"path/filepath"
	"testing"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

func TestFakeVolumes(t *testing.T) {
	dir := t.TempDir()
	fake := runtimetest.NewFakeVolumes(dir)
	runtimetest.VolumesSuite(t, runtimetest.VolumesHost{
		Volumes: fake,
		Reopen:  func(*testing.T) runtime.Volumes { return fake },
		Reboot:  func(*testing.T) { fake.Reboot() },
		Hold:    func(_ *testing.T, volume runtime.Volume) func() { return fake.Hold(volume.ID) },
		Leftovers: func(t *testing.T) []string {
			left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			return left
		},
	})
}

func TestFakeVolumesFail(t *testing.T) {
	fake := runtimetest.NewFakeVolumes(t.TempDir())
	spec := runtime.VolumeSpec{ID: "vol", SizeMiB: 8}
	fake.FailNext("Mount", runtime.ErrNoSpace)
	if _, err := fake.Mount(t.Context(), spec); err != runtime.ErrNoSpace {
		t.Errorf("ordered ErrNoSpace, got %v", err)
	}
	if path, err := fake.Mount(t.Context(), spec); err != nil {
		t.Errorf("the second Mount: %v", err)
	} else if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
