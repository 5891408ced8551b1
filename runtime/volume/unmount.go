package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

const (
	// busyFor is how long a volume must be busy here to count as in use. Children
	// of this process have its descriptors until they have started their program,
	// and List looks into each volume.
	busyFor = 500 * time.Millisecond
	// elsewhereFor is the same for other mount namespaces. A container that starts
	// has a copy of all mounts until it has its own root.
	elsewhereFor = 2 * time.Second
	pollEvery    = 5 * time.Millisecond
)

// Unmount implements runtime.Volumes.
func (v *Volumes) Unmount(ctx context.Context, id string) error {
	leave, err := v.enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if err := v.unmount(ctx, id); err != nil {
		return fmt.Errorf("volume %s: %w", id, err)
	}
	return nil
}

// Remove implements runtime.Volumes.
func (v *Volumes) Remove(ctx context.Context, id string) error {
	leave, err := v.enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if err := v.remove(ctx, id); err != nil {
		return fmt.Errorf("volume %s: %w", id, err)
	}
	return nil
}

func (v *Volumes) remove(ctx context.Context, id string) error {
	if err := v.unmount(ctx, id); err != nil {
		return err
	}
	if err := v.images.RemoveAll(unfinished + id); err != nil {
		return err
	}
	err := v.images.Remove(id + imageSuffix)
	if err == nil {
		v.log.Info("removed a volume", "volume", id)
		err = v.syncImages()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Never RemoveAll: what somebody wrote into the bare directory isn't ours.
	if err := v.mounts.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (v *Volumes) unmount(ctx context.Context, id string) error {
	for { // mounts may be stacked
		mounted, err := v.mountOf(id)
		if mounted == nil || err != nil {
			return err
		}
		if err := v.unmountOne(ctx, id, mounted); err != nil {
			return err
		}
	}
}

// unmountOne unmounts here. A mount namespace of a container keeps the file
// system alive all the same, with no sign of it in this one: then the volume is
// mounted again, as it is in use.
func (v *Volumes) unmountOne(ctx context.Context, id string, mounted *mountinfo.Info) error {
	device, err := deviceOf(mounted)
	if err != nil {
		return err
	}
	if device == nil {
		return unmountIdle(ctx, v.path(id))
	}
	defer device.Close() // until then the kernel gives it to nobody else
	v.trim(id)
	if err := unmountIdle(ctx, v.path(id)); err != nil {
		return err
	}
	if below, err := v.mountOf(id); below != nil || err != nil {
		return err // the next one
	}
	err = until(ctx, elsewhereFor, func() (bool, error) {
		elsewhere, err := device.mounted()
		return !elsewhere, err
	})
	if errors.Is(err, errTooLong) {
		err = fmt.Errorf("it is still mounted elsewhere, in a container perhaps: %w", runtime.ErrInUse)
	}
	if err != nil {
		return errors.Join(err, v.mountAt(id, device))
	}
	return nil
}

// unmountIdle unmounts what has no open files.
func unmountIdle(ctx context.Context, path string) error {
	err := until(ctx, busyFor, func() (bool, error) {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		return true, err
	})
	switch {
	case errors.Is(err, errTooLong):
		return fmt.Errorf("%s has open files: %w", path, runtime.ErrInUse)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

var errTooLong = errors.New("took too long")

// until tries again until it is done, fails, or took too long.
func until(ctx context.Context, limit time.Duration, try func() (done bool, err error)) error {
	for deadline := time.Now().Add(limit); ; {
		if done, err := try(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errTooLong
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// trim gives blocks without data back to the host's disk. Nothing is wrong
// with a volume that can't: it takes more room than it needs.
func (v *Volumes) trim(id string) {
	// struct fstrim_range and FITRIM of linux/fs.h.
	blocks := struct{ start, length, smallest uint64 }{length: math.MaxUint64}
	const fitrim = 0xc0185879
	dir, err := os.Open(v.path(id))
	if err == nil {
		defer dir.Close()
		_ = unix.Syncfs(int(dir.Fd())) // blocks freed a moment ago count as used until then
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), fitrim, uintptr(unsafe.Pointer(&blocks)))
		if errno == 0 {
			return
		}
		err = errno
	}
	v.log.Debug("a volume's unused blocks stay on the disk", "volume", id, "error", err)
}
