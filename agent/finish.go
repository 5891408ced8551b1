package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"berth/runtime"
	"berth/workspace"
)

func (w *worker) term(ctx context.Context, in input) {
	a := w.agent
	a.cfg.Crash(crashBeforeTerm)
	err := a.cfg.Runtime.Signal(ctx, w.run, int(syscall.SIGTERM))
	switch {
	case errors.Is(err, runtime.ErrNotRunning):
		// Ended meanwhile, or its processes live and nobody is left to pass
		// TERM on: then the kill after the grace ends them.
		w.stale = true
	case err != nil:
		w.stale = true
		w.retryLater("send TERM", err)
		return
	}
	w.failures = 0
	w.progress.termed = a.cfg.Boottime()
	a.cfg.Crash(crashAfterTerm)
	w.report(in, workspace.PhaseStopping, stopReason(in.assignment),
		fmt.Sprintf("asked to end (TERM); killed after %s", graceOf(in.assignment)))
}

// kill ends every process of the container's cgroup. What then is left shows
// in the next look at it.
func (w *worker) kill(ctx context.Context) {
	a := w.agent
	a.cfg.Crash(crashBeforeKill)
	if err := w.sigkill(ctx); err != nil {
		w.stale = true
		w.retryLater("kill", err)
		return
	}
	w.failures = 0
	a.cfg.Crash(crashAfterKill)
}

// triedToEnd notes the first time, and when the next is due.
func (w *worker) triedToEnd() {
	now, p := w.agent.cfg.Boottime(), &w.progress
	if p.killed == 0 {
		p.killed = now
	}
	p.killNext = now + killPatience
}

// sigkill sends SIGKILL to the cgroup. It may last until all processes are
// gone, or for killPatience.
func (w *worker) sigkill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	w.triedToEnd()
	w.agent.stats.kills.Add(1)
	return w.agent.cfg.Runtime.Kill(ctx, w.run)
}

// remove deletes a container without a live process, once how it ended is kept
// on disk. Its error is one of the disk.
func (w *worker) remove(ctx context.Context, next action, in input) error {
	a := w.agent
	if next.end != nil {
		if err := a.ledger.keepEnd(*next.end); err != nil {
			return err
		}
	}
	w.progress.end = next.end
	a.cfg.Crash(crashBeforeDelete)
	if err := a.cfg.Runtime.Delete(ctx, w.run); err != nil {
		w.deleteFailed(ctx, err)
		return nil
	}
	w.failures = 0
	if in.assignment == nil {
		from, _ := originOf(w.container)
		w.progress.orphaned = releasesOf(w.run, from.epoch, from.devices)
		a.stats.reaped.Add(1)
	}
	w.setContainer(nil)
	a.cfg.Crash(crashAfterDelete)
	return nil
}

// deleteFailed kills what may be left in the cgroup of a process that has
// ended. A container that wasn't started isn't killed: that would look as if
// its process had run.
func (w *worker) deleteFailed(ctx context.Context, err error) {
	w.stale = true
	if w.container.State == runtime.StateExited {
		if kill := w.sigkill(ctx); kill != nil {
			err = fmt.Errorf("%w (and to kill it: %w)", err, kill)
		}
	} else {
		w.triedToEnd()
	}
	w.retryLater("delete", err)
}

func (w *worker) reportEnd(end *workspace.RunReport) {
	w.progress.end, w.progress.endSent = end, true
	w.progress.phase, w.progress.reason = end.Phase, end.Reason
	w.agent.stats.ends.Add(1)
	w.agent.reports.add(workspace.Report{Runs: []workspace.RunReport{*end}})
}

// release gives the run's devices back: its container and cgroup are gone.
func (w *worker) release(in input) {
	w.agent.cfg.Crash(crashBeforeRelease)
	w.agent.ledger.free(w.run)
	w.progress.released = true
	releases := w.progress.orphaned
	if a := in.assignment; a != nil {
		releases = releasesOf(w.run, a.Epoch, a.Devices)
	}
	if len(releases) > 0 {
		w.agent.reports.add(workspace.Report{Released: releases})
	}
}

// reportStuck ends a run whose processes SIGKILL doesn't end, and says that its
// devices can't be given back. The agent keeps trying.
func (w *worker) reportStuck(in input) {
	message := fmt.Sprintf("its processes are still there %s after KILL (waiting in the kernel, for a failed device or disk?); "+
		"the devices stay held until they are gone or the host is restarted", killPatience)
	w.progress.stuck = true
	from, _ := originOf(w.container)
	releases := releasesOf(w.run, from.epoch, from.devices)
	for i := range releases {
		releases[i].Stuck, releases[i].Message = true, message
	}
	if a := in.assignment; a != nil && !a.Phase.Terminal() {
		w.progress.end, w.progress.endSent = endWith(a, workspace.PhaseFailed, reasonUnkillable, message), true
		w.agent.stats.ends.Add(1)
		w.agent.reports.add(workspace.Report{Runs: []workspace.RunReport{*w.progress.end}, Released: releases})
		return
	}
	w.agent.reports.add(workspace.Report{Released: releases})
}

// quarantine leaves a container that may be somebody's running, and shows it.
func (w *worker) quarantine(reason string) {
	w.progress.quarantine = reason
	from, _ := originOf(w.container)
	w.agent.cfg.Log.Warn("a container has no run here; it is left running until an operator ends it",
		"container", w.run, "reason", reason, "cluster", from.cluster)
	w.agent.setOrphan(w.run, &workspace.Orphan{
		Container: w.run, Cluster: from.cluster, Epoch: from.epoch, Devices: uuidsOf(from.devices), Reason: reason,
	})
}
