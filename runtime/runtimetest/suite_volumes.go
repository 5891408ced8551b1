package runtimetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// VolumesHost is an implementation of runtime.Volumes under test, without any
// volume, and what the suite needs to know of it. The suite needs root.
type VolumesHost struct {
	Volumes runtime.Volumes
	// Reopen gives another Volumes on the same volumes, as a daemon that was
	// restarted has.
	Reopen func(t *testing.T) runtime.Volumes
	// Reboot unmounts every volume behind the implementation's back.
	Reboot func(t *testing.T)
	// Hold makes a mounted volume be in use until release is called, which may
	// happen twice.
	Hold func(t *testing.T, volume runtime.Volume) (release func())
	// Leftovers lists all that volumes leave on the host: images, mounts, loop
	// devices… It runs in clean-up too, when t's context has ended.
	Leftovers func(t *testing.T) []string
}

// VolumesSuite runs the conformance tests of the contract of volumes. Each
// leaves the host as it found it.
func VolumesSuite(t *testing.T, host VolumesHost) {
	s := &volumesSuite{VolumesHost: host}
	for _, test := range []struct {
		name string
		run  func(*volumesSuite, *testing.T)
	}{
		{"mount", (*volumesSuite).mount},
		{"mount twice", (*volumesSuite).mountTwice},
		{"files stay", (*volumesSuite).filesStay},
		{"owner stays", (*volumesSuite).ownerStays},
		{"grow", (*volumesSuite).grow},
		{"bad specs", (*volumesSuite).badSpecs},
		{"unmount and remove what isn't there", (*volumesSuite).absent},
		{"in use", (*volumesSuite).inUse},
		{"remove", (*volumesSuite).remove},
		{"list", (*volumesSuite).list},
		{"reopen while mounted", (*volumesSuite).reopen},
		{"reboot", (*volumesSuite).reboot},
		{"one from many sides", (*volumesSuite).oneAtOnce},
		{"many at once", (*volumesSuite).manyAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t, host.Leftovers)
			test.run(s, t)
		})
	}
}

type volumesSuite struct {
	VolumesHost
}

func spec(id string) runtime.VolumeSpec {
	return runtime.VolumeSpec{ID: id, SizeMiB: 16, Owner: runtime.User{UID: 1234, GID: 4321}}
}

func (s *volumesSuite) mount(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	if !filepath.IsAbs(path) {
		t.Errorf("the path %s isn't absolute", path)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Uid != 1234 || stat.Gid != 4321 || stat.Mode&0o777 != 0o755 {
		t.Errorf("the root directory is of %d:%d with mode %o, want 1234:4321 and 755", stat.Uid, stat.Gid, stat.Mode&0o777)
	}
	s.want(t, runtime.Volume{ID: "vol-1", SizeMiB: 16, Mounted: true, Path: path})
}

func (s *volumesSuite) mountTwice(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "kept")
	if again := s.mustMount(t, spec("vol-1")); again != path {
		t.Errorf("mounted again at %s, was %s", again, path)
	}
	wantFile(t, filepath.Join(path, "file"), "kept")
}

func (s *volumesSuite) filesStay(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "kept")
	s.mustUnmount(t, "vol-1")
	if _, err := os.Stat(filepath.Join(path, "file")); err == nil {
		t.Error("a file of an unmounted volume is still there")
	}
	s.want(t, runtime.Volume{ID: "vol-1", SizeMiB: 16, Path: path})
	s.mustMount(t, spec("vol-1"))
	wantFile(t, filepath.Join(path, "file"), "kept")
}

func (s *volumesSuite) ownerStays(t *testing.T) {
	s.mustMount(t, spec("vol-1"))
	s.mustUnmount(t, "vol-1")
	other := spec("vol-1")
	other.Owner = runtime.User{UID: 1, GID: 1}
	path := s.mustMount(t, other)
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil || stat.Uid != 1234 || stat.Gid != 4321 {
		t.Errorf("the root directory is of %d:%d (%v), want its first owner 1234:4321", stat.Uid, stat.Gid, err)
	}
}

