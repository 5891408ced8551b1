package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// List implements runtime.Volumes. It waits for no other call: a volume that is
// mounted or removed meanwhile is listed as before or as after.
func (v *Volumes) List(ctx context.Context) ([]runtime.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(v.images.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list the volumes in %s: %w", v.dir, err)
	}
	mounted, err := v.allMounts()
	if err != nil {
		return nil, err
	}
	var list []runtime.Volume
	for _, entry := range entries {
		id, isImage := strings.CutSuffix(entry.Name(), imageSuffix)
		if !isImage || !validID(id) {
			continue
		}
		volume, err := v.describe(id, mounted[id])
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", id, err)
		}
		list = append(list, volume)
	}
	slices.SortFunc(list, func(a, b runtime.Volume) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (v *Volumes) describe(id string, mounted *mountinfo.Info) (runtime.Volume, error) {
	volume := runtime.Volume{ID: id, Path: v.path(id), Mounted: mounted != nil}
	image, err := v.images.OpenFile(id+imageSuffix, os.O_RDONLY, 0)
	if err != nil {
		return volume, err
	}
	defer image.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &stat); err != nil {
		return volume, err
	}
	const sector = 512
	volume.SizeMiB = stat.Size / mebibyte
	volume.DiskMiB = (stat.Blocks*sector + mebibyte - 1) / mebibyte
	if mounted != nil {
		volume.UsedMiB, err = used(volume.Path, mounted)
	}
	return volume, err
}

// used asks the mounted file system, unless it isn't there any more.
func used(path string, mounted *mountinfo.Info) (int64, error) {
	dir, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	var stat unix.Stat_t
	var disk unix.Statfs_t
	if err := unix.Fstat(int(dir.Fd()), &stat); err != nil {
		return 0, err
	}
	if stat.Dev != unix.Mkdev(uint32(mounted.Major), uint32(mounted.Minor)) {
		return 0, nil
	}
	if err := unix.Fstatfs(int(dir.Fd()), &disk); err != nil {
		return 0, err
	}
	return (int64(disk.Blocks-disk.Bfree)*disk.Bsize + mebibyte - 1) / mebibyte, nil
}

// allMounts gives the uppermost mount of each volume that has one.
func (v *Volumes) allMounts() (map[string]*mountinfo.Info, error) {
	dir := filepath.Dir(v.path("x"))
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return filepath.Dir(m.Mountpoint) != dir, false
	})
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	byID := map[string]*mountinfo.Info{}
	for _, m := range mounts {
		byID[filepath.Base(m.Mountpoint)] = m
	}
	return byID, nil
}
