package state

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"berth/workspace"
)

var instances = table[workspace.Instance]{name: "instances", indexes: []index[workspace.Instance]{
	{name: "id", key: func(i *workspace.Instance) []byte { return key(i.ID) }},
	{name: "workspace", key: func(i *workspace.Instance) []byte { return key(i.Workspace, i.ID) }},
	// A deleted instance gives its name free at once; its row goes with its container.
	{name: "name", unique: true, key: func(i *workspace.Instance) []byte {
		if i.Desired == workspace.DesiredDeleted {
			return nil
		}
		return key(i.Workspace, i.Name)
	}},
	// due has what a Sweep will have to do, by when.
	{name: "due", key: func(i *workspace.Instance) []byte {
		when := dueInstance(i)
		return keyIf(!when.IsZero(), uint64(max(0, when.UnixMicro())), i.ID) // #nosec G115 -- not negative
	}},
}}

func collect[T any](seq iter.Seq[T]) []T { return slices.Collect(seq) }

// StartInstance starts a stopped or failed instance. Starting a running one
// changes nothing; one that is stopping starts again once it has stopped.
type StartInstance struct {
	ID          string      `cbor:"1,keyasint"`
	Run         string      `cbor:"2,keyasint"`
	ImageDigest string      `cbor:"3,keyasint,omitempty"` // what the image's name means now
	Suggestion  *Suggestion `cbor:"4,keyasint,omitempty"`
	FreshVolume bool        `cbor:"5,keyasint,omitempty"` // detach the volume it has and begin with an empty one
}

// Type is TypeStartInstance.
func (*StartInstance) Type() Type { return TypeStartInstance }

func (c *StartInstance) apply(t *tx) error {
	w, inst, err := t.ownInstance(c.ID)
	if err != nil {
		return err
	}
	if c.FreshVolume {
		if inst, err = t.freshVolume(inst); err != nil {
			return err
		}
	}
	t.result.Object, t.result.Run = inst.ID, inst.Run
	run := t.runOf(inst)
	if run != nil && !run.Phase.Terminal() {
		if run.Desired == workspace.RunWanted {
			if run.Phase == workspace.PhasePending && run.NotBefore.After(t.at) {
				t.startNow(run, c.Suggestion)
			}
			return nil
		}
		return t.startNext(w, inst, c.Run, c.ImageDigest)
	}
	return t.start(withDigest(inst, c.ImageDigest), c.Run, c.Suggestion)
}

func withDigest(inst *workspace.Instance, digest string) *workspace.Instance {
	n := *inst
	if digest != "" {
		n.Spec.ImageDigest = digest
	}
	return &n
}

// startNext promises a run for when the present one, which is stopping, has
// ended. A promise made before stays: its asker waits for that run. What the end
// of the present one may change, money and slots, is asked when it is placed.
func (t *tx) startNext(w *workspace.Workspace, inst *workspace.Instance, run, digest string) error {
	denial := barred(t, w, t.env.Principal)
	if denial != nil && (inst.Kind != workspace.KindJob || denial.Code == workspace.CodeWorkspaceArchived) {
		t.deniedIn = w.ID
		return denial
	}
	if inst.NextRun != "" {
		t.result.Run = inst.NextRun
		return nil
	}
	if err := t.freshRun(run); err != nil {
		return err
	}
	n := withDigest(inst, digest)
	n.Desired, n.NextRun, n.NextUser = workspace.DesiredRunning, run, t.env.Principal
	t.result.Run = run
	t.putInstance(n)
	return nil
}

// StopInstance stops an instance. Stopping a stopped one changes nothing.
type StopInstance struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeStopInstance.
func (*StopInstance) Type() Type { return TypeStopInstance }

