package api

import (
	"context"
	"iter"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/workspace"
)

type listRunsInput struct {
	Scope
	Paging
	Instance string `query:"instance" doc:"id"`
	Phase    string `query:"phase" enum:"pending,assigned,pulling,starting,running,stopping,succeeded,failed,stopped,lost"`
	Node     string `query:"node" doc:"id or host name"`
}

type instanceRunsInput struct {
	Target
	Scope
	Paging
}

type runInput struct {
	ID string `path:"id"`
	Reading
}

func (a *API) registerRuns(h huma.API) {
	route(h, http.MethodGet, "/runs", "list-runs", "Runs of a workspace (* for all), oldest first", a.listRuns)
	route(h, http.MethodGet, "/runs/{id}", "get-run", "One run", a.getRun)
	route(h, http.MethodGet, "/instances/{id}/runs", "list-instance-runs", "Runs of one instance, oldest first", a.listInstanceRuns)
}

func runKey(r *workspace.Run) string { return r.Workspace + r.ID }

func (a *API) listRuns(ctx context.Context, in *listRunsInput) (*pageAnswer[workspace.Run], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	rows, err := across(r, in.ref(), r.Runs)
	if err != nil {
		return nil, err
	}
	node := in.Node
	if node != "" {
		n, err := r.node(node)
		if err != nil {
			return nil, err
		}
		node = n.ID
	}
	rows = where(rows, func(run *workspace.Run) bool {
		return (in.Instance == "" || run.Instance == in.Instance) && (in.Phase == "" || string(run.Phase) == in.Phase) &&
			(node == "" || run.Node == node)
	})
	return paged(a, r, "runs", &in.Paging, rows, runKey)
}

func (a *API) getRun(ctx context.Context, in *runInput) (*object[workspace.Run], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	run, err := r.run(in.ID)
	if err != nil {
		return nil, err
	}
	return &object[workspace.Run]{Meta: r.metaOf(run.ModifyIndex), Body: run}, nil
}

func (a *API) listInstanceRuns(ctx context.Context, in *instanceRunsInput) (*pageAnswer[workspace.Run], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	return paged(a, r, "runs of "+inst.ID, &in.Paging, r.InstanceRuns(inst.ID), runKey)
}

// workspaces that the caller sees, in order of id.
func (r *reader) workspaces() iter.Seq[*workspace.Workspace] {
	return where(r.Workspaces(""), func(w *workspace.Workspace) bool { return w.DeletedAt.IsZero() && r.sees(w.ID) })
}

// across gives the rows of one workspace, or of all that the caller sees when
// ref is "*", in the order of workspace and id.
func across[T any](r *reader, ref string, rows func(workspaceID, from string) iter.Seq[*T]) (iter.Seq[*T], error) {
	if ref != "*" {
		w, err := r.workspace(ref)
		if err != nil {
			return nil, err
		}
		return rows(w.ID, ""), nil
	}
	return func(yield func(*T) bool) {
		for w := range r.workspaces() {
			for row := range rows(w.ID, "") {
				if !yield(row) {
					return
				}
			}
		}
	}, nil
}
