package containerd

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

const (
	defaultMaxImport = 64 << 30
	reserveMax       = 1 << 30
	roomTick         = 100 * time.Millisecond
)

// room is what one import may take of the disks that containerd uses. What an
// archive is going to take is known only when its layers are unpacked, by
// containerd, which has no bound: so the disks are watched all the while.
type room struct {
	max    int64 // Config.MaxImport
	left   int64 // of it, for the archive itself
	disks  []disk
	statfs func(path string, stat *unix.Statfs_t) error
	// taken counts what has been unpacked. That takes long, so it is asked only
	// when a disk has so much less room that this may be the reason: containers
	// and pulls use the same disks. Nil: nobody else does.
	taken func() int64
}

type disk struct {
	path    string
	atStart int64 // bytes free
	reserve int64 // bytes that imports leave free: a GiB, or a twentieth of a small disk
}

// room asks containerd where it keeps its content and its snapshots.
func (r *Runtime) room(ctx context.Context) (*room, error) {
	snapshotter, err := r.snapshotterName(ctx)
	if err != nil {
		return nil, err
	}
	roots, err := r.imageRoots(ctx, snapshotter)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	m := &room{max: r.cfg.MaxImport, left: r.cfg.MaxImport, statfs: r.statfs, taken: func() int64 {
		return r.unpackedSince(ctx, snapshotter, start)
	}}
	for _, path := range roots {
		var stat unix.Statfs_t
		if err := m.statfs(path, &stat); err != nil {
			return nil, fmt.Errorf("free space of %s: %w", path, err)
		}
		m.disks = append(m.disks, disk{
			path: path, atStart: free(&stat), reserve: min(reserveMax, int64(stat.Blocks)*stat.Bsize/20),
		})
	}
	return m, m.check(0)
}

// unpackedSince is what the layers take that have been unpacked since, in bytes.
// They are of one image, as one is unpacked at a time. What can't be known is
// taken to be too much.
func (r *Runtime) unpackedSince(ctx context.Context, snapshotter string, since time.Time) int64 {
	service := r.client.SnapshotService(snapshotter)
	var sum int64
	err := service.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		layer := info.Kind == snapshots.KindCommitted || strings.HasPrefix(info.Name, snapshots.UnpackKeyPrefix)
		if !layer || info.Created.Before(since) {
			return nil
		}
		usage, err := service.Usage(ctx, info.Name)
		if errdefs.IsNotFound(native(err)) { // it was committed meanwhile
			return nil
		}
		sum += usage.Size
		return err
	})
	if err != nil {
		return math.MaxInt64
	}
	return sum
}

// imageRoots are the directories of contents and of snapshots.
func (r *Runtime) imageRoots(ctx context.Context, snapshotter string) ([]string, error) {
	response, err := r.client.IntrospectionService().Plugins(ctx,
		"type==io.containerd.content.v1", "type==io.containerd.snapshotter.v1,id=="+snapshotter)
	if err != nil {
		return nil, r.failed(err, "ask where it keeps images")
	}
	var roots []string
	for _, plugin := range response.Plugins {
		if root := plugin.Exports["root"]; root != "" {
			roots = append(roots, root)
		}
	}
	return roots, nil
}

// ImageDisk implements runtime.Puller.
func (r *Runtime) ImageDisk(ctx context.Context) (runtime.DiskUse, error) {
	snapshotter, err := r.snapshotterName(ctx)
	if err != nil {
		return runtime.DiskUse{}, err
	}
	roots, err := r.imageRoots(ctx, snapshotter)
	if err != nil {
		return runtime.DiskUse{}, err
	}
	var fullest runtime.DiskUse
	for _, root := range roots {
		var stat unix.Statfs_t
		if err := r.statfs(root, &stat); err != nil {
			return runtime.DiskUse{}, fmt.Errorf("use of the disk of %s: %w", root, err)
		}
		used := int64(stat.Blocks-stat.Bfree) * stat.Bsize
		use := runtime.DiskUse{Used: used, Total: used + free(&stat)}
		if fullest.Total == 0 || float64(use.Used)/float64(max(use.Total, 1)) > float64(fullest.Used)/float64(fullest.Total) {
			fullest = use
		}
	}
	return fullest, nil
}

func free(stat *unix.Statfs_t) int64 { return int64(stat.Bavail) * stat.Bsize }

// take counts a file of the archive, before it is read.
func (m *room) take(size int64) error {
	if size > m.left {
		return m.tooMuch("the archive's files have")
	}
	m.left -= size
	return m.check(size)
}

// check says whether the disks can take so many bytes more.
func (m *room) check(more int64) error {
	for _, disk := range m.disks {
		var stat unix.Statfs_t
		if err := m.statfs(disk.path, &stat); err != nil {
			return fmt.Errorf("free space of %s: %w", disk.path, err)
		}
		now := free(&stat)
		if now-more < disk.reserve {
			return fmt.Errorf("%w: %s has %d MiB free, of which %d MiB are kept; remove images that aren't needed, or other files",
				runtime.ErrNoSpace, disk.path, now/mib, disk.reserve/mib)
		}
		if disk.atStart-now > m.max && (m.taken == nil || m.taken() > m.max) {
			return m.tooMuch("unpacked, its layers take")
		}
	}
	return nil
}

func (m *room) tooMuch(what string) error {
	return fmt.Errorf("%w: %s more than the %d bytes that one import may take", runtime.ErrInvalid, what, m.max)
}

// watch gives a context that ends, with the reason as its cause, when the room is
// used up. stop must be called.
func (m *room) watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(roomTick)
		defer ticker.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case <-ticker.C:
				if err := m.check(0); err != nil {
					cancel(err)
				}
			}
		}
	}()
	return watched, func() {
		cancel(nil)
		<-done
	}
}

// diskFull knows the kernel's words, which come back from containerd as text.
func diskFull(err error) bool {
	return strings.Contains(err.Error(), unix.ENOSPC.Error()) || strings.Contains(err.Error(), unix.EDQUOT.Error())
}