func (c *StopInstance) apply(t *tx) error {
	_, inst, err := t.ownInstance(c.ID)
	if err != nil {
		return err
	}
	if !inst.Spec.Stoppable {
		return workspace.Errorf(workspace.CodeConflict,
			"instance %s can't be stopped: its template says so (stoppable = false); delete it instead", inst.Name)
	}
	t.result.Object, t.result.Run = inst.ID, inst.Run
	if inst.Desired == workspace.DesiredRunning {
		t.stopInstance(inst, "stop_requested", "stopped by "+t.env.Principal)
	}
	return nil
}

// RestartInstance stops what runs and starts a new run once it has ended.
type RestartInstance struct {
	ID          string      `cbor:"1,keyasint"`
	Run         string      `cbor:"2,keyasint"`
	ImageDigest string      `cbor:"3,keyasint,omitempty"`
	Suggestion  *Suggestion `cbor:"4,keyasint,omitempty"` // for one that isn't running
}

// Type is TypeRestartInstance.
func (*RestartInstance) Type() Type { return TypeRestartInstance }

func (c *RestartInstance) apply(t *tx) error {
	w, inst, err := t.ownInstance(c.ID)
	if err != nil {
		return err
	}
	t.result.Object = inst.ID
	run := t.runOf(inst)
	if run == nil || run.Phase.Terminal() {
		return t.start(withDigest(inst, c.ImageDigest), c.Run, c.Suggestion)
	}
	if !inst.Spec.Stoppable {
		return workspace.Errorf(workspace.CodeConflict,
			"instance %s can't be restarted: its template says so (stoppable = false)", inst.Name)
	}
	if err := t.startNext(w, inst, c.Run, c.ImageDigest); err != nil {
		return err
	}
	t.stopRun(run, "restart_requested", "restarted by "+t.env.Principal)
	return nil
}

// DeleteInstance removes an instance; its row goes once its container is gone.
type DeleteInstance struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeDeleteInstance.
func (*DeleteInstance) Type() Type { return TypeDeleteInstance }

func (c *DeleteInstance) apply(t *tx) error {
	_, inst, err := t.anyInstance(c.ID)
	if err != nil {
		return err
	}
	t.result.Object = inst.ID
	if inst.Desired != workspace.DesiredDeleted {
		t.deleteInstance(inst, "deleted by "+t.env.Principal)
	}
	return nil
}

// deleteInstance makes an instance go, with its container.
func (t *tx) deleteInstance(inst *workspace.Instance, why string) {
	n := *inst
	n.Desired, n.NextRun, n.NextUser, n.DeletedAt, n.Warning = workspace.DesiredDeleted, "", "", t.at, nil
	message := "instance " + n.Name + " " + why
	if fate := t.detach(&n); fate != "" {
		message += "; its volume " + fate
	}
	t.putInstance(&n)
	t.event(workspace.Event{Type: "instance.deleted", Object: n.ID, Workspace: n.Workspace, Instance: n.ID, Message: message})
	if run := t.runOf(&n); run != nil && !run.Phase.Terminal() {
		t.stopRun(run, "deleted", "its instance was deleted")
		return
	}
	t.settle(n.ID)
}

// ExtendInstance moves the time at which an instance is deleted. Null: never.
type ExtendInstance struct {
	ID            string                        `cbor:"1,keyasint"`
	ToBeDeletedAt workspace.Optional[time.Time] `cbor:"2,keyasint,omitzero"`
}

// Type is TypeExtendInstance.
func (*ExtendInstance) Type() Type { return TypeExtendInstance }

func (c *ExtendInstance) apply(t *tx) error {
	_, inst, err := t.ownInstance(c.ID)
	if err != nil {
		return err
	}
	n := *inst
	n.ToBeDeletedAt, n.Warning = time.Time{}, nil
	message := "instance " + n.Name + " isn't deleted by time any more, says " + t.env.Principal
	if until := c.ToBeDeletedAt.Value; until != nil {
		n.ToBeDeletedAt = until.UTC()
		message = "instance " + n.Name + " lives until " + n.ToBeDeletedAt.Format("2006-01-02 15:04 UTC") + ", says " + t.env.Principal
	}
	if err := t.checkLifetime(&n); err != nil {
		return err
	}
	t.result.Object = n.ID
	t.putInstance(&n)
	t.event(workspace.Event{Type: "instance.extended", Object: n.ID, Workspace: n.Workspace, Instance: n.ID, Message: message})
	return nil
}

