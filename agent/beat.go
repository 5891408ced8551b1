package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"berth/workspace"
)

const (
	beatTimeout   = 2 * workspace.BeatEvery
	beatWarnEvery = 5 * time.Minute  // while the cluster takes none
	livedEvery    = 30 * time.Second // between times that are written down
)

// shown is what a worker shows of its run's process to the beat. Agent.mu.
type shown struct {
	started int64  // as in life, of this boot; 0: it hasn't
	lived   int64  // ms, for certain
	pid     int    // 0: it has ended, or isn't known to live
	end     int64  // of its lease, as the guard holds it; 0: none
	since   uint64 // its start as the kernel has it, so that no other is taken for it
}

// beat tells the cluster every now and then that this node is there and how long
// the processes of its runs have lived, until ctx ends. What it writes down is
// for the case that nobody else knows how long one lived.
func (a *Agent) beat(ctx context.Context) error {
	var warned, kept time.Duration
	for ctx.Err() == nil {
		b, now := a.lifeSigns(), a.cfg.Boottime()
		if kept == 0 || now >= kept+livedEvery {
			kept = now
			a.keepLived(b.Runs)
		}
		if err := a.sendBeat(ctx, b); err == nil {
			warned = 0
		} else if warned == 0 || now >= warned+beatWarnEvery {
			warned = now
			a.warn("the cluster takes no sign of life of this node; leases aren't renewed while that lasts, and it is tried again", err)
		}
		sleep(ctx, workspace.BeatEvery, a.beatNow)
	}
	a.keepLived(a.lifeSigns().Runs)
	return nil
}

func (a *Agent) sendBeat(ctx context.Context, b workspace.Beat) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	return a.cfg.Cluster.Beat(ctx, b)
}

// lifeSigns are the live runs and how long each process has lived by now.
func (a *Agent) lifeSigns() workspace.Beat {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := workspace.Beat{Node: a.cfg.Node, Stamp: a.stamp()}
	for _, run := range slices.Sorted(maps.Keys(a.workers)) {
		if assignment := a.assignments[run]; assignment == nil || assignment.Phase.Terminal() {
			continue
		}
		w := a.workers[run]
		b.Runs = append(b.Runs, workspace.Livedness{Run: run, LivedMS: a.livedBy(w, b.Stamp.BoottimeMS), EndMS: w.shown.end})
	}
	return b
}

// livedBy is how long a worker's process has lived at a moment that isn't over
// yet when it is still there after it.
func (a *Agent) livedBy(w *worker, at int64) int64 {
	s := &w.shown
	if s.started == 0 || s.pid == 0 {
		return s.lived
	}
	if since, err := a.cfg.ProcessStart(s.pid); err == nil && since == s.since {
		s.lived = max(s.lived, at-s.started)
	}
	return s.lived
}

// show lets the beat see the run's process as the worker knows it, and learns
// from it how long the process was seen to live.
func (w *worker) show() {
	a, l := w.agent, &w.progress.life
	a.mu.Lock()
	defer a.mu.Unlock()
	l.Lived = max(l.Lived, w.shown.lived)
	next := shown{lived: l.Lived}
	if l.BootID == a.cfg.BootID && !w.progress.unguarded {
		next.end = l.Lease.Kill
	}
	if l.BootID == a.cfg.BootID && l.Started != 0 {
		next.started = l.Started
		next.pid, next.since = w.shown.pid, w.shown.since
		switch {
		case w.container == nil || w.container.Pid == 0:
			next.pid = 0
			if w.progress.exited != 0 { // better known than by the last look
				next.lived = max(0, w.progress.exited-l.Started)
			}
		case w.container.Pid != w.shown.pid:
			since, err := a.cfg.ProcessStart(w.container.Pid)
			if next.pid, next.since = w.container.Pid, since; err != nil {
				next.pid = 0
			}
		}
	}
	w.shown = next
}

// keepLived writes down how long runs have lived. That it can't be is no reason
// to end: nothing but the time of a run whose end nobody saw depends on it.
func (a *Agent) keepLived(runs []workspace.Livedness) {
	if err := a.ledger.keepLived(runs); err != nil {
		a.warn("how long runs have lived can't be kept on disk", err)
	}
}
