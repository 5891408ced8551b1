package state

import "berth/workspace"

// admit checks the rules of docs/domain.md (admission) in their order; the
// first that fails names the code. atSubmit counts waiting interactive runs
// too, so that a queue can't be filled past the limit.
func (t *tx) admit(w *workspace.Workspace, atSubmit bool) *workspace.Error {
	switch {
	case w.Archived():
		return workspace.Errorf(workspace.CodeWorkspaceArchived,
			"workspace %s was archived on %s: nothing can start in it", w.Slug, w.ArchivedAt.Format("2006-01-02"))
	case t.cluster().KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch, "the cluster's kill switch is on: a cluster admin can switch it off")
	case w.KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch, "the kill switch of workspace %s is on", w.Slug)
	}
	return t.admitConcurrency(w, atSubmit)
}

// admitConcurrency counts the set of active runs; there is no counter to leak.
func (t *tx) admitConcurrency(w *workspace.Workspace, atSubmit bool) *workspace.Error {
	running, queued := 0, 0
	for range runs.each(t, "live", w.ID, active) {
		running++
	}
	if atSubmit {
		for r := range runs.each(t, "live", w.ID, waiting) {
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
