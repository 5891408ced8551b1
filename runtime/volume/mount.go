package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// Mount implements runtime.Volumes.
func (v *Volumes) Mount(ctx context.Context, spec runtime.VolumeSpec) (string, error) {
	leave, err := v.enter(ctx, spec.ID)
	if err != nil {
		return "", err
	}
	defer leave()
	if spec.SizeMiB < minSizeMiB {
		return "", fmt.Errorf("volume %s of %d MiB: it needs %d at least: %w", spec.ID, spec.SizeMiB, minSizeMiB, runtime.ErrInvalid)
	}
	if err := v.mount(ctx, spec); err != nil {
		return "", fmt.Errorf("volume %s: %w", spec.ID, err)
	}
	return v.path(spec.ID), nil
}

func (v *Volumes) mount(ctx context.Context, spec runtime.VolumeSpec) error {
	image, err := v.openImage(ctx, spec)
	if err != nil {
		return err
	}
	defer image.Close()
	err = v.bringUp(ctx, spec, image)
	if errors.Is(err, errDenied) {
		if err := v.growUnmounted(ctx, spec.ID, image); err != nil {
			return err
		}
		err = v.bringUp(ctx, spec, image)
	}
	return err
}

// bringUp mounts an image unless it is mounted, checks that it is the volume,
// and lets it grow. What it has mounted it unmounts on an error.
func (v *Volumes) bringUp(ctx context.Context, spec runtime.VolumeSpec, image *os.File) error {
	device, err := v.adopt(ctx, spec.ID, image)
	if err != nil {
		return err
	}
	fresh := device == nil
	if fresh {
		if device, err = v.attach(spec.ID, image); err != nil {
			return err
		}
	}
	defer device.Close()
	err = v.settle(ctx, spec, image, device)
	if err != nil && fresh {
		return errors.Join(err, unix.Unmount(v.path(spec.ID), unix.UMOUNT_NOFOLLOW))
	}
	return err
}

// openImage opens the image, after making it if there is none.
func (v *Volumes) openImage(ctx context.Context, spec runtime.VolumeSpec) (*os.File, error) {
	name := spec.ID + imageSuffix
	image, err := v.images.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	mounted, err := v.mountOf(spec.ID)
	if err != nil {
		return nil, err
	}
	if mounted != nil {
		return nil, fmt.Errorf("its image was deleted while it is mounted: copy what you need from %s, "+
			"then remove the volume: %w", v.path(spec.ID), runtime.ErrCorrupt)
	}
	if err := v.create(ctx, spec); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	v.log.Info("created a volume", "volume", spec.ID, "size_mib", spec.SizeMiB)
	return v.images.OpenFile(name, os.O_RDWR, 0)
}

// adopt gives the device of a volume that is mounted, by this process or one
// before it, or nil. One that the kernel made read-only after an error is
// unmounted, to be repaired and mounted anew.
func (v *Volumes) adopt(ctx context.Context, id string, image *os.File) (*loopDevice, error) {
	mounted, err := v.mountOf(id)
	if mounted == nil || err != nil {
		return nil, err
	}
	device, err := deviceOf(mounted)
	if err != nil {
		return nil, err
	}
	if device != nil {
		behind, err := device.has(image)
		if err == nil && behind && mounted.FSType == "ext4" && !readOnly(mounted) {
			return device, nil
		}
		device.Close()
		if err != nil {
			return nil, err
		}
		if behind {
			v.log.Warn("a volume is read-only after an error; unmounting it to repair it", "volume", id)
			return nil, v.unmount(ctx, id)
		}
	}
	return nil, fmt.Errorf("something else is mounted on %s (%s from %s): unmount it: %w",
		v.path(id), mounted.FSType, mounted.Source, runtime.ErrCorrupt)
}

// attach mounts an image that isn't mounted here. If the file system is known
// to be damaged or can't be mounted, what can be repaired without losing
// anything is repaired once. A journal left by a power cut isn't damage: the
// kernel plays it back.
func (v *Volumes) attach(id string, image *os.File) (*loopDevice, error) {
	if err := v.mountPoint(id); err != nil {
		return nil, err
	}
	device, err := mountedElsewhere(image)
	if err != nil {
		return nil, err
	}
	if device != nil { // alive: nothing to check or repair
		return v.mountDevice(id, device)
	}
	super, err := readSuperblock(image)
	repaired := err != nil || super.hasErrors
	if repaired {
		if err := v.repair(id, image); err != nil {
			return nil, err
		}
	}
	if device, err = attachLoop(image); err != nil {
		return nil, err
	}
	device, err = v.mountDevice(id, device)
	if !damaged(err) {
		return device, err
	}
	if !repaired {
		v.log.Warn("a volume can't be mounted; repairing it", "volume", id, "error", err)
		if err := v.repair(id, image); err != nil {
			return nil, err
		}
		if device, err = attachLoop(image); err != nil {
			return nil, err
		}
		device, err = v.mountDevice(id, device)
	}
	if damaged(err) {
		return nil, corrupt(image, err)
	}
	return device, err
}

