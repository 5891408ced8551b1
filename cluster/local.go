package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

// Local serves the agent of a node that is this server itself: the same three
// calls that a worker makes over the network.
type Local struct {
	cluster *Cluster
	node    string

	mu     sync.Mutex
	handed map[string]bool // runs the agent knows of, nil before the first view
	purge  []string        // volumes it knows are to be deleted
	at     gpu.Epoch       // of the view handed out last
}

// Local gives the port of a node's agent. A node has one agent, so one Local.
func (c *Cluster) Local(node string) *Local { return &Local{cluster: c, node: node} }

// Assignments gives what the node has to do. An agent that holds the view handed
// out last gets what has changed since, as soon as something has; any other gets
// all of it at once.
func (l *Local) Assignments(ctx context.Context, after gpu.Epoch) (workspace.AssignmentView, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := l.handed == nil || after != l.at
	for {
		view := l.cluster.View()
		if view.Cluster() != nil {
			out, known, err := l.assignments(ctx, view, whole || view.Epoch().Incarnation != after.Incarnation)
			if err != nil {
				return workspace.AssignmentView{}, err
			}
			if out.Snapshot || len(out.Upsert) > 0 || len(out.Removed) > 0 || !slices.Equal(out.Purge, l.purge) {
				l.handed, l.purge, l.at = known, out.Purge, out.At
				return out, nil
			}
		}
		// A new cluster's first entry makes its default workspace.
		if err := view.Wait(ctx, state.TopicRuns, state.TopicWorkspaces, state.TopicVolumes); err != nil {
			return workspace.AssignmentView{}, fmt.Errorf("wait for assignments: %w", err)
		}
	}
}

// assignments makes the next view, and the runs the agent knows of with it.
func (l *Local) assignments(ctx context.Context, view state.View, whole bool) (workspace.AssignmentView, map[string]bool, error) {
	out := workspace.AssignmentView{Cluster: view.Cluster().ID, At: view.Epoch(), Snapshot: whole, Purge: view.Purges(l.node)}
	known := map[string]bool{}
	for run := range view.NodeRuns(l.node) {
		if !whole && l.handed[run.ID] && run.ModifyIndex <= l.at.Index {
			known[run.ID] = true
			continue
		}
		a, err := l.assignment(view, run)
		if err != nil {
			if err := l.refuse(ctx, run, err); err != nil {
				return out, nil, err
			}
			continue
		}
		known[run.ID] = true
		out.Upsert = append(out.Upsert, a)
	}
	if !whole {
		for _, id := range slices.Sorted(maps.Keys(l.handed)) {
			if !known[id] {
				out.Removed = append(out.Removed, id)
			}
		}
	}
	return out, known, nil
}

func (l *Local) assignment(view state.View, run *workspace.Run) (workspace.Assignment, error) {
	a := workspace.Assignment{
		Run: run.ID, Instance: run.Instance, Workspace: run.Workspace, Desired: run.Desired, StopReason: run.StopReason,
		Phase: run.Phase, Epoch: run.Epoch, Devices: run.Devices, Resources: run.Resources, Spec: run.Spec,
		Lease: run.Lease, Unreleased: run.Unreleased,
	}
	if v := view.Volume(run.Volume); v != nil {
		a.Volume = &workspace.VolumeClaim{ID: v.ID, SizeMiB: v.SizeMiB, Made: v.Exists()}
	}
	inst := view.Instance(run.Instance)
	if inst == nil {
		return a, nil
	}
	a.Name = inst.Name
	if !mayStart(run) {
		return a, nil // its container has its secrets, or needs none any more
	}
	return a, errors.Join(l.openSecrets(&a, inst), l.openLogin(&a, view))
}

func (l *Local) openSecrets(a *workspace.Assignment, inst *workspace.Instance) error {
	for name, sealed := range inst.Secrets {
		s, err := l.cluster.Open(sealed)
		if err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
		if a.Secrets == nil {
			a.Secrets = map[string]workspace.Secret{}
		}
		a.Secrets[name] = s
	}
	return nil
}

// openLogin adds the login to the registry that the run's image is from.
func (l *Local) openLogin(a *workspace.Assignment, view state.View) error {
	r := view.Registry(workspace.RegistryOf(a.Spec.Image))
	if r == nil {
		return nil
	}
	password, err := l.cluster.Open(r.Password)
	if err != nil {
		return fmt.Errorf("login to registry %s: %w", r.Host, err)
	}
	a.Login = &workspace.RegistryLogin{Host: r.Host, Username: r.Username, Password: password}
	return nil
}

// refuse ends a run that can't be handed out; its owner sees why.
func (l *Local) refuse(ctx context.Context, run *workspace.Run, why error) error {
	l.cluster.log.Error("a run's secrets can't be opened", "run", run.ID, "error", why)
	node := l.cluster.View().Node(l.node)
	if node == nil {
		return fmt.Errorf("run %s: %w", run.ID, why)
	}
	return l.Report(ctx, workspace.Report{Node: l.node, Stamp: node.Stamp, Runs: []workspace.RunReport{{
		Run: run.ID, Epoch: run.Epoch, Phase: workspace.PhaseFailed, Reason: "secret_unreadable", Message: why.Error(),
	}}})
}

// Report records what the agent has seen; nil says that the cluster has it.
func (l *Local) Report(ctx context.Context, r workspace.Report) error {
	_, err := l.cluster.Propose(ctx, &state.Report{Report: r}, state.Caller{Principal: l.node, Role: workspace.RoleNode})
	return err
}

// mayStart: it is wanted and its container hasn't been started, as far as the
// cluster knows. A run that was seen running is never started again.
func mayStart(run *workspace.Run) bool {
	switch run.Phase {
	case workspace.PhaseAssigned, workspace.PhasePulling, workspace.PhaseStarting:
		return run.Desired == workspace.RunWanted
	}
	return false
}

// GoAhead says whether a run may start now, and what is recorded of it, on a
// view verified after the question came. How long the answer holds counts from
// the stamp, which is the agent's to judge.
func (l *Local) GoAhead(ctx context.Context, id string, _ workspace.Stamp) (workspace.GoAheadAnswer, error) {
	view, err := l.cluster.Consistent(ctx)
	if err != nil {
		return workspace.GoAheadAnswer{}, err
	}
	answer := workspace.GoAheadAnswer{At: view.Epoch()}
	if cluster := view.Cluster(); cluster != nil {
		answer.Cluster = cluster.ID
	}
	run := view.Run(id)
	if run == nil {
		answer.Reason = "the cluster has no run " + id
		return answer, nil
	}
	answer.Known, answer.Ended = true, run.Phase.Terminal()
	switch {
	case answer.Ended:
		answer.Reason = fmt.Sprintf("the run has ended: %s", run.Phase)
	case run.Node != l.node:
		answer.Reason = "the run isn't on this node"
	case run.Desired != workspace.RunWanted:
		answer.Reason = "the run is to stop: " + run.StopReason
	case !mayStart(run):
		answer.Reason = fmt.Sprintf("the run was started before: it is %s", run.Phase)
	default:
		answer.Start = true
	}
	return answer, nil
}
