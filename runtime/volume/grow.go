package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// unusable is how much of an image a whole file system may leave out: ext4 adds
// no group of blocks at its end that is too small to be of use.
const unusable = 8 * mebibyte

// errDenied: the kernel doesn't let this process resize a mounted file system.
var errDenied = errors.New("may not resize a mounted file system")

// grow makes a mounted volume as large as it should be: the image, the device,
// then the file system. It also does the rest of what a crash left half done.
// The kernel grows a mounted file system through its journal, so that a power
// cut does no harm; errDenied where that isn't allowed.
func (v *Volumes) grow(ctx context.Context, spec runtime.VolumeSpec, image *os.File, device *loopDevice) error {
	info, err := image.Stat()
	if err != nil {
		return err
	}
	size, want := info.Size(), info.Size()
	if spec.SizeMiB > size/mebibyte {
		if want, err = v.enlarge(image, spec.SizeMiB); err != nil {
			return fmt.Errorf("grow to %d MiB: %w", spec.SizeMiB, err)
		}
	}
	super, err := readSuperblock(device)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", device.Name(), err, runtime.ErrCorrupt)
	}
	if want == size && want-super.bytes < unusable {
		return nil
	}
	if err := device.resized(); err != nil {
		return err
	}
	if err := resize(ctx, device.Name()); err != nil {
		return fmt.Errorf("grow to %d MiB: %w", want/mebibyte, err)
	}
	v.log.Info("grew a volume", "volume", spec.ID, "size_mib", want/mebibyte)
	return nil
}

// growUnmounted is for hosts where grow is denied: without CAP_SYS_RESOURCE, as
// in many containers. The image is as large as it should be already.
func (v *Volumes) growUnmounted(ctx context.Context, id string, image *os.File) error {
	if err := v.unmount(ctx, id); err != nil {
		return fmt.Errorf("it has to be unmounted to grow on this host: %w", err)
	}
	device, err := mountedElsewhere(image)
	if err != nil {
		return err
	}
	if device != nil {
		device.Close()
		return fmt.Errorf("grow: %s is mounted again: %w", device.Name(), runtime.ErrInUse)
	}
	if err := check(image); err != nil { // resize2fs insists
		return err
	}
	if err := resize(context.Background(), image.Name()); err != nil { // never stopped halfway
		return fmt.Errorf("grow: %w", err)
	}
	v.log.Info("grew a volume while unmounted", "volume", id)
	return nil
}

// enlarge makes an image larger, for a file system that isn't yet.
func (v *Volumes) enlarge(image *os.File, sizeMiB int64) (size int64, err error) {
	if _, err := findTool("resize2fs"); err != nil { // while nothing has changed
		return 0, err
	}
	if err := v.room(sizeMiB); err != nil {
		return 0, err
	}
	size = sizeMiB * mebibyte
	err = image.Truncate(size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG) {
		return 0, fmt.Errorf("%w: %w", err, runtime.ErrNoSpace)
	}
	if err != nil {
		return 0, err
	}
	return size, image.Sync() // before the file system counts on it
}

// resize makes a file system fill its device or image.
func resize(ctx context.Context, path string) error {
	err := runTool(ctx, 0, "resize2fs", path)
	switch {
	case says(err, "Permission denied to resize"):
		return fmt.Errorf("%w: %w", err, errDenied)
	case says(err, noSpace):
		return fmt.Errorf("%w: %w", err, runtime.ErrNoSpace)
	}
	return err
}
