package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// errNoDevices: the runtime doesn't know this host's devices yet.
var errNoDevices = errors.New("this host's devices aren't known yet")

// carryOut does one action. What it finds becomes the next step's input; its
// error is one of the disk, fatal to the agent.
func (w *worker) carryOut(ctx context.Context, next action, in input) error {
	act, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	switch next.do {
	case doPull:
		w.pull(ctx, act, in)
	case doClaim:
		return w.claim(in)
	case doPrepare:
		return w.prepare(ctx, in)
	case doAsk:
		w.ask(ctx, in)
	case doCreate:
		w.create(act, in)
	case doAwaitLease:
		w.waitForLease(in)
	case doGuard:
		return w.guardEnd(act, in)
	case doStart:
		return w.start(ctx, act, in)
	case doAdopt:
		return w.adopt(ctx, in)
	case doConsult:
		w.consult(act, in)
	case doNotice:
		w.putNotice(noticeOf(in.assignment))
	case doExpire:
		w.agent.cfg.Crash(crashBeforeExpiry)
		w.progress.end = in.expiry()
	case doProbe:
		w.probe(ctx, in)
	case doTerm:
		return w.term(act, in)
	case doKill:
		w.kill(act, in)
	case doStuck:
		w.reportStuck(in)
	case doDelete:
		return w.remove(act, next, in)
	case doEnd:
		w.reportEnd(next.end)
	case doDetach:
		w.detach(act, in)
	case doUnmount:
		w.unmount(ctx, in)
	case doRelease:
		w.release(act, in)
	case doQuarantine:
		w.quarantine(next.reason)
	}
	return nil
}

func (w *worker) claim(in input) error {
	if len(in.assignment.Devices) > 0 && !w.agent.equipped.Load() {
		w.explain(in, reasonGPUDown, "the node's GPUs can't be read; the run starts when they can")
		w.retryLater("take devices", errNoDevices)
		return nil
	}
	err := w.agent.ledger.claim(in.assignment)
	var busy *busyError
	var stale *staleError
	switch {
	case errors.As(err, &busy):
		w.explain(in, reasonDeviceBusy, busy.Error())
		w.retryLater("take devices", busy)
	case errors.As(err, &stale):
		w.progress.end = endWith(in.assignment, workspace.PhaseFailed, reasonStaleEpoch, stale.Error())
	case err != nil:
		return err
	default:
		w.failures = 0
		w.progress.claimed = true
	}
	return nil
}

// ask puts the question that allows a start, or the end of an orphan. An
// answer later than its window is worth nothing, so no more is waited for.
func (w *worker) ask(ctx context.Context, in input) {
	a := w.agent
	if in.assignment != nil {
		a.cfg.Crash(crashBeforeGoAhead)
	}
	ctx, cancel := context.WithTimeout(ctx, workspace.GoAheadWindow)
	defer cancel()
	w.progress.asked = a.cfg.Boottime()
	answer, err := a.cfg.Cluster.GoAhead(ctx, w.run, a.stamp())
	if err != nil {
		w.progress.answer = nil
		w.retryLater("ask for the go-ahead", err)
		return
	}
	a.stats.goAheads.Add(1)
	w.progress.answer = &answer
	if in.assignment == nil && answer.Ended || answer.Start {
		w.failures = 0
	} else {
		w.retryLater("ask for the go-ahead", fmt.Errorf("not now: %s", answer.Reason))
	}
	if in.assignment != nil {
		a.cfg.Crash(crashAfterGoAhead)
	}
}

func (w *worker) create(ctx context.Context, in input) {
	a := w.agent
	a.cfg.Crash(crashBeforeCreate)
	w.putNotice(noticeOf(in.assignment))
	w.progress.prepared.notices = filepath.Dir(a.noticePath(w.run))
	spec := specOf(in.cluster, w.progress.image, a.LogPath(w.run), in.assignment, w.progress.prepared)
	created, err := a.cfg.Runtime.Create(ctx, spec)
	if err != nil {
		w.progress.prepared = nil // looked at again: somebody may have taken it away
		w.createFailed(in, err)
		return
	}
	w.failures = 0
	w.progress.unguarded = true // what it holds, if anything, is of another container
	w.setContainer(&runtime.Container{
		ID: w.run, Image: spec.Image, Labels: spec.Labels, State: runtime.StateCreated,
		Pid: created.Pid, CgroupPath: created.CgroupPath, CreatedAt: time.Now(),
	})
	a.cfg.Crash(crashAfterCreate)
	w.report(in, workspace.PhaseStarting, reasonStarting, "its container is made")
}

func (w *worker) createFailed(in input, err error) {
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		w.imageGone(in, err)
	case away(err):
		w.stale = true
		w.explain(in, reasonRuntimeDown, "the node's container runtime doesn't answer; the run starts when it does")
		w.retryLater("create", err)
	default:
		// The id may be taken by a container that wasn't seen yet, or by
		// remains that no look will ever show.
		w.stale = errors.Is(err, runtime.ErrExists)
		if w.creations++; w.creations == createAttempts || errors.Is(err, runtime.ErrInvalid) {
			w.progress.end = endWith(in.assignment, workspace.PhaseFailed, reasonCreateFailed,
				"the container can't be made: "+w.redact(err).Error())
			return
		}
		w.retryLater("create", err)
	}
}

// start runs the process. act bounds the call, ctx the watch that follows. Its
// error is one of the disk.
func (w *worker) start(ctx, act context.Context, in input) error {
	a := w.agent
	a.cfg.Crash(crashBeforeStart)
	process, err := a.cfg.Runtime.Start(act, w.run)
	if err != nil {
		w.stale = true
		if away(err) || errors.Is(err, runtime.ErrNotFound) {
			w.retryLater("start", err)
			return nil
		}
		w.progress.end = endWith(in.assignment, workspace.PhaseFailed, reasonStartFailed,
			"the container's command can't be started: "+w.redact(err).Error())
		return nil
	}
	a.stats.starts.Add(1)
	w.adopted = true
	w.failures = 0
	a.cfg.Crash(crashAfterStart)
	c := *w.container
	c.State, c.Pid = runtime.StateRunning, process.Pid
	w.setContainer(&c)
	w.watch(ctx)
	if err := w.begun(process.StartedAt); err != nil {
		return err
	}
	nudge(a.beatNow)
	a.cfg.Crash(crashAfterBegun)
	w.reportRunning(in)
	return nil
}

// reportRunning says that the container runs, unless it has to get ready first.
func (w *worker) reportRunning(in input) {
	if !in.toProbe() {
		w.report(in, workspace.PhaseRunning, reasonRunning, "its container runs"+w.progress.moved)
	}
}

// adopt takes on a container that is running already. Of one that an agent
// started that didn't live to write it down, the runtime knows since when, or
// nobody: then its life counts from now. Its error is one of the disk.
func (w *worker) adopt(ctx context.Context, in input) error {
	w.watch(ctx)
	if in.assignment == nil {
		return nil
	}
	if err := w.begun(w.container.StartedAt); err != nil {
		return err
	}
	if !in.unwanted() {
		if !w.adopted {
			w.adopted = true
			w.agent.stats.adoptions.Add(1)
		}
		w.reportRunning(in)
	}
	return nil
}

// away: the runtime didn't answer, so nobody knows what it did.
func away(err error) bool {
	return errors.Is(err, runtime.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
