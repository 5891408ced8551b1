package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/workspace"
)

// Between rounds of what nothing waits for.
const (
	houseEvery  = 30 * time.Second
	imagesEvery = 5 * time.Minute
	logsEvery   = time.Hour
)

// keepHouse takes away what nobody needs any more, until ctx ends: leftovers of
// a crash, volumes and results that are to be deleted, old logs, images when the
// disk gets full.
func (a *Agent) keepHouse(ctx context.Context) error {
	var images, logs time.Duration // when they were looked at last
	purged := map[string]string{}  // volume → what was reported of it
	expired := map[string]string{} // run → likewise of its results
	for ctx.Err() == nil {
		if a.bothHeard() {
			a.sweep(ctx)
			a.sweepGuard(ctx)
			a.sweepNotices()
			a.repairNetworks(ctx)
			a.purge(ctx, purged)
			a.expire(ctx, expired)
			now := a.cfg.Boottime()
			if logs == 0 || now >= logs+logsEvery {
				logs = now
				a.removeLogs()
			}
			if images == 0 || now >= images+imagesEvery {
				images = now
				a.removeImages(ctx)
			}
		}
		sleep(ctx, houseEvery, a.houseNow)
	}
	return nil
}

// bothHeard: what is wanted and what is there are known. Before, everything
// would look left over.
func (a *Agent) bothHeard() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.viewed && a.listed
}

// sweep takes away attachments and mounts that belong to nothing here: a crash,
// or a boot of the host, left them. What a container has, of whatever state, is
// in use; data of a volume stays.
func (a *Agent) sweep(ctx context.Context) {
	defer a.letGo(usedBySweep)
	attached, err := a.cfg.Networks.List(ctx)
	if err != nil {
		a.warn("the networks of this host can't be listed", err)
	}
	for _, id := range attached {
		if a.looksAfter(id) || a.uses.take(usedBySweep, useNetwork(id)) != "" {
			continue
		}
		if err := a.cfg.Networks.Detach(ctx, id); err != nil {
			a.warn("a network that was left over can't be taken away; it will be tried again", err, "network", id)
		}
		a.uses.drop(usedBySweep)
	}
	volumes, err := a.cfg.Volumes.List(ctx)
	if err != nil {
		a.warn("the volumes of this host can't be listed", err)
	}
	for _, volume := range volumes {
		if !volume.Mounted || a.uses.take(usedBySweep, useVolume(volume.ID)) != "" {
			continue
		}
		if err := a.cfg.Volumes.Unmount(ctx, volume.ID); err != nil {
			a.warn("a volume that was left mounted can't be unmounted; it will be tried again", err, "volume", volume.ID)
		}
		a.uses.drop(usedBySweep)
	}
}

// looksAfter: a run or container of that id is somebody's here.
func (a *Agent) looksAfter(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[id] != nil || a.assignments[id] != nil || a.containers[id] != ""
}

func (a *Agent) repairNetworks(ctx context.Context) {
	missing, err := a.cfg.Networks.Repair(ctx)
	if err != nil {
		a.warn("the rules of the containers' networks can't be checked", err)
	}
	if len(missing) > 0 {
		a.cfg.Log.Warn("rules of the containers' networks were missing and are put back; something else on this host removes them",
			"missing", strings.Join(missing, ", "))
	}
}

// purge deletes the volumes that the cluster orders to delete, and says what
// became of each. reported is what was said of them already.
func (a *Agent) purge(ctx context.Context, reported map[string]string) {
	const gone = "gone"
	a.mu.Lock()
	orders := a.purges
	a.mu.Unlock()
	for id := range reported {
		if !slices.Contains(orders, id) {
			delete(reported, id)
		}
	}
	for _, id := range orders {
		if reported[id] == gone {
			continue
		}
		message := gone
		if other := a.uses.take(usedByPurge, useVolume(id)); other != "" {
			message = "it is still in use by " + other
		} else if err := a.cfg.Volumes.Remove(ctx, id); err != nil {
			message = "it can't be deleted yet, which is tried again: " + err.Error()
			a.warn("a volume can't be deleted; it will be tried again", err, "volume", id)
		}
		a.letGo(usedByPurge)
		if ctx.Err() != nil || reported[id] == message {
			continue
		}
		reported[id] = message
		report := workspace.VolumeReport{ID: id, Gone: message == gone}
		if !report.Gone {
			report.Message = message
		}
		a.reports.add(workspace.Report{Volumes: []workspace.VolumeReport{report}})
	}
}

// removeLogs deletes the output of runs that ended long ago.
func (a *Agent) removeLogs() {
	if a.cfg.KeepLogs == 0 {
		return
	}
	dir := filepath.Join(a.cfg.Dir, "logs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		a.warn("the logs of runs can't be listed", err)
	}
	for _, entry := range entries {
		run, ours := strings.CutSuffix(strings.TrimSuffix(entry.Name(), ".1"), ".log")
		info, err := entry.Info()
		if !ours || err != nil || time.Since(info.ModTime()) < a.cfg.KeepLogs || a.looksAfter(run) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			a.warn("an old log can't be removed", err)
		}
	}
}
