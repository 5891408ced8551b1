package agent

import (
	"context"
	"maps"
	"slices"

	"berth/runtime"
	"berth/workspace"
)

// follow keeps the assignments as the cluster has them, until ctx ends.
func (a *Agent) follow(ctx context.Context) error {
	for failures := 0; ctx.Err() == nil; {
		view, err := a.cfg.Cluster.Assignments(ctx, a.at)
		if err != nil {
			failures++
			a.warn("the cluster gives no assignments; containers go on, and it is asked again", err)
			sleep(ctx, backOff(failures), nil)
			continue
		}
		failures = 0
		if !a.accept(view) {
			sleep(ctx, firstBackOff, nil)
			continue
		}
		a.reconcile(ctx)
	}
	return nil
}

// accept takes a view over. It refuses one older than what was acted on: a
// server that lags behind must not undo what a newer view ordered.
func (a *Agent) accept(view workspace.AssignmentView) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cluster == view.Cluster && view.At.Less(a.at) || !a.viewed && !view.Snapshot {
		return false
	}
	if !a.ledger.enter(view.Cluster, view.At) {
		a.cfg.Log.Warn("a view older than what this node acted on is passed over", "at", view.At)
		return false
	}
	next := map[string]*workspace.Assignment{}
	if !view.Snapshot {
		maps.Copy(next, a.assignments)
	}
	for _, run := range view.Removed {
		delete(next, run)
	}
	for i := range view.Upsert {
		next[view.Upsert[i].Run] = &view.Upsert[i]
	}
	for run, w := range a.workers {
		if next[run] != a.assignments[run] {
			w.changed = w.changed || ordersOf(next[run]) != ordersOf(a.assignments[run])
			nudge(w.wake)
		}
	}
	a.assignments, a.cluster, a.at, a.viewed = next, view.Cluster, view.At, true
	if !slices.Equal(a.purges, view.Purge) || view.Snapshot {
		a.purges = view.Purge
		nudge(a.houseNow)
	}
	if !slices.Equal(a.expiries, view.Expire) {
		a.expiries = view.Expire
		nudge(a.houseNow)
	}
	if slices.ContainsFunc(view.Upsert, func(as workspace.Assignment) bool { return as.Lease != nil && as.Lease.End.BootID != a.cfg.BootID }) {
		nudge(a.beatNow) // the grant answers a stamp
	}
	a.ledger.forget(func(run string) bool { return next[run] != nil })
	return true
}

// orders are what a new assignment can change for a run that is held back: with
// another order it is tried at once. The echo of the agent's own reports isn't.
type orders struct {
	assigned, ended, unreleased bool
	desired                     workspace.RunDesired
	leased                      string // boot of its lease's end
}

func ordersOf(a *workspace.Assignment) orders {
	if a == nil {
		return orders{}
	}
	o := orders{assigned: true, ended: a.Phase.Terminal(), unreleased: a.Unreleased, desired: a.Desired}
	if a.Lease != nil {
		o.leased = a.Lease.End.BootID
	}
	return o
}

// reconcile sees to it that each assignment and each container has a worker.
// Nothing is done before both the cluster and the runtime were heard: either
// alone would look like runs to start, or like orphans.
func (a *Agent) reconcile(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.viewed || !a.listed {
		return
	}
	runs := slices.Concat(slices.Collect(maps.Keys(a.assignments)), slices.Collect(maps.Keys(a.containers)))
	slices.Sort(runs)
	for _, run := range slices.Compact(runs) {
		if a.workers[run] != nil {
			continue
		}
		state := a.containers[run]
		w := &worker{
			agent: a, run: run, wake: make(chan struct{}, 1), exits: make(chan ended, 1), results: make(chan *job, 2),
			known: state, stale: state != "",
		}
		// What an earlier agent left of it is taken away with it.
		w.progress.attached, w.progress.mounted = true, volumeOf(a.assignments[run])
		w.progress.end, w.progress.termed = a.ledger.end(run), a.ledger.stop(run, a.cfg.BootID)
		w.progress.life = a.ledger.life(run, a.cfg.BootID)
		w.shown.lived = w.progress.life.Lived
		w.progress.unguarded = true // until the guard says so
		a.workers[run] = w
		a.group.Go(func() error { return w.loop(ctx) })
	}
}

// retire lets a worker go that has neither assignment nor container, unless an
// assignment came in between.
func (a *Agent) retire(w *worker) bool {
	a.setOrphan(w.run, nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.assignments[w.run] != nil {
		return false
	}
	a.ledger.free(w.run)
	a.uses.drop(w.run)
	delete(a.workers, w.run)
	delete(a.containers, w.run)
	return true
}

// noteContainers takes over what the runtime lists. A worker that knows its
// container otherwise looks again.
func (a *Agent) noteContainers(list []runtime.Container) {
	if !a.listed {
		// Before the first claim, the ledger knows of every device held.
		for i := range list {
			from, _ := originOf(&list[i])
			a.ledger.adopt(list[i].ID, from.devices)
			a.uses.adopt(list[i].ID, usesOfContainer(&list[i])...)
		}
		defer nudge(a.houseNow)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listed = true
	a.containers = map[string]runtime.State{}
	for _, c := range list {
		a.containers[c.ID] = c.State
	}
	for run, w := range a.workers {
		if w.known != a.containers[run] {
			w.suspect = true
			nudge(w.wake)
		}
	}
}

// setOrphan notes a container in quarantine, or with nil that it isn't any
// more, and reports all that are.
func (a *Agent) setOrphan(container string, orphan *workspace.Orphan) {
	a.mu.Lock()
	defer a.mu.Unlock() // a list made earlier must not be reported later
	_, there := a.orphans[container]
	if orphan == nil {
		delete(a.orphans, container)
	} else {
		a.orphans[container] = *orphan
	}
	all := make([]workspace.Orphan, 0, len(a.orphans))
	for _, id := range slices.Sorted(maps.Keys(a.orphans)) {
		all = append(all, a.orphans[id])
	}
	if there || orphan != nil {
		a.reports.add(workspace.Report{Orphans: &all})
	}
}
