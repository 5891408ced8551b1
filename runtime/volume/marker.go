package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// markerName is the file in the root of each volume that holds its id. Root
// owns it and it is immutable: the user who owns the directory can't take it
// away, so a missing one means that this isn't the volume.
const markerName = ".berth-volume"

// checkMarker makes sure that the volume mounted at path is the one of that id.
func checkMarker(path, id string) error {
	marker, err := os.OpenFile(filepath.Join(path, markerName), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%s isn't a volume of berth: %w: %w", path, err, runtime.ErrCorrupt)
	}
	defer marker.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(marker.Fd()), &stat); err != nil {
		return fmt.Errorf("stat of %s: %w", marker.Name(), err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Uid != 0 {
		return fmt.Errorf("%s isn't root's file: %w", marker.Name(), runtime.ErrCorrupt)
	}
	raw, err := io.ReadAll(io.LimitReader(marker, maxID+2))
	if err != nil {
		return fmt.Errorf("read %s: %w: %w", marker.Name(), err, runtime.ErrCorrupt)
	}
	if found := strings.TrimSuffix(string(raw), "\n"); found != id {
		return fmt.Errorf("%s should have volume %s and has %q: %w", path, id, found, runtime.ErrCorrupt)
	}
	return protect(marker)
}

// protect makes a file immutable, if it isn't yet.
func protect(file *os.File) error {
	const immutable = 0x10 // FS_IMMUTABLE_FL
	fd := int(file.Fd())
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable == 0 {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|immutable))
	}
	if err != nil {
		return fmt.Errorf("protect %s: %w", file.Name(), err)
	}
	return nil
}

// tidy removes the directory for lost files that mkfs makes: it would be seen
// in the user's home. e2fsck makes it again when it has something to put there.
func tidy(path string) error {
	err := unix.Rmdir(filepath.Join(path, "lost+found"))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}
