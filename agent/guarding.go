package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"berth/agent/guard"
	"berth/runtime"
	"berth/workspace"
)

// Guard ends runs whose time is over, also while this process is paused or dead
// (package guard). A nil error of Set or Stop says that the deadline is stored.
type Guard interface {
	// Set stores an end, not earlier than the one held: guard.ErrEarlier.
	Set(ctx context.Context, d guard.Deadline) error
	// Stop is Set, and may move the end earlier.
	Stop(ctx context.Context, d guard.Deadline) error
	// Clear forgets a run. One that isn't known is no error.
	Clear(ctx context.Context, run string) error
	// List gives what is held and what became of it.
	List(ctx context.Context) ([]guard.Entry, error)
}

// consultAttempts is how often the guard is asked about a run that has ended
// before its end is told without.
const consultAttempts = 5

// graceSlack is how much later than this agent would the guard kills a run at the
// end of its grace: it is for the case that the agent doesn't.
const graceSlack = time.Second

// errNoGuard: this node can't carry out an end.
var errNoGuard = errors.New("no guard runs on this node")

// guardEnd stores the run's end with the guard, then here. Nothing counts before
// it is stored. Its error is one of the disk.
func (w *worker) guardEnd(ctx context.Context, in input) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	a, p := w.agent, &w.progress
	next := p.life
	if next.Started == 0 {
		next.BootID = a.cfg.BootID
	}
	next.Lease, next.Max = in.bounds()
	err := w.storeEnd(ctx, in, &next)
	if errors.Is(err, guard.ErrEarlier) { // more was granted than this agent knows of
		var entry *guard.Entry
		if entry, err = w.entry(ctx); entry != nil {
			next.Lease = bound{Term: entry.Term, Kill: entry.Kill}
		}
	}
	if err != nil {
		w.guardFailed(in, err)
		return nil
	}
	a.cfg.Crash(crashAfterGuard)
	p.unguarded, p.guardTries = false, 0
	w.succeeded()
	if err := w.keepLife(next); err != nil {
		return err
	}
	a.cfg.Crash(crashAfterGuardKept)
	return nil
}

// storeEnd hands the guard the end of a life that is to be.
func (w *worker) storeEnd(ctx context.Context, in input, next *life) error {
	a := w.agent
	if a.cfg.Guard == nil {
		return errNoGuard
	}
	end, _ := next.end()
	if end.Kill == 0 {
		return a.cfg.Guard.Clear(ctx, w.run)
	}
	d, err := w.deadline(end)
	if err != nil {
		return err
	}
	in.progress.life = *next
	d.Notice, d.NoticeText = a.noticePath(w.run), w.noticeAtEnd(&in, end)
	if end.Kill == next.Max.Kill { // once the process has started its end is known better
		return a.cfg.Guard.Stop(ctx, d)
	}
	return a.cfg.Guard.Set(ctx, d)
}

// deadline is an end of the container's processes for the guard.
func (w *worker) deadline(end bound) (guard.Deadline, error) {
	d := guard.Deadline{Run: w.run, BootID: w.agent.cfg.BootID, Term: max(0, end.Term), Kill: max(1, end.Kill), Pid: w.container.Pid}
	var err error
	if d.Started, err = w.agent.cfg.ProcessStart(d.Pid); err == nil {
		d.Cgroups, err = w.agent.cfg.CgroupsOf(d.Pid)
	}
	if err != nil { // it has ended: what is there has to be looked at
		w.stale = true
		return d, fmt.Errorf("the container's cgroups can't be told: %w", err)
	}
	return d, nil
}

// guardFailed tries again later: before a start for a while, afterwards without
// end, while the end that is held goes on.
func (w *worker) guardFailed(in input, err error) {
	a, p := w.agent, &w.progress
	if in.container.State == runtime.StateCreated {
		p.spoiled = errors.Is(err, guard.ErrEnded)
		w.fail(in, "store its end with the guard", &failure{
			reason: reasonNoGuard, err: err, final: errors.Is(err, errNoGuard) || errors.Is(err, guard.ErrInvalid),
			message: "its time is limited, and the guard of node " + a.cfg.Facts.Name + ", which ends it then whatever else fails, hasn't stored its end",
		})
		return
	}
	if errors.Is(err, guard.ErrEnded) {
		p.consulted = false
	}
	w.guardLater(err)
}

func (w *worker) guardLater(err error) {
	p := &w.progress
	p.guardTries++
	p.guardAt = w.agent.cfg.Boottime() + backOff(p.guardTries)
	if p.guardTries == 1 || p.guardTries%100 == 0 {
		w.agent.warn("the guard can't be asked about a run; it will be tried again", err, "run", w.run, "tries", p.guardTries)
	}
}