func (s *volumesSuite) grow(t *testing.T) {
	size := func(mib int64) runtime.VolumeSpec {
		larger := spec("vol-1")
		larger.SizeMiB = mib
		return larger
	}
	path := s.mustMount(t, size(16))
	write(t, filepath.Join(path, "file"), "kept")
	for _, step := range []struct {
		ask, want int64
		unmount   bool
	}{
		{32, 32, false}, {16, 32, false}, {64, 64, true}, {8, 64, true},
	} {
		if step.unmount {
			s.mustUnmount(t, "vol-1")
		}
		s.mustMount(t, size(step.ask))
		s.want(t, runtime.Volume{ID: "vol-1", SizeMiB: step.want, Mounted: true, Path: path})
		wantFile(t, filepath.Join(path, "file"), "kept")
	}
}

func (s *volumesSuite) badSpecs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "a.img", "ä", strings.Repeat("x", 65), "a\n"} {
		_, err := s.Volumes.Mount(t.Context(), spec(id))
		wantError(t, "Mount of "+id, err, runtime.ErrInvalid)
		wantError(t, "Unmount of "+id, s.Volumes.Unmount(t.Context(), id), runtime.ErrInvalid)
		wantError(t, "Remove of "+id, s.Volumes.Remove(t.Context(), id), runtime.ErrInvalid)
	}
	for _, size := range []int64{-1, 0, 7} {
		small := spec("vol-1")
		small.SizeMiB = size
		_, err := s.Volumes.Mount(t.Context(), small)
		wantError(t, "Mount of a small one", err, runtime.ErrInvalid)
	}
	s.want(t)
}

func (s *volumesSuite) absent(t *testing.T) {
	s.mustUnmount(t, "vol-1")
	s.mustRemove(t, "vol-1")
	s.mustMount(t, spec("vol-1"))
	s.mustUnmount(t, "vol-1")
	s.mustUnmount(t, "vol-1")
	s.mustRemove(t, "vol-1")
	s.mustRemove(t, "vol-1")
	s.want(t)
}

func (s *volumesSuite) inUse(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "kept")
	volume := runtime.Volume{ID: "vol-1", SizeMiB: 16, Mounted: true, Path: path}
	release := s.Hold(t, volume)
	defer release()
	wantError(t, "Unmount", s.Volumes.Unmount(t.Context(), "vol-1"), runtime.ErrInUse)
	wantError(t, "Remove", s.Volumes.Remove(t.Context(), "vol-1"), runtime.ErrInUse)
	s.want(t, volume)
	wantFile(t, filepath.Join(path, "file"), "kept")
	release()
	s.mustUnmount(t, "vol-1")
}

func (s *volumesSuite) remove(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "gone")
	s.mustRemove(t, "vol-1")
	s.want(t)
	if _, err := os.Stat(path); err == nil {
		t.Error("the directory of a removed volume is still there")
	}
	s.mustMount(t, spec("vol-1"))
	if _, err := os.Stat(filepath.Join(path, "file")); err == nil {
		t.Error("a new volume has a file of the removed one with its id")
	}
	s.mustUnmount(t, "vol-1")
	s.mustRemove(t, "vol-1")
	s.want(t)
}

func (s *volumesSuite) list(t *testing.T) {
	b, a := s.mustMount(t, spec("vol-b")), s.mustMount(t, spec("vol-a"))
	write(t, filepath.Join(b, "file"), strings.Repeat("x", 3<<20))
	s.mustUnmount(t, "vol-a")
	s.want(t,
		runtime.Volume{ID: "vol-a", SizeMiB: 16, Path: a},
		runtime.Volume{ID: "vol-b", SizeMiB: 16, Mounted: true, Path: b},
	)
	list, err := s.Volumes.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if list[0].UsedMiB != 0 {
		t.Errorf("an unmounted volume has %d MiB in use", list[0].UsedMiB)
	}
	if used := list[1].UsedMiB; used < 3 || used > 5 {
		t.Errorf("a volume with a file of 3 MiB has %d MiB in use", used)
	}
	if disk := list[1].DiskMiB; disk < 3 || disk > 15 {
		t.Errorf("a volume with a file of 3 MiB takes %d MiB of the disk", disk)
	}
}

