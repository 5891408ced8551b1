package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// How Linux numbers devices (Documentation/admin-guide/devices.txt).
const (
	loopMajor        = 7
	miscMajor        = 10
	loopControlMinor = 237
)

// loopDevice is an open loop device with a file behind it. The device lets go
// of that file after its last user: this descriptor or a mount.
type loopDevice struct {
	*os.File
}

// attachLoop puts an image behind a free loop device.
func attachLoop(image *os.File) (*loopDevice, error) {
	control, err := openNode("/dev/loop-control", unix.S_IFCHR, unix.Mkdev(miscMajor, loopControlMinor))
	if err != nil {
		return nil, fmt.Errorf("loop devices can't be used on this host (is the kernel module loop loaded, and is this root?): %w", err)
	}
	defer control.Close()
	for range 64 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := openLoop(number)
		if err != nil {
			return nil, err
		}
		err = configure(device, image)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // busy: another process was faster
			return nil, fmt.Errorf("attach %s to %s: %w", image.Name(), device.Name(), err)
		}
	}
	return nil, fmt.Errorf("attach %s: other processes take every free loop device", image.Name())
}

// configure sets up a free device in one step, or in two on kernels before 5.8.
func configure(device *loopDevice, image *os.File) error {
	fd := int(device.Fd())
	// Direct: the volume's pages are cached once, not again for the image. The
	// kernel drops the flag where the disk can't do it.
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name()) // for losetup
	err := unix.IoctlLoopConfigure(fd, &config)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	return configureOld(fd, int(image.Fd()), config.Info)
}

func configureOld(fd, image int, info unix.LoopInfo64) error {
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, image); err != nil {
		return err
	}
	info.Flags = unix.LO_FLAGS_AUTOCLEAR
	err := unix.IoctlLoopSetStatus64(fd, &info)
	for range 16 { // the kernel asks to try again while pages are written
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		err = unix.IoctlLoopSetStatus64(fd, &info)
	}
	if err != nil {
		return errors.Join(err, unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0))
	}
	_ = unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1) // slower without, but right
	return nil
}

// mountedElsewhere gives the device that an image is behind and that is mounted
// in another mount namespace, or nil. A second device for that image would let
// two file systems write to it.
func mountedElsewhere(image *os.File) (*loopDevice, error) {
	attached, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range attached {
		number, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "loop"))
		if err != nil {
			continue
		}
		device, err := openLoop(number)
		if errors.Is(err, unix.ENXIO) {
			continue // it goes away just now
		}
		if err != nil {
			return nil, err
		}
		found, err := device.has(image)
		if found && err == nil {
			found, err = device.mounted()
		}
		if found && err == nil {
			return device, nil
		}
		device.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// has tells whether this very file is behind the device.
func (d *loopDevice) has(image *os.File) (bool, error) {
	status, err := unix.IoctlLoopGetStatus64(int(d.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return false, nil // nothing is behind it
	}
	if err != nil {
		return false, fmt.Errorf("status of %s: %w", d.Name(), err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &stat); err != nil {
		return false, fmt.Errorf("stat of %s: %w", image.Name(), err)
	}
	return status.Device == stat.Dev && status.Inode == stat.Ino, nil
}

// resized makes the device as large as its file is now.
func (d *loopDevice) resized() error {
	if err := unix.IoctlSetInt(int(d.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", d.Name(), err)
	}
	return nil
}

// mounted tells whether a mount in whatever namespace has the device.
func (d *loopDevice) mounted() (bool, error) {
	exclusive, err := os.OpenFile(d.Name(), os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, exclusive.Close()
}

func openLoop(number int) (*loopDevice, error) {
	name := fmt.Sprintf("loop%d", number)
	device := unix.Mkdev(loopMajor, uint32(number))
	if raw, err := os.ReadFile(filepath.Join("/sys/block", name, "dev")); err == nil {
		var major, minor uint32
		if _, err := fmt.Sscanf(string(raw), "%d:%d", &major, &minor); err == nil {
			device = unix.Mkdev(major, minor)
		}
	}
	file, err := openNode("/dev/"+name, unix.S_IFBLK, device)
	if err != nil {
		return nil, err
	}
	return &loopDevice{file}, nil
}

// openNode opens a device, and makes its node where /dev isn't the kernel's own
// (in a container, say).
func openNode(path string, kind uint32, device uint64) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if err := unix.Mknod(path, kind|0o600, int(device)); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make the device node %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
}