// checkLifetime refuses a time of deletion that has passed.
func (t *tx) checkLifetime(inst *workspace.Instance) error {
	if at := inst.ToBeDeletedAt; !at.IsZero() && !at.After(t.at) {
		return workspace.InvalidField("to_be_deleted_at", "%s has passed, it is %s", at.Format(time.RFC3339), t.at.Format(time.RFC3339))
	}
	return nil
}

// ownInstance gives an instance that the caller may change and that isn't
// being deleted.
func (t *tx) ownInstance(id string) (*workspace.Workspace, *workspace.Instance, error) {
	w, inst, err := t.anyInstance(id)
	if err != nil {
		return nil, nil, err
	}
	if inst.Desired == workspace.DesiredDeleted {
		return nil, nil, workspace.Errorf(workspace.CodeConflict, "instance %s is being deleted", inst.Name)
	}
	return w, inst, nil
}

// anyInstance is ownInstance that gives also one being deleted. Who may not
// see it gets the answer for one that isn't there.
func (t *tx) anyInstance(id string) (*workspace.Workspace, *workspace.Instance, error) {
	if inst := instances.get(t, "id", id); inst != nil {
		if w, err := t.needMember(inst.Workspace); err == nil {
			return w, inst, nil
		}
	}
	return nil, nil, workspace.Errorf(workspace.CodeNotFound, "there is no instance %q", id)
}

func (t *tx) runOf(inst *workspace.Instance) *workspace.Run {
	if inst.Run == "" {
		return nil
	}
	return runs.get(t, "id", inst.Run)
}

// stopInstance makes an instance stop, whatever it does now.
func (t *tx) stopInstance(inst *workspace.Instance, reason, message string) {
	n := *inst
	n.Desired, n.NextRun, n.NextUser = workspace.DesiredStopped, "", ""
	t.putInstance(&n)
	if run := t.runOf(&n); run != nil && !run.Phase.Terminal() {
		t.stopRun(run, reason, message)
	}
}

// settle follows up on the end of an instance's run: a promised next run, the
// end of a deleted instance, or a restart by its policy.
func (t *tx) settle(id string) {
	inst := instances.get(t, "id", id)
	if inst == nil {
		return
	}
	run := t.runOf(inst)
	switch ended := run == nil || run.Phase.Terminal(); {
	case ended && inst.Desired == workspace.DesiredDeleted:
		instances.delete(t, inst)
		t.event(workspace.Event{Type: "instance.gone", Object: inst.ID, Workspace: inst.Workspace, Instance: inst.ID,
			Message: "instance " + inst.Name + " is gone"})
	case ended && inst.NextRun != "":
		next := *inst
		next.NextRun, next.NextUser = "", ""
		if t.freshRun(inst.NextRun) != nil { // given to another since it was promised
			t.putInstance(&next)
			return
		}
		run := t.newRun(&next, inst.NextRun)
		run.User = cmp.Or(inst.NextUser, run.User)
		t.addRun(&next, run, fmt.Sprintf("run %d of instance %s was made", run.Attempt, next.Name))
	case ended && run != nil && inst.Desired == workspace.DesiredRunning:
		t.restart(inst, run)
	}
}

// putInstance writes an instance with its derived status.
func (t *tx) putInstance(inst *workspace.Instance) {
	n := *inst
	old := n.Status
	n.Status, n.Reason, n.Message = deriveStatus(&n, t.runOf(&n))
	if n.Status != old {
		n.Since = t.at
	}
	if n.Status != workspace.StatusRunning {
		n.Access = nil
	}
	n.UpdatedAt, n.ModifyIndex = t.at, t.index
	instances.put(t, &n)
}
