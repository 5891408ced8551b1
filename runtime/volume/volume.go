// Package volume keeps persistent directories of a fixed size: each is an ext4
// file system in a sparse image file, mounted through a loop device. Project
// quotas would be cheaper, but not every kernel and file system has them.
//
// An image is made under another name and renamed when it is whole. Loop devices
// detach themselves after their last user, so a killed process leaves nothing
// that it didn't finish. A mounted volume needs no process: the next one finds
// it in the mount table and goes on.
//
// Mounts are made in the mount namespace of this process. containerd must share
// it (no PrivateTmp, ProtectSystem and the like in either unit): otherwise it
// sees the bare directory below the mount, and what users write there isn't on
// the volume. The marker file in each volume is there to notice that.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"berth/runtime"
)

const (
	minSizeMiB     = 8
	maxID          = 64
	defaultReserve = 64
	imageSuffix    = ".img"
	unfinished     = ".new-" // before the id, of what isn't a volume yet
	mebibyte       = 1 << 20
)

// Config is what volumes need to know. Only Dir is a must.
type Config struct {
	// Dir holds all volumes of this host, and is used by one process at a time.
	// It is made if it doesn't exist.
	Dir string
	// ReserveMiB of the disk stay free: what would make or grow a volume with
	// less than that free fails. That all volumes together fit is kept elsewhere.
	// 0: 64.
	ReserveMiB int64
	// Log gets what an operator should know. nil: nobody does.
	Log *slog.Logger
}

// Volumes implements runtime.Volumes with ext4 images on loop devices. It needs
// root. It holds a few descriptors and no goroutine.
type Volumes struct {
	dir     string   // absolute, without symbolic links, as the mount table has it
	images  *os.Root // <id>.img, and .new-<id>/ while one is made
	mounts  *os.Root // <id>/
	reserve int64
	log     *slog.Logger
	locks   locks
}

var _ runtime.Volumes = (*Volumes)(nil)

// New opens the volumes in a directory and takes away what a process that was
// killed had half made or half removed. It mounts nothing.
func New(cfg Config) (*Volumes, error) {
	if cfg.Dir == "" {
		return nil, errors.New("volumes: no directory given")
	}
	v := &Volumes{reserve: cfg.ReserveMiB, log: cfg.Log}
	if v.reserve == 0 {
		v.reserve = defaultReserve
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if err := v.open(cfg.Dir); err != nil {
		return nil, fmt.Errorf("volumes in %s: %w", cfg.Dir, err)
	}
	if err := v.sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("volumes in %s: %w", cfg.Dir, err), v.Close())
	}
	return v, nil
}

// Close lets go of the directory. Volumes stay as they are.
func (v *Volumes) Close() error {
	return errors.Join(v.images.Close(), v.mounts.Close())
}

func (v *Volumes) open(dir string) error {
	for _, sub := range []string{"images", "mounts"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if v.dir, err = filepath.EvalSymlinks(absolute); err != nil {
		return err
	}
	if v.images, err = os.OpenRoot(filepath.Join(v.dir, "images")); err != nil {
		return err
	}
	if v.mounts, err = os.OpenRoot(filepath.Join(v.dir, "mounts")); err != nil {
		return errors.Join(err, v.images.Close())
	}
	return nil
}

// sweep removes unfinished images, and mount points whose image is gone.
func (v *Volumes) sweep() error {
	images, err := fs.ReadDir(v.images.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range images {
		if !strings.HasPrefix(entry.Name(), unfinished) {
			continue
		}
		if err := v.images.RemoveAll(entry.Name()); err != nil {
			return err
		}
		v.log.Info("removed a volume that wasn't finished", "volume", strings.TrimPrefix(entry.Name(), unfinished))
	}
	mounts, err := fs.ReadDir(v.mounts.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range mounts {
		if _, err := v.images.Lstat(entry.Name() + imageSuffix); !errors.Is(err, fs.ErrNotExist) || !entry.IsDir() {
			continue
		}
		// This only takes an empty directory that nothing is mounted on.
		if err := v.mounts.Remove(entry.Name()); err != nil {
			v.log.Warn("a directory of volumes belongs to none, look what is in it",
				"path", v.path(entry.Name()), "error", err)
		}
	}
	return nil
}

// path is where a volume is mounted.
func (v *Volumes) path(id string) string { return filepath.Join(v.dir, "mounts", id) }

// enter checks an id and waits until no other call is about the same volume.
func (v *Volumes) enter(ctx context.Context, id string) (leave func(), err error) {
	if !validID(id) {
		return nil, fmt.Errorf("volume id %q: letters, digits and '-', at most %d: %w", id, maxID, runtime.ErrInvalid)
	}
	return v.locks.lock(ctx, id)
}

func validID(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
		default:
			return false
		}
	}
	return true
}
