package api

import (
	"context"
	"iter"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type updateClusterInput struct {
	IfMatch string `header:"If-Match" doc:"an ETag: refuse when it was changed since"`
	Body    workspace.ClusterChange
}

type clusterKillSwitchInput struct{ Body workspace.KillSwitchChange }

func (a *API) registerCluster(h huma.API) {
	route(h, http.MethodGet, "/cluster", "get-cluster", "The cluster with its limits", a.getCluster)
	route(h, http.MethodPatch, "/cluster", "update-cluster", "Change the cluster's name, its limits or what new workspaces begin with", a.updateCluster)
	route(h, http.MethodGet, "/cluster/kill-switch", "get-cluster-kill-switch", "Is the cluster's kill switch on, and which runs would it stop now?", a.clusterKillSwitch)
	route(h, http.MethodPost, "/cluster/kill-switch", "set-cluster-kill-switch", "Stop all that runs in all workspaces and let nothing start, or let things start again", a.setClusterKillSwitch)
}

func (a *API) getCluster(ctx context.Context, in *Reading) (*object[workspace.Cluster], error) {
	r, err := a.reader(ctx, *in)
	if err != nil {
		return nil, err
	}
	return &object[workspace.Cluster]{Meta: r.metaOf(r.Cluster().ModifyIndex), Body: r.Cluster()}, nil
}

func (a *API) updateCluster(ctx context.Context, in *updateClusterInput) (*object[workspace.Cluster], error) {
	index, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	b := &in.Body
	change := &state.UpdateCluster{Name: b.Name, KillSwitch: b.KillSwitch, DailyBudget: b.DailyBudget, Defaults: b.Defaults, IfIndex: index}
	if b.MaxConcurrentRuns.Set {
		change.MaxConcurrentRuns = b.MaxConcurrentRuns.Value
		if change.MaxConcurrentRuns == nil {
			change.MaxConcurrentRuns = new(int) // unlimited
		}
	}
	if _, err := a.propose(ctx, change); err != nil {
		return nil, err
	}
	return a.getCluster(ctx, &Reading{})
}

// clusterRuns are the active runs of all workspaces. Only cluster admins learn
// of them.
func (r *reader) clusterRuns() (iter.Seq[*workspace.Run], error) {
	if !r.admin() {
		return nil, workspace.Errorf(workspace.CodeDenied, "only a cluster admin may use the cluster's kill switch; you are %s (%s)", r.who.User, r.who.Role)
	}
	return func(yield func(*workspace.Run) bool) {
		for w := range r.Workspaces("") {
			for run := range r.ActiveRuns(w.ID) {
				if !yield(run) {
					return
				}
			}
		}
	}, nil
}

func (a *API) clusterKillSwitch(ctx context.Context, in *Reading) (*object[workspace.KillSwitch], error) {
	r, err := a.reader(ctx, *in)
	if err != nil {
		return nil, err
	}
	active, err := r.clusterRuns()
	if err != nil {
		return nil, err
	}
	answer := &workspace.KillSwitch{Active: r.Cluster().KillSwitch, Name: r.Cluster().Name}
	r.sortOut(answer, where(active, func(run *workspace.Run) bool { return wanted(run) || killed(run) }))
	return &object[workspace.KillSwitch]{Meta: r.meta(), Body: answer}, nil
}

func (a *API) setClusterKillSwitch(ctx context.Context, in *clusterKillSwitchInput) (*object[workspace.KillSwitch], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	active, err := r.clusterRuns()
	if err != nil {
		return nil, err
	}
	before := idsOf(active)
	if _, err := a.propose(ctx, &state.UpdateCluster{KillSwitch: &in.Body.Active}); err != nil {
		return nil, err
	}
	if r, err = a.reader(ctx, Reading{}); err != nil {
		return nil, err
	}
	if active, err = r.clusterRuns(); err != nil {
		return nil, err
	}
	answer := &workspace.KillSwitch{Active: r.Cluster().KillSwitch, Name: r.Cluster().Name}
	r.sortOut(answer, r.killedOf(in.Body.Active, before, active))
	return &object[workspace.KillSwitch]{Meta: r.meta(), Body: answer}, nil
}
