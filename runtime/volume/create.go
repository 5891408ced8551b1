package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// create makes the image of a new volume. A crash at any point leaves either
// the whole volume or something that sweep takes away.
func (v *Volumes) create(ctx context.Context, spec runtime.VolumeSpec) error {
	if err := v.room(spec.SizeMiB); err != nil {
		return err
	}
	work := unfinished + spec.ID
	if err := v.images.RemoveAll(work); err != nil {
		return err
	}
	defer func() { _ = v.images.RemoveAll(work) }() // sweep comes after it
	image := filepath.Join(work, "image")
	if err := v.makeImage(ctx, work, image, spec); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG) || says(err, noSpace) {
			return fmt.Errorf("%w: %w", err, runtime.ErrNoSpace)
		}
		return err
	}
	if err := v.images.Rename(image, spec.ID+imageSuffix); err != nil {
		return err
	}
	return v.syncImages()
}

func (v *Volumes) makeImage(ctx context.Context, work, image string, spec runtime.VolumeSpec) error {
	content := filepath.Join(work, "root")
	if err := v.images.MkdirAll(content, 0o755); err != nil {
		return err
	}
	if err := v.images.Chmod(content, 0o755); err != nil { // whatever the umask
		return err
	}
	marker := filepath.Join(content, markerName)
	if err := v.images.WriteFile(marker, []byte(spec.ID+"\n"), 0o444); err != nil {
		return err
	}
	if err := v.images.Chmod(marker, 0o444); err != nil {
		return err
	}
	file, err := v.images.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(spec.SizeMiB * mebibyte); err != nil {
		return err
	}
	if err := v.mkfs(ctx, content, image, spec.Owner); err != nil {
		return err
	}
	return file.Sync()
}

// mkfs: blocks of 4 KiB whatever the size, as a disk with sectors of 4 KiB
// can't mount smaller ones; no blocks held back for root. Discard tells mkfs
// that the file is empty: then neither it nor the kernel writes zeros into
// inode tables, and the image stays sparse.
func (v *Volumes) mkfs(ctx context.Context, content, image string, owner runtime.User) error {
	dir := v.images.Name()
	return runTool(ctx, 0, "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro",
		"-E", fmt.Sprintf("root_owner=%d:%d,discard,lazy_itable_init=1,lazy_journal_init=1", owner.UID, owner.GID),
		"-d", filepath.Join(dir, content), filepath.Join(dir, image))
}

// room refuses a volume that is larger than the disk, or a disk that is full.
func (v *Volumes) room(sizeMiB int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(v.dir, &disk); err != nil {
		return fmt.Errorf("free space of %s: %w", v.dir, err)
	}
	total, free := mebibytes(disk.Blocks, disk.Bsize), mebibytes(disk.Bavail, disk.Bsize)
	switch {
	case sizeMiB > total:
		return fmt.Errorf("%d MiB are asked for, the disk of %s has %d MiB: %w", sizeMiB, v.dir, total, runtime.ErrNoSpace)
	case free < v.reserve:
		return fmt.Errorf("the disk of %s has %d MiB free, %d MiB must stay free: %w", v.dir, free, v.reserve, runtime.ErrNoSpace)
	}
	return nil
}

func mebibytes(blocks uint64, size int64) int64 {
	return int64(blocks / (mebibyte / 512) * uint64(size) / 512)
}

// syncImages makes new, renamed and removed images survive a power cut.
func (v *Volumes) syncImages() error {
	dir, err := v.images.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
