package state

import "berth/workspace"

// deriveStatus is what an instance's owner sees: from what was asked and from
// what its latest run was seen to do, with a reason each time.
func deriveStatus(inst *workspace.Instance, run *workspace.Run) (s workspace.Status, reason, message string) {
	switch {
	case inst.Desired == workspace.DesiredDeleted:
		return workspace.StatusDeleted, "deleting", "its container is being removed"
	case run == nil:
		return workspace.StatusStopped, "never_started", "it was made without being started"
	}
	reason, message = run.Reason, run.Message
	stopping := run.Desired == workspace.RunStopping
	switch {
	case stopping && !run.Phase.Terminal():
		reason, message = "stopping", run.Message
		if inst.NextRun != "" {
			return workspace.StatusPending, "restarting", "it starts again once its container has ended"
		}
		if run.Phase == workspace.PhaseRunning || run.Phase == workspace.PhaseStopping {
			return workspace.StatusRunning, reason, message
		}
		return workspace.StatusPending, reason, message
	case run.Phase == workspace.PhaseRunning, run.Phase == workspace.PhaseStopping:
		return workspace.StatusRunning, reason, message
	case !run.Phase.Terminal():
		return workspace.StatusPending, reason, message
	case run.Phase == workspace.PhaseFailed, run.Phase == workspace.PhaseLost:
		return workspace.StatusFailed, reason, message
	}
	return workspace.StatusStopped, reason, message
}