func (s *volumesSuite) reopen(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "kept")
	again := &volumesSuite{VolumesHost: s.VolumesHost}
	again.Volumes = s.Reopen(t)
	again.want(t, runtime.Volume{ID: "vol-1", SizeMiB: 16, Mounted: true, Path: path})
	again.mustMount(t, spec("vol-1"))
	wantFile(t, filepath.Join(path, "file"), "kept")
	again.mustRemove(t, "vol-1")
}

func (s *volumesSuite) reboot(t *testing.T) {
	path := s.mustMount(t, spec("vol-1"))
	write(t, filepath.Join(path, "file"), "kept")
	s.Reboot(t)
	s.want(t, runtime.Volume{ID: "vol-1", SizeMiB: 16, Path: path})
	s.mustMount(t, spec("vol-1"))
	wantFile(t, filepath.Join(path, "file"), "kept")
}

func (s *volumesSuite) oneAtOnce(t *testing.T) {
	s.mustMount(t, spec("vol-1"))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := s.Volumes.Mount(t.Context(), spec("vol-1")); err != nil {
				t.Errorf("Mount: %v", err)
			}
		})
		all.Go(func() {
			if err := WhileInUse(func() error { return s.Volumes.Unmount(t.Context(), "vol-1") }); err != nil {
				t.Errorf("Unmount: %v", err)
			}
		})
		all.Go(func() {
			if _, err := s.Volumes.List(t.Context()); err != nil {
				t.Errorf("List: %v", err)
			}
		})
	}
	all.Wait()
}

func (s *volumesSuite) manyAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for _, id := range []string{"vol-1", "vol-2", "vol-3", "vol-4"} {
		all.Go(func() {
			for range 2 {
				path, err := s.Volumes.Mount(t.Context(), spec(id))
				if err != nil {
					t.Errorf("Mount of %s: %v", id, err)
					return
				}
				if err := os.WriteFile(filepath.Join(path, id), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := WhileInUse(func() error { return s.Volumes.Remove(t.Context(), id) }); err != nil {
					t.Errorf("Remove of %s: %v", id, err)
				}
			}
		})
	}
	all.Wait()
	s.want(t)
}

func (s *volumesSuite) mustMount(t *testing.T, spec runtime.VolumeSpec) string {
	t.Helper()
	path, err := s.Volumes.Mount(t.Context(), spec)
	if err != nil {
		t.Fatalf("Mount: %v", err)
	}
	t.Cleanup(func() { s.mustRemove(t, spec.ID) })
	return path
}

func (s *volumesSuite) mustUnmount(t *testing.T, id string) {
	t.Helper()
	if err := WhileInUse(func() error { return s.Volumes.Unmount(t.Context(), id) }); err != nil {
		t.Fatalf("Unmount: %v", err)
	}
}

// mustRemove works in clean-up too, when t's context has ended.
func (s *volumesSuite) mustRemove(t *testing.T, id string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := WhileInUse(func() error { return s.Volumes.Remove(ctx, id) }); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

// WhileInUse repeats a call that gives ErrInUse. A container that another test
// of this host starts has a copy of all mounts for a while, and so has whatever
// makes a mount namespace of its own.
func WhileInUse(call func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := call()
		if !errors.Is(err, runtime.ErrInUse) || time.Now().After(deadline) {
			return err
		}
	}
}

// want compares what List gives, but for what the volumes use.
func (s *volumesSuite) want(t *testing.T, want ...runtime.Volume) {
	t.Helper()
	got, err := s.Volumes.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	for i := range got {
		got[i].UsedMiB, got[i].DiskMiB = 0, 0
	}
	if !slices.Equal(got, want) {
		t.Errorf("List gives %+v, want %+v", got, want)
	}
}

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
	if err := file.Sync(); err != nil { // or it takes nothing of the disk yet
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("%s holds %.20q (%v), want %q", path, got, err, text)
	}
}
