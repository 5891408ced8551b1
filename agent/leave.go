package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/workspace"
)

// detach takes the run's network away. Its container is gone.
func (w *worker) detach(ctx context.Context, in input) {
	a := w.agent
	a.cfg.Crash(crashBeforeDetach)
	if err := a.cfg.Networks.Detach(ctx, w.run); err != nil {
		w.withhold(in, "detach the network", "its network can't be taken away", err)
		return
	}
	a.cfg.Crash(crashAfterDetach)
	w.failures, w.progress.withheld = 0, 0
	w.progress.attached, w.progress.prepared = false, nil
	w.left()
}

// unmount lets go of the run's volume, unless another run has it by now: then it
// is that one's. Giving unused blocks back may take a while.
func (w *worker) unmount(ctx context.Context, in input) {
	a, id := w.agent, w.progress.mounted
	if a.uses.take(w.run, useVolume(id)) == "" {
		ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
		defer cancel()
		a.cfg.Crash(crashBeforeUnmount)
		if err := a.cfg.Volumes.Unmount(ctx, id); err != nil {
			w.withhold(in, "unmount the volume", fmt.Sprintf("its volume %s can't be unmounted", id), err)
			return
		}
		a.cfg.Crash(crashAfterUnmount)
	}
	w.failures, w.progress.withheld = 0, 0
	w.progress.mounted, w.progress.prepared = "", nil
	w.left()
}

// left lets the next run have what this one had, once it has nothing any more.
func (w *worker) left() {
	if !w.progress.attached && w.progress.mounted == "" {
		w.agent.letGo(w.run)
	}
}

// release gives the run's devices back: its container and cgroup are gone, and
// the driver shows nothing of it.
func (w *worker) release(ctx context.Context, in input) {
	a := w.agent
	a.cfg.Crash(crashBeforeRelease)
	releases := w.releases(in)
	if len(releases) > 0 {
		if err := a.unused(ctx, w.run, releases); err != nil {
			w.withhold(in, "release the devices", "its devices can't be given back", err)
			return
		}
	}
	w.failures = 0
	a.ledger.free(w.run)
	w.progress.released = true
	if len(releases) > 0 {
		a.reports.add(workspace.Report{Released: releases})
	}
}

// releases lists the devices that the run still has.
func (w *worker) releases(in input) []workspace.Release {
	if in.assignment != nil {
		return releasesOf(w.run, in.assignment.Epoch, in.assignment.Devices)
	}
	return w.progress.orphaned
}

// withhold tries again later, and says so when it has lasted: the devices stay
// held until then.
func (w *worker) withhold(in input, what, message string, err error) {
	p, now := &w.progress, w.agent.cfg.Boottime()
	if p.withheld == 0 {
		p.withheld = now
	}
	w.retryLater(what, err)
	message = fmt.Sprintf("%s, which is tried again: %s", message, w.redact(err))
	releases := w.releases(in)
	if now-p.withheld < killPatience || len(releases) == 0 || p.withheldBy == message {
		return
	}
	p.withheldBy = message
	for i := range releases {
		releases[i].Stuck, releases[i].Message = true, message
	}
	w.agent.reports.add(workspace.Report{Released: releases})
}

// unused fails while the driver shows a process of the run on one of its
// devices, or doesn't answer.
func (a *Agent) unused(ctx context.Context, run string, releases []workspace.Release) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	processes, err := a.cfg.GPU.Processes(ctx)
	if err != nil {
		return fmt.Errorf("the driver doesn't say who uses them: %w", err)
	}
	var users []string
	for _, p := range processes {
		if !slices.ContainsFunc(releases, func(r workspace.Release) bool { return r.Device == p.UUID }) {
			continue
		}
		if is, ok := a.cfg.ProcessOf(p.PID); ok && strings.Contains(is.Cgroup, run) {
			users = append(users, fmt.Sprintf("process %d (%s) on %s", p.PID, is.Command, p.UUID))
		}
	}
	if len(users) > 0 {
		return errors.New("the run has ended, and the driver still shows " + strings.Join(users, ", "))
	}
	return nil
}
