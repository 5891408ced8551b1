package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"berth/runtime"
)

// FakeVolumes keeps volumes as plain directories: a mounted one is below
// mounts/, its files are elsewhere while it is unmounted. Nothing bounds what is
// written into one. Like volumes, it outlives the daemon that uses it: a test
// that restarts a daemon hands the same FakeVolumes to the next one. Safe for
// concurrent use.
type FakeVolumes struct {
	dir string

	mu      sync.Mutex
	volumes map[string]*fakeVolume
	orders
}

var _ runtime.Volumes = (*FakeVolumes)(nil)

type fakeVolume struct {
	sizeMiB int64
	mounted bool
	owner   runtime.User
	holders int
	corrupt bool
}

// NewFakeVolumes makes a FakeVolumes without volumes, in a directory of its own
// that may not exist yet.
func NewFakeVolumes(dir string) *FakeVolumes {
	return &FakeVolumes{
		dir:     dir,
		volumes: map[string]*fakeVolume{},
	}
}

// Hold makes a volume be in use, as by an open file, until release is called.
func (f *FakeVolumes) Hold(id string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.mustHave(id)
	v.holders++
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		v.holders--
	})
}

// Corrupt makes Mount of a volume give ErrCorrupt from now on.
func (f *FakeVolumes) Corrupt(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mustHave(id).corrupt = true
}

// Reboot unmounts all volumes, as a host that starts anew has none mounted.
func (f *FakeVolumes) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, v := range f.volumes {
		v.holders = 0
		if err := f.detach(id, v); err != nil {
			panic("runtimetest: " + err.Error())
		}
	}
}

// Owner is who the volume was made for.
func (f *FakeVolumes) Owner(id string) runtime.User {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mustHave(id).owner
}

func (f *FakeVolumes) mustHave(id string) *fakeVolume {
	v := f.volumes[id]
	if v == nil {
		panic("runtimetest: no volume " + id)
	}
	return v
}

// Mount implements runtime.Volumes.
func (f *FakeVolumes) Mount(ctx context.Context, spec runtime.VolumeSpec) (string, error) {
	if err := f.enter(ctx, "Mount"); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !volumeID.MatchString(spec.ID) || spec.SizeMiB < 8 {
		return "", fmt.Errorf("volume %q of %d MiB: %w", spec.ID, spec.SizeMiB, runtime.ErrInvalid)
	}
	v := f.volumes[spec.ID]
	if v == nil {
		v = &fakeVolume{owner: spec.Owner}
		if err := f.create(spec); err != nil {
			return "", err
		}
		f.volumes[spec.ID] = v
	}
	if v.corrupt {
		return "", fmt.Errorf("volume %s: %w", spec.ID, runtime.ErrCorrupt)
	}
	v.sizeMiB = max(v.sizeMiB, spec.SizeMiB)
	if v.mounted {
		return f.path(spec.ID), nil
	}
	if err := os.Rename(f.hidden(spec.ID), f.path(spec.ID)); err != nil {
		return "", err
	}
	v.mounted = true
	return f.path(spec.ID), nil
}

func (f *FakeVolumes) create(spec runtime.VolumeSpec) error {
	if err := os.MkdirAll(filepath.Join(f.dir, "mounts"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(f.hidden(spec.ID), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(f.hidden(spec.ID), 0o755); err != nil { // whatever the umask
		return err
	}
	if os.Geteuid() != 0 {
		return nil // only root gives directories away
	}
	return os.Chown(f.hidden(spec.ID), int(spec.Owner.UID), int(spec.Owner.GID))
}

// Unmount implements runtime.Volumes.
func (f *FakeVolumes) Unmount(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Unmount"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !volumeID.MatchString(id) {
		return fmt.Errorf("volume %q: %w", id, runtime.ErrInvalid)
	}
	v := f.volumes[id]
	if v == nil {
		return nil
	}
	return f.detach(id, v)
}

// Remove implements runtime.Volumes.
func (f *FakeVolumes) Remove(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Remove"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !volumeID.MatchString(id) {
		return fmt.Errorf("volume %q: %w", id, runtime.ErrInvalid)
	}
	v := f.volumes[id]
	if v == nil {
		return nil
	}
	if err := f.detach(id, v); err != nil {
		return err
	}
	delete(f.volumes, id)
	return os.RemoveAll(f.hidden(id))
}

func (f *FakeVolumes) detach(id string, v *fakeVolume) error {
	if !v.mounted {
		return nil
	}
	if v.holders > 0 {
		return fmt.Errorf("volume %s: %w", id, runtime.ErrInUse)
	}
	v.mounted = false
	return os.Rename(f.path(id), f.hidden(id))
}

// List implements runtime.Volumes.
func (f *FakeVolumes) List(ctx context.Context) ([]runtime.Volume, error) {
	if err := f.enter(ctx, "List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []runtime.Volume
	for id, v := range f.volumes {
		at := f.hidden(id)
		if v.mounted {
			at = f.path(id)
		}
		size, err := mebibytes(at)
		if err != nil {
			return nil, err
		}
		volume := runtime.Volume{ID: id, SizeMiB: v.sizeMiB, Mounted: v.mounted, Path: f.path(id), DiskMiB: size}
		if v.mounted {
			volume.UsedMiB = size
		}
		list = append(list, volume)
	}
	slices.SortFunc(list, func(a, b runtime.Volume) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (f *FakeVolumes) path(id string) string   { return filepath.Join(f.dir, "mounts", id) }
func (f *FakeVolumes) hidden(id string) string { return filepath.Join(f.dir, "unmounted", id) }

var volumeID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// mebibytes is the size of all files below a directory, rounded up.
func mebibytes(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return (size + 1<<20 - 1) >> 20, err
}
