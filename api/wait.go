package api

import (
	"context"
	"time"

	"berth/state"
	"berth/workspace"
)

type waitInput struct {
	Target
	Scope
	Phase   string `query:"phase" enum:"running,stopped,deleted" default:"running"`
	Timeout string `query:"timeout" default:"60s" doc:"such as 60s; at most 10m"`
	After   uint64 `query:"after" doc:"a modify_index: answer as soon as the instance has changed since"`
}

const longestWait = 10 * time.Minute

// wait is a long poll. It answers with the instance once it is as waited for,
// once it has changed since After, or as it is when the time is up. An instance
// that can't get there by itself ends it with a conflict.
func (a *API) wait(ctx context.Context, in *waitInput) (*object[workspace.Instance], error) {
	timeout, err := time.ParseDuration(in.Timeout)
	if err != nil || timeout < 0 || timeout > longestWait {
		return nil, workspace.InvalidField("timeout", "%q is not a time from 0s to %s, such as 60s", in.Timeout, longestWait)
	}
	ctx, cancel := a.stoppable(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	for err == nil {
		done, failed := settled(inst, in.Phase)
		if failed != nil {
			return nil, failed
		}
		changed := in.After != 0 && inst.ModifyIndex > in.After
		if done || changed || r.Wait(ctx, state.TopicInstances) != nil {
			break
		}
		if r, err = a.reader(ctx, Reading{}); err != nil {
			break
		}
		next := r.Instance(inst.ID)
		if next == nil && in.Phase != string(workspace.DesiredDeleted) {
			return nil, workspace.Errorf(workspace.CodeNotFound, "instance %s was deleted", inst.Name)
		}
		if next == nil {
			inst = deleted(inst)
			break
		}
		inst = next
	}
	if err != nil {
		return nil, err
	}
	return &object[workspace.Instance]{Meta: r.metaOf(inst.ModifyIndex), Body: a.shown(r, inst)}, nil
}

// settled reports whether an instance is as waited for, or why it won't be
// unless somebody does something.
func settled(inst *workspace.Instance, phase string) (bool, error) {
	switch workspace.Desired(phase) {
	case workspace.DesiredDeleted:
		return false, nil // it is once its row is gone
	case workspace.DesiredStopped:
		if inst.Status == workspace.StatusStopped {
			return true, nil
		}
	case workspace.DesiredRunning:
		if inst.Status == workspace.StatusRunning && inst.Desired == workspace.DesiredRunning {
			return true, nil
		}
		if inst.Status == workspace.StatusStopped {
			return false, stuck(inst, "start it first")
		}
	}
	switch inst.Status {
	case workspace.StatusFailed:
		return false, stuck(inst, "berth instance explain says more")
	case workspace.StatusDeleted:
		return false, stuck(inst, "it is being deleted")
	}
	return false, nil
}

func stuck(inst *workspace.Instance, hint string) error {
	return workspace.Errorf(workspace.CodeConflict, "instance %s is %s (%s: %s): %s", inst.Name, inst.Status, inst.Reason, inst.Message, hint)
}
