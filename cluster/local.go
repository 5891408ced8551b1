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
	expire []workspace.ResultClaim
	at     gpu.Epoch // of the view handed out last
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
			if l.news(&out) {
				l.handed, l.purge, l.expire, l.at = known, out.Purge, out.Expire, out.At
				return out, nil
			}
		}
		// A new cluster's first entry makes its default workspace.
		if err := view.Wait(ctx, state.TopicRuns, state.TopicInstances, state.TopicMeters, state.TopicWorkspaces, state.TopicVolumes); err != nil {
			return workspace.AssignmentView{}, fmt.Errorf("wait for assignments: %w", err)
		}
	}
}

// news: the view has something that the agent hasn't been told.
func (l *Local) news(v *workspace.AssignmentView) bool {
	return v.Snapshot || len(v.Upsert) > 0 || len(v.Removed) > 0 || !slices.Equal(v.Purge, l.purge) || !slices.Equal(v.Expire, l.expire)
}

// assignments makes the next view, and the runs the agent knows of with it.
func (l *Local) assignments(ctx context.Context, view state.View, whole bool) (workspace.AssignmentView, map[string]bool, error) {
	out := workspace.AssignmentView{Cluster: view.Cluster().ID, At: view.Epoch(), Snapshot: whole,
		Purge: view.Purges(l.node), Expire: view.Expiring(l.node)}
	known := map[string]bool{}
	for run := range view.NodeRuns(l.node) {
		if !whole && l.handed[run.ID] && changed(view, run) <= l.at.Index {
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

// changed is the index at which what an assignment shows of a run last changed.
func changed(view state.View, run *workspace.Run) uint64 {
	index := max(run.ModifyIndex, view.LeaseIndex(run.ID))
	if inst := view.Instance(run.Instance); inst != nil {
		index = max(index, inst.ModifyIndex)
	}
	return index
}

func (l *Local) assignment(view state.View, run *workspace.Run) (workspace.Assignment, error) {
	a := workspace.Assignment{
		Run: run.ID, Instance: run.Instance, Workspace: run.Workspace, Desired: run.Desired, StopReason: run.StopReason,
		Phase: run.Phase, Epoch: run.Epoch, Devices: run.Devices, Resources: run.Resources, Spec: run.Spec,
		Lease: deadline(view, run), Unreleased: run.Unreleased,
	}
	if run.Warning != nil {
		a.Warnings = append(a.Warnings, *run.Warning)
	}
	if v := view.Volume(run.Volume); v != nil {
		a.Volume = &workspace.VolumeClaim{ID: v.ID, SizeMiB: v.SizeMiB, Made: v.Exists()}
	}
	inst := view.Instance(run.Instance)
	if inst == nil {
		return a, nil
	}
	a.Name = inst.Name
	if inst.Warning != nil {
		a.Warnings = append(a.Warnings, *inst.Warning)
	}
	if !mayStart(run) {
		return a, nil // its container has its secrets, or needs none any more
	}
	return a, errors.Join(l.openSecrets(&a, inst), l.openLogin(&a, view))
}

// deadline is a run's lease when it has to end with it: the node is handed the
// very value that the state has.
func deadline(view state.View, run *workspace.Run) *workspace.Lease {
	if m := view.Metered(run.ID); m != nil && m.Lease != nil && m.Lease.Hard {
		return m.Lease
	}
	return nil
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

// Beat hands the leader's work what the agent says every workspace.BeatEvery. It
// isn't in the log; one that is lost is made good by the next.
func (l *Local) Beat(_ context.Context, beat workspace.Beat) error {
	if beat.Node != l.node {
		return workspace.Errorf(workspace.CodeDenied, "only node %s may send its beat; this is node %s", beat.Node, l.node)
	}
	l.cluster.cfg.Beats(beat)
	return nil
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
func (l *Local) GoAhead(ctx context.Context, id string, asked workspace.Stamp) (workspace.GoAheadAnswer, error) {
	view, err := l.cluster.Consistent(ctx)
	if err != nil {
		return workspace.GoAheadAnswer{}, err
	}
	answer := workspace.GoAheadAnswer{At: view.Epoch()}
	if cluster := view.Cluster(); cluster != nil {
		answer.Cluster = cluster.ID
	}
	run := view.Run(id) // without a cluster there is none
	if run == nil {
		answer.Reason = "the cluster has no run " + id
		return answer, nil
	}
	answer.Known, answer.Ended = true, run.Phase.Terminal()
	answer.Reason = l.mayNotStart(view, run, asked)
	answer.Start = answer.Reason == ""
	return answer, nil
}

// mayNotStart says why a run must not start now; empty: it may.
func (l *Local) mayNotStart(view state.View, run *workspace.Run, asked workspace.Stamp) string {
	lease, w := deadline(view, run), view.Workspace(run.Workspace)
	switch {
	case run.Phase.Terminal():
		return fmt.Sprintf("the run has ended: %s", run.Phase)
	case run.Node != l.node:
		return "the run isn't on this node"
	case run.Desired != workspace.RunWanted:
		return "the run is to stop: " + run.StopReason
	case !mayStart(run):
		return fmt.Sprintf("the run was started before: it is %s", run.Phase)
	// The entry of a switch or an archive sets its runs to stop. That no run
	// starts after it must not hang on that alone.
	case view.Cluster().KillSwitch:
		return "the cluster's kill switch is on"
	case w != nil && w.KillSwitch:
		return "the kill switch of workspace " + w.Slug + " is on"
	case w == nil || w.Archived():
		return "its workspace is archived"
	// What the report of a new boot finds assigned is lost with the old one.
	case view.Node(l.node) == nil || view.Node(l.node).Stamp.BootID != asked.BootID:
		return "this boot of the node isn't recorded yet"
	case lease != nil && lease.End.BootID != asked.BootID:
		return "its time isn't granted in this boot of the node yet"
	}
	return ""
}
