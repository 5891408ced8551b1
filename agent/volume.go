package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"berth/runtime"
	"berth/workspace"
)

// errNoImageUser: nobody can say whom a new volume is for.
var errNoImageUser = errors.New("the image's user can't be read")

// errVolumeLost: the cluster says that it is on this disk, and it isn't.
var errVolumeLost = errors.New("it isn't on the disk any more")

// resultsDir is the directory of a volume that holds results, by run.
const resultsDir = "runs"

// mount makes sure that the run's volume is there, the one it has, and mounted.
func (w *worker) mount(ctx context.Context, a *workspace.Assignment, image string, on *prepared) *failure {
	id := volumeOf(a)
	if id == "" {
		return nil
	}
	err := w.mountIt(ctx, a, image, on)
	if err == nil {
		w.agent.cfg.Crash(crashAfterMount)
		return nil
	}
	node := w.agent.cfg.Facts.Name
	f := &failure{err: err, reason: reasonVolume, message: fmt.Sprintf("volume %s can't be mounted on node %s", id, node)}
	switch {
	case errors.Is(err, errVolumeLost):
		w.agent.reports.add(workspace.Report{Volumes: []workspace.VolumeReport{{ID: id, Gone: true}}})
		f.final, f.reason = true, workspace.ReasonVolumeLost
		f.message = fmt.Sprintf("volume %s of node %s is lost, and an empty one isn't made in its place", id, node)
	case errors.Is(err, runtime.ErrNoSpace):
		f.final, f.reason = true, reasonNoSpace
		f.message = fmt.Sprintf("the disk of node %s has no room for volume %s of %d MiB", node, id, a.Volume.SizeMiB)
	case errors.Is(err, runtime.ErrCorrupt):
		f.final, f.reason = true, reasonVolumeBad
		f.message = fmt.Sprintf("volume %s on node %s can't be used; an operator has to look at it, nothing of it was changed", id, node)
	case errors.Is(err, runtime.ErrInvalid):
		f.final = true
	}
	return f
}

func (w *worker) mountIt(ctx context.Context, a *workspace.Assignment, image string, on *prepared) error {
	volumes := w.agent.cfg.Volumes
	if a.Volume.Made {
		list, err := volumes.List(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(v runtime.Volume) bool { return v.ID == a.Volume.ID }) {
			return errVolumeLost
		}
	}
	user, err := w.agent.imageUser(ctx, image, a.Spec.ImageDigest)
	if err != nil {
		return err
	}
	dir, err := volumes.Mount(ctx, runtime.VolumeSpec{ID: a.Volume.ID, SizeMiB: a.Volume.SizeMiB, Owner: user})
	if err != nil {
		return err
	}
	if !a.Volume.Made {
		w.agent.reports.add(workspace.Report{Volumes: []workspace.VolumeReport{{ID: a.Volume.ID, Made: true}}})
	}
	on.volume = dir
	results, err := makeResults(dir, w.run, user)
	if err != nil { // a full volume, or a file in the way: the user has to get in to do something about it
		w.agent.warn("a run has no directory for its results", err, "run", w.run, "volume", a.Volume.ID)
	}
	on.results = results
	return nil
}

// makeResults makes the directory of a run's results and gives it to the image's
// user. What a container has put on the volume leads nowhere else.
func makeResults(volume, run string, user runtime.User) (string, error) {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	dir := path.Join(resultsDir, run)
	for _, name := range []string{resultsDir, dir} {
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = root.Lchown(name, int(user.UID), int(user.GID))
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

// imageUser is who the processes of an image run as. An image never changes, so
// each is asked once.
func (a *Agent) imageUser(ctx context.Context, reference, digest string) (runtime.User, error) {
	if user, ok := a.users.Load(digest); ok && digest != "" {
		return user.(runtime.User), nil
	}
	user, err := a.cfg.Runtime.ImageUser(ctx, reference)
	if err != nil {
		return user, fmt.Errorf("%w: %w", errNoImageUser, err)
	}
	a.users.Store(digest, user)
	return user, nil
}
