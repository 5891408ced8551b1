package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func sparse(t *testing.T, mib int64) *os.File {
	t.Helper()
	image, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	if err := image.Truncate(mib * mebibyte); err != nil {
		t.Fatal(err)
	}
	return image
}

// Kernels before 5.8 set up a device in two steps.
func TestConfigureOld(t *testing.T) {
	image := sparse(t, 8)
	device := attachOld(t, image)
	if behind, err := device.has(image); !behind || err != nil {
		t.Errorf("the image isn't behind the device: %v", err)
	}
	if behind, err := device.has(sparse(t, 8)); behind || err != nil {
		t.Errorf("another file is behind the device: %v", err)
	}
	status, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err != nil || status.Flags&unix.LO_FLAGS_AUTOCLEAR == 0 {
		t.Errorf("flags %x (%v), want it to detach itself", status.Flags, err)
	}
	size, err := device.Seek(0, 2)
	if err != nil || size != 8*mebibyte {
		t.Errorf("the device has %d bytes, %v", size, err)
	}
}

// attachOld is attachLoop as on an old kernel.
func attachOld(t *testing.T, image *os.File) *loopDevice {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 64 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		device, err := openLoop(number)
		if err != nil {
			t.Fatal(err)
		}
		err = configureOld(int(device.Fd()), int(image.Fd()), unix.LoopInfo64{})
		if err == nil {
			t.Cleanup(func() { device.Close() })
			return device
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
	}
	t.Fatal("no free loop device")
	return nil
}

func TestMissingNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loop-control")
	for range 2 {
		node, err := openNode(path, unix.S_IFCHR, unix.Mkdev(miscMajor, loopControlMinor))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.IoctlRetInt(int(node.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			t.Errorf("the node isn't the loop devices': %v", err)
		}
		node.Close()
	}
}

func TestBadSuperblocks(t *testing.T) {
	for name, text := range map[string]string{
		"short": strings.Repeat("x", 1500),
		"zeros": strings.Repeat("\x00", 4096),
		"noise": strings.Repeat("\xff", 4096),
	} {
		if super, err := readSuperblock(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v", name, super)
		}
	}
}

func TestLocks(t *testing.T) {
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := l.lock(t.Context(), "b"); err != nil {
		t.Errorf("another volume waits: %v", err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
	locked := make(chan struct{})
	go func() {
		again, err := l.lock(t.Context(), "a")
		close(locked)
		if err == nil {
			again()
		}
	}()
	select {
	case <-locked:
		t.Error("locked twice")
	default:
	}
	unlock()
	<-locked
	if unlock, err = l.lock(t.Context(), "a"); err == nil {
		unlock()
	}
	if len(l.held) != 0 {
		t.Errorf("%d locks are kept that nobody has", len(l.held))
	}
}