// mountDevice mounts a device, and closes it if it can't.
func (v *Volumes) mountDevice(id string, device *loopDevice) (*loopDevice, error) {
	if err := v.mountAt(id, device); err != nil {
		device.Close()
		return nil, err
	}
	return device, nil
}

func (v *Volumes) mountAt(id string, device *loopDevice) error {
	err := unix.Mount(device.Name(), v.path(id), "ext4", unix.MS_NOSUID|unix.MS_NODEV, "errors=remount-ro")
	if errors.Is(err, unix.ENODEV) {
		return errors.New("this kernel can't mount ext4: load the module ext4")
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", device.Name(), v.path(id), err)
	}
	return nil
}

// mountPoint makes the directory to mount on. Nobody may use it bare.
func (v *Volumes) mountPoint(id string) error {
	if err := v.mounts.Mkdir(id, 0); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := fs.ReadDir(v.mounts.FS(), id)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s has files (%s, …) that were written while the volume wasn't mounted: "+
			"move them away: %w", v.path(id), entries[0].Name(), runtime.ErrCorrupt)
	}
	return nil
}

// damaged: mount says that the file system isn't whole.
func damaged(err error) bool {
	for _, class := range []error{unix.EUCLEAN, unix.EBADMSG, unix.EINVAL, unix.EIO} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// repair checks a damaged file system.
func (v *Volumes) repair(id string, image *os.File) error {
	err := check(image)
	if err == nil {
		v.log.Warn("repaired a volume", "volume", id)
	}
	return err
}

// check repairs what e2fsck can without asking. It isn't stopped halfway.
func check(image *os.File) error {
	const corrected = 2 // exit codes up to here
	err := runTool(context.Background(), corrected, "e2fsck", "-p", "-f", image.Name())
	if failed := (*toolError)(nil); errors.As(err, &failed) {
		return corrupt(image, err)
	}
	return err
}

func corrupt(image *os.File, err error) error {
	return fmt.Errorf("its file system is damaged: copy %s to a safe place, then try e2fsck -f on it: %w: %w",
		image.Name(), err, runtime.ErrCorrupt)
}

// settle checks a mounted volume and lets it grow.
func (v *Volumes) settle(ctx context.Context, spec runtime.VolumeSpec, image *os.File, device *loopDevice) error {
	path := v.path(spec.ID)
	if err := checkMarker(path, spec.ID); err != nil {
		return err
	}
	if err := tidy(path); err != nil {
		return fmt.Errorf("remove lost+found: %w", err)
	}
	return v.grow(ctx, spec, image, device)
}

// mountOf gives what is mounted for an id, the uppermost, or nil.
func (v *Volumes) mountOf(id string) (*mountinfo.Info, error) {
	path := v.path(id)
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != path, false
	})
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	return mounts[len(mounts)-1], nil
}

// deviceOf opens the loop device that is mounted, or gives nil if it isn't one.
func deviceOf(mounted *mountinfo.Info) (*loopDevice, error) {
	if mounted.Major != loopMajor {
		return nil, nil
	}
	file, err := os.OpenFile(mounted.Source, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	err = unix.Fstat(int(file.Fd()), &stat)
	if err == nil && stat.Rdev != unix.Mkdev(uint32(mounted.Major), uint32(mounted.Minor)) {
		err = fmt.Errorf("%s isn't the device %d:%d that is mounted", mounted.Source, mounted.Major, mounted.Minor)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &loopDevice{file}, nil
}

// readOnly: the kernel stopped writing after an error, as it does since 6.14 or
// before.
func readOnly(mounted *mountinfo.Info) bool {
	for option := range strings.SplitSeq(mounted.VFSOptions, ",") {
		if option == "ro" || option == "emergency_ro" {
			return true
		}
	}
	return false
}
