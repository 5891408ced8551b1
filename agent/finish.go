package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// term asks the container's process to end. The grace counts from the first
// try, and is kept on disk: neither a runtime that is away nor a restart of the
// daemon gives the run more of it. Its error is one of the disk.
func (w *worker) term(ctx context.Context, in input) error {
	a, p, grace := w.agent, &w.progress, graceOf(in.assignment)
	if p.termed == 0 {
		if p.end != nil { // an agent after this one would take what it finds running for what it should be
			if err := a.ledger.keepEnd(*p.end); err != nil {
				return err
			}
		}
		if err := a.ledger.keepStop(w.run, a.stamp()); err != nil {
			return err
		}
		p.termed = a.cfg.Boottime()
	}
	a.cfg.Crash(crashBeforeTerm)
	w.noticeStop(in)
	if w.guardGrace(ctx, w.input()) {
		w.asked(in)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := a.cfg.Runtime.Signal(ctx, w.run, int(syscall.SIGTERM))
	w.stale = w.stale || err != nil
	if err != nil && !errors.Is(err, runtime.ErrNotRunning) {
		w.tell(in, workspace.PhaseStopping, reasonTermFailed,
			fmt.Sprintf("it can't be asked to end (TERM); killed after %s all the same: %s", grace, w.redact(err)))
		w.retryLater("send TERM", err)
		p.retryAt = min(p.retryAt, w.killAt())
		return nil
	}
	// ErrNotRunning: ended meanwhile, or its processes live and nobody is left
	// to pass TERM on: then the kill after the grace ends them.
	w.asked(in)
	return nil
}

// asked goes on from TERM that was sent.
func (w *worker) asked(in input) {
	w.failures = 0
	w.progress.termSent = true
	w.agent.cfg.Crash(crashAfterTerm)
	reason, message := w.whyStopping(in)
	w.tell(in, workspace.PhaseStopping, reason, message)
}

// whyStopping is why the run has to end, for its user.
func (w *worker) whyStopping(in input) (reason, message string) {
	p := &w.progress
	left := min(graceOf(in.assignment), w.killAt()-p.termed).Round(time.Second)
	reason, message = stopReason(in.assignment), fmt.Sprintf("asked to end (TERM); killed after %s", left)
	if p.end != nil {
		reason, message = p.end.Reason, p.end.Message+"; "+message
	}
	return reason, message
}

// noticeStop tells the container why it is asked to end, and when it is killed.
func (w *worker) noticeStop(in input) {
	reason, message := w.whyStopping(in)
	w.putNotice(notice{
		Warnings: in.assignment.Warnings, Stopping: &stopping{Reason: reason, Message: message, KillAt: w.wallClock(w.killAt())},
	}.text())
}

// kill sends SIGKILL to every process of the container's cgroup. It may last
// until all are gone, or for killPatience. What then is left shows in the next
// look at it; a runtime that can't be asked makes no difference: Kill has said
// that nothing is left.
func (w *worker) kill(ctx context.Context, in input) {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	a, p, now := w.agent, &w.progress, w.agent.cfg.Boottime()
	if p.killed == 0 {
		p.killed = now
	}
	p.killNext = now + killPatience
	a.cfg.Crash(crashBeforeKill)
	a.stats.kills.Add(1)
	err := a.cfg.Runtime.Kill(ctx, w.run)
	w.stale = true
	if err != nil {
		w.retryLater("kill", err)
		return
	}
	w.failures = 0
	a.cfg.Crash(crashAfterKill)
	c := *w.container
	c.State, c.Pid, c.Exit = runtime.StateExited, 0, runtime.Exit{At: time.Now()}
	p.exited = a.cfg.Boottime().Milliseconds()
	w.setContainer(&c)
	if in.blind {
		w.explain(in, reasonKilled, "all its processes are killed; its end is recorded once the container runtime answers")
	}
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
		w.deleteFailed(in, err)
		return nil
	}
	w.failures = 0
	w.unguard(ctx)
	a.dropNotice(w.run)
	if in.assignment == nil {
		from, _ := originOf(w.container)
		w.progress.orphaned = releasesOf(w.run, from.epoch, from.devices)
		a.stats.reaped.Add(1)
	}
	w.setContainer(nil)
	a.cfg.Crash(crashAfterDelete)
	return nil
}

// deleteFailed says why a container without a live process stays. Its devices
// stay held until it is gone.
func (w *worker) deleteFailed(in input, err error) {
	p := &w.progress
	w.stale = true
	if p.undeleted == 0 {
		p.undeleted = w.agent.cfg.Boottime()
	}
	p.obstacle = w.redact(err).Error()
	w.explain(in, reasonUndeleted, "no process of it is left, but its container can't be removed, which is tried again: "+p.obstacle)
	w.retryLater("delete", err)
}

func (w *worker) reportEnd(end *workspace.RunReport) {
	w.progress.end, w.progress.endSent = end, true
	w.progress.phase, w.progress.reason = end.Phase, end.Reason
	w.agent.stats.ends.Add(1)
	w.agent.reports.add(workspace.Report{Runs: []workspace.RunReport{*end}})
}

// reportStuck ends a run whose processes SIGKILL doesn't end, and says that its
// devices can't be given back. An end decided before stands. The agent keeps
// trying.
func (w *worker) reportStuck(in input) {
	message := fmt.Sprintf("its processes are still there %s after KILL (waiting in the kernel, for a failed device or disk?); "+
		"the devices stay held until they are gone or the host is restarted", killPatience)
	p := &w.progress
	p.stuck = true
	if a := in.assignment; a != nil && !a.Phase.Terminal() && !p.endSent {
		end := p.end
		if end == nil {
			end = endWith(a, workspace.PhaseFailed, reasonUnkillable, message)
		}
		stuck := *end
		stuck.LivedMS = in.livedMS()
		w.reportEnd(&stuck)
	}
	from, _ := originOf(w.container)
	releases := releasesOf(w.run, from.epoch, from.devices)
	for i := range releases {
		releases[i].Stuck, releases[i].Message = true, message
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

// killAt is when the grace of the run is over.
func (w *worker) killAt() time.Duration {
	in := w.input()
	return in.killAt()
}
