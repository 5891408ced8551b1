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
	Kind     string `query:"kind" enum:"interactive,job,external"`
	Latest   bool   `query:"latest" doc:"only the latest run of each instance there is, and external ones"`
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
			(node == "" || run.Node == node) && (in.Kind == "" || string(run.Kind) == in.Kind) && (!in.Latest || r.isLatest(run))
	})
	return presented(a, r, "runs", &in.Paging, rows)
}

// isLatest reports whether no later run of its instance is there. One of an
// instance that is gone isn't.
func (r *reader) isLatest(run *workspace.Run) bool {
	if run.Instance == "" {
		return true
	}
	inst := r.Instance(run.Instance)
	return inst != nil && inst.Run == run.ID
}

// presented is a page of runs with their leases and what they have cost so far.
func presented(a *API, r *reader, list string, in *Paging, rows iter.Seq[*workspace.Run]) (*pageAnswer[workspace.Run], error) {
	answer, err := paged(a, r, list, in, rows, func(run *workspace.Run) string { return run.Workspace + run.ID })
	if err != nil {
		return nil, err
	}
	for i, run := range answer.Body.Items {
		answer.Body.Items[i] = r.Present(run)
	}
	return answer, nil
}

func (a *API) getRun(ctx context.Context, in *runInput) (*object[workspace.Run], error) {
	return a.runAnswer(ctx, in.ID, in.Reading)
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
	return presented(a, r, "runs of "+inst.ID, &in.Paging, r.InstanceRuns(inst.ID))
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
