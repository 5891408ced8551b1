package state

import (
	"fmt"
	"slices"
	"time"

	"berth/workspace"
)

var runs = table[workspace.Run]{name: "runs", indexes: []index[workspace.Run]{
	{name: "id", key: func(r *workspace.Run) []byte { return key(r.ID) }},
	{name: "workspace", key: func(r *workspace.Run) []byte { return key(r.Workspace, r.ID) }},
	{name: "pending", key: func(r *workspace.Run) []byte {
		return keyIf(r.Phase == workspace.PhasePending, r.ID)
	}},
	// live has a workspace's active runs, the set that concurrency counts, and
	// those that wait.
	{name: "live", key: func(r *workspace.Run) []byte {
		if r.Phase == workspace.PhasePending {
			return key(r.Workspace, waiting, r.ID)
		}
		return keyIf(r.Phase.Active(), r.Workspace, active, r.ID)
	}},
	// due has what a Sweep will have to do, by when.
	{name: "due", key: func(r *workspace.Run) []byte {
		when := dueRun(r)
		return keyIf(!when.IsZero(), uint64(max(0, when.UnixMicro())), r.ID) // #nosec G115 -- not negative
	}},
	// expiring are the ended runs whose node is to delete their result data.
	{name: "expiring", key: func(r *workspace.Run) []byte {
		return keyIf(r.Results == workspace.ResultsDeleting, r.Node, r.ID)
	}},
	// ended are those that history may forget, by when they ended.
	{name: "ended", key: func(r *workspace.Run) []byte {
		return keyIf(foldable(r), uint64(max(0, r.Times.Ended.UnixMicro())), r.ID) // #nosec G115 -- not negative
	}},
	// node is what a node's agent has to know of: its live runs, and those whose
	// devices it hasn't released.
	{name: "node", key: func(r *workspace.Run) []byte {
		return keyIf(r.Node != "" && (r.Phase.Active() || r.Unreleased), r.Node, r.ID)
	}},
}}

// What a run is in the index live.
const (
	active  = "active"
	waiting = "waiting"
)

func keyIf(in bool, parts ...any) []byte {
	if !in {
		return nil
	}
	return key(parts...)
}

// start admits an instance's next run and places it, in this entry.
func (t *tx) start(inst *workspace.Instance, id string, s *Suggestion) error {
	run := t.newRun(inst, id)
	ask := questionOf(t, run, s, t.at)
	ask.atSubmit = true
	denial := t.admit(ask)
	if denial != nil && (inst.Kind != workspace.KindJob || denial.Code == workspace.CodeWorkspaceArchived) {
		return denial
	}
	if err := t.freshRun(id); err != nil {
		return err
	}
	t.addRun(inst, run, fmt.Sprintf("run %d of instance %s was made", run.Attempt, inst.Name))
	t.result.Run = run.ID
	if denial != nil {
		t.wait(run, string(denial.Code), denial.Message)
		return nil
	}
	t.suggest(run, s, ask.quote)
	return nil
}

// freshRun checks the id of a run to be made.
func (t *tx) freshRun(id string) error { return fresh("run", id, runs.get(t, "id", id)) }

// newRun is an instance's next run, not written yet.
func (t *tx) newRun(inst *workspace.Instance, id string) *workspace.Run {
	run := &workspace.Run{
		ID: id, Instance: inst.ID, Workspace: inst.Workspace, User: t.env.Principal, Kind: inst.Kind,
		Attempt: inst.Attempts + 1, Phase: workspace.PhasePending, Desired: workspace.RunWanted,
		Reason: "waiting_for_placement", Message: "it waits for the scheduler",
		Resources: inst.Resources, Spec: inst.Spec, Since: t.at, ModifyIndex: t.index,
	}
	if w := t.workspace(inst.Workspace); w != nil {
		run.Spec.RetentionHours = int(w.Retention.Duration().Hours())
	}
	run.Times.Mark(workspace.PhasePending, t.at)
	if prev := t.runOf(inst); prev != nil {
		run.Replaces = prev.ID
	}
	if run.User == "" || t.env.Role == workspace.RoleNode {
		run.User = inst.Owner
	}
	return run
}

