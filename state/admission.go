package state

import "berth/workspace"

// admit checks the admission rules in the application of an entry.
func (t *tx) admit(w *workspace.Workspace, atSubmit bool) *workspace.Error {
	return admit(t, w, atSubmit)
}

// Admission is the rule that keeps a pending run from being placed now, as
// PlaceRuns would find in an entry that follows this view; nil when none does.
func (v View) Admission(run *workspace.Run) *workspace.Error {
	return admit(v.txn, v.Workspace(run.Workspace), false)
}

// admit checks the rules of docs/domain.md (admission) in their order; the
// first that fails names the code. atSubmit counts waiting interactive runs
// too, so that a queue can't be filled past the limit.
func admit(in reader, w *workspace.Workspace, atSubmit bool) *workspace.Error {
	switch {
	case w.Archived():
		return workspace.Errorf(workspace.CodeWorkspaceArchived,
			"workspace %s was archived on %s: nothing can start in it", w.Slug, w.ArchivedAt.Format("2006-01-02"))
	case clusters.get(in, "id", "cluster").KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch, "the cluster's kill switch is on: a cluster admin can switch it off")
	case w.KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch, "the kill switch of workspace %s is on", w.Slug)
	}
	return admitConcurrency(in, w, atSubmit)
}

// admitConcurrency counts the set of active runs; there is no counter to leak.
func admitConcurrency(in reader, w *workspace.Workspace, atSubmit bool) *workspace.Error {
	running, queued := 0, 0
	for range runs.each(in, "live", w.ID, active) {
		running++
	}
	if atSubmit {
		for r := range runs.each(in, "live", w.ID, waiting) {
			if r.Kind == workspace.KindInteractive {
				queued++
			}
		}
	}
	if limit := w.Limits.MaxConcurrentRuns; running+queued >= limit {
		return workspace.Errorf(workspace.CodeConcurrency,
			"workspace %s has %d active and %d waiting runs, its limit is %d: stop one (berth run ls) or raise max_concurrent_runs",
			w.Slug, running, queued, limit)
	}
	return nil
}