// consult asks the guard what it holds of the run, and what it did to it.
func (w *worker) consult(ctx context.Context, in input) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	p := &w.progress
	entry, err := w.entry(ctx)
	if err != nil {
		w.guardLater(err)
		if p.guardTries >= consultAttempts && (in.container == nil || in.container.State != runtime.StateRunning) {
			p.consulted = true // its end shouldn't wait longer
		}
		return
	}
	p.consulted, p.guardTries, p.guardAt, p.entry = true, 0, 0, entry
	held, _ := p.life.end()
	p.unguarded = entry == nil || entry.Kill < held.Kill
	switch {
	case in.container == nil || in.container.State != runtime.StateRunning:
		if entry != nil && entry.Emptied != 0 && (p.exited == 0 || entry.Emptied < p.exited) {
			p.exited = entry.Emptied
		}
	case entry != nil && entry.Kill > held.Kill && p.life.Lease.Kill != 0: // stored there, and no more than that before a crash
		p.life.Lease = bound{Term: entry.Term, Kill: entry.Kill}
	}
}

// entry is what the guard has of the run in this boot; nil: nothing.
func (w *worker) entry(ctx context.Context) (*guard.Entry, error) {
	entries, err := w.agent.cfg.Guard.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if entries[i].Run == w.run && entries[i].BootID == w.agent.cfg.BootID {
			return &entries[i], nil
		}
	}
	return nil, nil
}

// guardGrace has the guard kill the run at the end of its grace, should this
// agent not live to do it, and ask it to end no more. asked: it has asked it
// already, and an application may take a second time for an order to break off.
func (w *worker) guardGrace(ctx context.Context, in input) (asked bool) {
	a := w.agent
	if a.cfg.Guard == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	held, _ := in.progress.life.end()
	kill := (in.killAt() + graceSlack).Milliseconds()
	if held.Kill != 0 {
		kill = min(kill, held.Kill)
	}
	d, err := w.deadline(bound{Kill: kill})
	if err == nil {
		err = a.cfg.Guard.Stop(ctx, d)
	}
	if err == nil && held.Kill == 0 {
		return false
	}
	var entry *guard.Entry
	if err == nil {
		entry, err = w.entry(ctx)
	}
	if err != nil {
		a.warn("the guard doesn't know that a run is to end; it ends all the same while this daemon lives", err, "run", w.run)
	}
	return entry != nil && entry.Termed != 0
}

// unguard has the guard forget a run that is gone. Where that fails, the removal
// of leftovers does it.
func (w *worker) unguard(ctx context.Context) {
	p := &w.progress
	if end, _ := p.life.end(); w.agent.cfg.Guard == nil || end.Kill == 0 && p.termed == 0 && p.entry == nil && !p.spoiled {
		return
	}
	if err := w.agent.cfg.Guard.Clear(ctx, w.run); err != nil {
		w.agent.warn("the guard can't forget a run; it will be tried again", err, "run", w.run)
	}
}

// sweepGuard has the guard forget runs that nobody here looks after.
func (a *Agent) sweepGuard(ctx context.Context) {
	if a.cfg.Guard == nil {
		return
	}
	entries, err := a.cfg.Guard.List(ctx)
	if err != nil {
		return // a start or a renewal says so, where one waits for it
	}
	for _, e := range entries {
		if a.looksAfter(e.Run) {
			continue
		}
		if err := a.cfg.Guard.Clear(ctx, e.Run); err != nil {
			a.warn("the guard can't forget a run; it will be tried again", err, "run", e.Run)
		}
	}
}

// keepLife notes what is known of the run's life, here and on disk.
func (w *worker) keepLife(l life) error {
	w.progress.life = l
	w.show()
	return w.agent.ledger.keepLife(w.run, l)
}

// begun notes when the run's process started: just now, or at a moment that the
// runtime knows. Its error is one of the disk.
func (w *worker) begun(at time.Time) error {
	a, l := w.agent, w.progress.life
	if l.Started != 0 {
		return nil
	}
	l.BootID = a.cfg.BootID
	began := a.cfg.Boottime()
	if !at.IsZero() {
		began = w.onBootClock(at)
	}
	l.Started = (began + time.Millisecond - 1).Milliseconds() // a part of one isn't charged
	return w.keepLife(l)
}

// onBootClock is a moment of the wall clock on the boot clock, but not later than
// now.
func (w *worker) onBootClock(at time.Time) time.Duration {
	now := w.agent.cfg.Boottime()
	return min(now, now-time.Since(at))
}

// waitForLease says why a prepared run doesn't start.
func (w *worker) waitForLease(in input) {
	w.tell(in, workspace.PhasePulling, reasonNoLease, "all is ready; it starts when the cluster has granted the time that a budget allows it")
}
