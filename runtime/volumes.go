package runtime

import "context"

// Volumes keeps persistent directories of a fixed size on this host, each a
// file system of its own that can't grow past its size. All methods are safe
// for concurrent use; calls about one volume wait for each other. Volumes
// outlive the process that made them. runtime/volume carries it out.
type Volumes interface {
	// Mount makes the volume if there is none and mounts it if it isn't
	// mounted, checks that what is mounted is this volume (its marker has its
	// id), and gives the directory. Owner is who owns the root directory of a
	// volume that is made now; one that exists is never chowned. A size larger
	// than the volume has makes it grow; a smaller one is ignored. ErrNoSpace
	// when the disk can't take it, ErrInvalid for an id or size that can't be,
	// ErrCorrupt when the volume can't be mounted or isn't the one asked for.
	Mount(ctx context.Context, spec VolumeSpec) (path string, err error)
	// Unmount gives unused blocks back to the disk and unmounts. Idempotent:
	// an absent or unmounted volume is no error. ErrInUse while something has a
	// file of it open.
	Unmount(ctx context.Context, id string) error
	// Remove unmounts and deletes the volume with all its data, for good.
	// Idempotent. ErrInUse as in Unmount: then nothing is deleted.
	Remove(ctx context.Context, id string) error
	// List gives every volume of this host, by id.
	List(ctx context.Context) ([]Volume, error)
}

// VolumeSpec is a volume as it is asked for.
type VolumeSpec struct {
	ID      string // letters, digits and '-', at most 64
	SizeMiB int64  // at least 8
	Owner   User   // of the root directory of a new volume
}

// Volume is what a host knows of one.
type Volume struct {
	ID      string
	SizeMiB int64
	Mounted bool
	Path    string // where it is, or would be, mounted
	UsedMiB int64  // by its files; 0 unless mounted
	DiskMiB int64  // what it takes of the host's disk now
}

// User of a process or file, as numbers of this host.
type User struct {
	UID, GID uint32
}