// addRun writes a run as its instance's latest.
func (t *tx) addRun(inst *workspace.Instance, run *workspace.Run, message string) {
	runs.put(t, run)
	n := *inst
	n.Run, n.Desired, n.Attempts = run.ID, workspace.DesiredRunning, run.Attempt
	t.putInstance(&n)
	t.event(workspace.Event{Type: "run.pending", Object: run.ID, Workspace: run.Workspace, Instance: run.Instance,
		Run: run.ID, Reason: run.Reason, Message: message})
}

// wait leaves a run pending and says why.
func (t *tx) wait(run *workspace.Run, reason, message string) {
	if run.Reason == reason && run.Message == message {
		return
	}
	n := *run
	n.Reason, n.Message = reason, message
	t.lapse(&n, run.Reason)
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.waiting", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID,
		Reason: reason, Message: message})
}

// lapse sets the time at which an interactive run is given up that a limit keeps
// from being placed, counted from when the limit began to; n is written by the
// caller. What waits for a GPU waits on.
func (t *tx) lapse(n *workspace.Run, before string) {
	code := workspace.Code(n.Reason)
	if code.Admission() && code != workspace.Code(before) {
		t.countDenial(n.Workspace, code)
	}
	switch {
	case !code.Admission() || n.Kind != workspace.KindInteractive:
		n.ExpiresAt = time.Time{}
	case n.ExpiresAt.IsZero():
		n.ExpiresAt = t.at.Add(workspace.StartTimeout)
	}
}

// stopRun sets a run to stop. One without a container ends here.
func (t *tx) stopRun(run *workspace.Run, reason, message string) {
	if run.Phase == workspace.PhasePending {
		t.endRun(run, workspace.PhaseStopped, reason, message)
		return
	}
	if run.Phase.Terminal() || run.Desired == workspace.RunStopping {
		return
	}
	n := *run
	n.Desired, n.StopReason, n.Reason, n.Message = workspace.RunStopping, reason, reason, message
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.stop", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID,
		Node: n.Node, Reason: reason, Message: message})
}

// endRun ends a run of whose life no more is known than what is charged.
func (t *tx) endRun(run *workspace.Run, phase workspace.Phase, reason, message string) {
	lived := int64(0)
	if m := meters.get(t, "id", run.ID); m != nil {
		lived = m.Charged
	}
	t.endRunAt(run, lived, phase, reason, message)
}

// endRunAt ends a run whose process has lived so many ms. Its devices stay held
// until its node says they're free.
func (t *tx) endRunAt(run *workspace.Run, lived int64, phase workspace.Phase, reason, message string) {
	n := *run
	n.Desired, n.ExpiresAt = workspace.RunStopping, time.Time{}
	if m := meters.get(t, "id", run.ID); m != nil && m.Denied != "" && phase == workspace.PhaseStopped && reason == workspace.ReasonLeaseExpired {
		reason, message = string(m.Denied), "its paid time is over: "+m.Why
	}
	t.closeMeter(&n, lived)
	t.releasing(&n)
	t.keepResults(&n)
	t.setPhase(&n, phase, reason, message)
	t.settle(n.Instance)
}

// keepResults sets until when the result data of a run is kept that had a
// container; n is written by the caller.
func (t *tx) keepResults(n *workspace.Run) {
	if n.Node == "" || n.Spec.RetentionHours == 0 {
		return
	}
	n.Results, n.ResultsUntil = workspace.ResultsKept, t.at.Add(time.Duration(n.Spec.RetentionHours)*time.Hour)
}

// setPhase moves a run forward; n is written.
func (t *tx) setPhase(n *workspace.Run, phase workspace.Phase, reason, message string) {
	n.Phase, n.Reason, n.Message, n.Since = phase, reason, message, t.at
	n.Times.Mark(phase, t.at)
	t.putRun(n)
	t.event(workspace.Event{Type: "run." + string(phase), Object: n.ID, Workspace: n.Workspace, Instance: n.Instance,
		Run: n.ID, Node: n.Node, Reason: reason, Message: message})
}

// putRun writes a run and what its instance shows of it.
func (t *tx) putRun(run *workspace.Run) {
	run.Devices = slices.Clip(run.Devices)
	run.ModifyIndex = t.index
	runs.put(t, run)
	if inst := instances.get(t, "id", run.Instance); inst != nil && inst.Run == run.ID {
		t.putInstance(inst)
	}
}
