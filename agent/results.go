package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/runtime"
	"berth/workspace"
)

// expire deletes the result data that the cluster orders to delete, and says
// which is gone. reported is what was said already, of each run; "" stands for
// gone.
func (a *Agent) expire(ctx context.Context, reported map[string]string) {
	a.mu.Lock()
	orders := a.expiries
	a.mu.Unlock()
	for run := range reported {
		if !slices.ContainsFunc(orders, func(c workspace.ResultClaim) bool { return c.Run == run }) {
			delete(reported, run)
		}
	}
	for _, claim := range orders {
		before, told := reported[claim.Run]
		if told && before == "" || ctx.Err() != nil {
			continue
		}
		err := a.deleteResults(ctx, claim)
		if err == nil {
			a.cfg.Crash(crashAfterResults)
			reported[claim.Run] = ""
			a.reports.add(workspace.Report{Expired: []string{claim.Run}})
			continue
		}
		if reported[claim.Run] = err.Error(); before != err.Error() {
			a.warn("the results of a run can't be deleted yet; it will be tried again", err, "run", claim.Run, "volume", claim.Volume)
		}
	}
}

// deleteResults removes a run's output and its directory of results. What is
// gone already is no error.
func (a *Agent) deleteResults(ctx context.Context, claim workspace.ResultClaim) error {
	if claim.Run == "" || claim.Run != filepath.Base(claim.Run) || strings.HasPrefix(claim.Run, ".") {
		return fmt.Errorf("%q is no run's id", claim.Run)
	}
	if a.hasContainer(claim.Run) {
		return errors.New("its container is still there")
	}
	if claim.Volume != "" {
		if err := a.deleteFromVolume(ctx, claim); err != nil {
			return fmt.Errorf("on volume %s: %w", claim.Volume, err)
		}
		a.cfg.Crash(crashInResults)
	}
	return a.deleteOutput(claim.Run)
}

// hasContainer: something may still write what is to be deleted.
func (a *Agent) hasContainer(run string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, assignment := a.workers[run], a.assignments[run]
	return a.containers[run] != "" || w != nil && w.known != "" || assignment != nil && !assignment.Phase.Terminal()
}

// deleteOutput removes the log of a run and those that were put aside for it.
func (a *Agent) deleteOutput(run string) error {
	dir := filepath.Join(a.cfg.Dir, "logs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name == run+".log" || strings.HasPrefix(name, run+".log.") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// deleteFromVolume removes runs/<run>. A volume that a run has is left as it is
// mounted; any other is mounted for this, and no run gets it meanwhile.
func (a *Agent) deleteFromVolume(ctx context.Context, claim workspace.ResultClaim) error {
	volume, err := a.volume(ctx, claim.Volume)
	if volume == nil {
		return err // nil: it is gone
	}
	user := a.uses.take(usedByResults, useVolume(claim.Volume))
	if user != "" {
		if !volume.Mounted {
			return fmt.Errorf("%s is about to mount it, or let go of it", user)
		}
		return a.deleteMounted(ctx, claim, volume.Path)
	}
	defer a.letGo(usedByResults)
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	dir, err := a.cfg.Volumes.Mount(ctx, runtime.VolumeSpec{ID: volume.ID, SizeMiB: volume.SizeMiB})
	if err != nil {
		return err
	}
	err = a.deleteMounted(ctx, claim, dir)
	return errors.Join(err, a.cfg.Volumes.Unmount(ctx, volume.ID))
}

// volume is one of this host; nil without an error: there is none.
func (a *Agent) volume(ctx context.Context, id string) (*runtime.Volume, error) {
	list, err := a.cfg.Volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil
		}
	}
	return nil, nil
}

// deleteMounted removes runs/<run> of a volume that is mounted at dir. While its
// root is open nobody can unmount it; a directory that nothing is mounted on any
// more, or not yet, must not pass for it.
func (a *Agent) deleteMounted(ctx context.Context, claim workspace.ResultClaim, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	volume, err := a.volume(ctx, claim.Volume)
	if err != nil {
		return err
	}
	opened, err := root.Stat(".")
	if err != nil {
		return err
	}
	if there, err := os.Stat(dir); err != nil || volume == nil || !volume.Mounted || !os.SameFile(opened, there) {
		return errors.Join(errors.New("it was unmounted meanwhile"), err)
	}
	if all, err := root.Lstat(resultsDir); errors.Is(err, fs.ErrNotExist) || err == nil && !all.IsDir() {
		return nil // a link leads to what isn't results
	}
	return root.RemoveAll(path.Join(resultsDir, claim.Run))
}
