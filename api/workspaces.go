package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type createWorkspaceInput struct{ Body workspace.NewWorkspace }

type workspaceInput struct {
	Target
	Reading
}

type updateWorkspaceInput struct {
	Target
	IfMatch string `header:"If-Match" doc:"an ETag: refuse when it was changed since"`
	Body    workspace.WorkspaceChange
}

func (a *API) registerWorkspaces(h huma.API) {
	route(h, http.MethodPost, "/workspaces", "create-workspace", "Make a workspace", a.createWorkspace, created)
	route(h, http.MethodGet, "/workspaces", "list-workspaces", "Workspaces in order of creation, archived ones too", a.listWorkspaces)
	route(h, http.MethodGet, "/workspaces/{id}", "get-workspace", "One workspace", a.getWorkspace)
	route(h, http.MethodPatch, "/workspaces/{id}", "update-workspace", "Change a workspace", a.updateWorkspace)
	route(h, http.MethodPost, "/workspaces/{id}/archive", "archive-workspace", "End a workspace for good: what runs is stopped", a.archiveWorkspace)
	route(h, http.MethodDelete, "/workspaces/{id}", "delete-workspace", "Archive a workspace and take it out of lists; its ledger and its slug stay", a.deleteWorkspace)
}

func (a *API) createWorkspace(ctx context.Context, in *createWorkspaceInput) (*object[workspace.Workspace], error) {
	b := &in.Body
	with, err := limitsCommand(&b.LimitsChange)
	if err != nil {
		return nil, err
	}
	create := &state.CreateWorkspace{
		Name: b.Name, Slug: b.Slug, Description: b.Description, Settings: b.Settings, Plan: b.Plan, Retention: b.Retention,
	}
	if b.LimitsChange != (workspace.LimitsChange{}) {
		create.With = with
	}
	res, err := a.propose(ctx, create)
	if err != nil {
		return nil, err
	}
	return a.workspaceAnswer(ctx, res.Object, Reading{})
}

func (a *API) listWorkspaces(ctx context.Context, in *Paging) (*pageAnswer[workspace.Workspace], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	page, err := paged(a, r, "workspaces", in, r.workspaces(), func(w *workspace.Workspace) string { return w.ID })
	if err != nil {
		return nil, err
	}
	for i, w := range page.Body.Items {
		page.Body.Items[i] = r.WithSpending(w)
	}
	return page, nil
}

func (a *API) getWorkspace(ctx context.Context, in *workspaceInput) (*object[workspace.Workspace], error) {
	return a.workspaceAnswer(ctx, in.ID, in.Reading)
}

func (a *API) workspaceAnswer(ctx context.Context, ref string, how Reading) (*object[workspace.Workspace], error) {
	r, err := a.reader(ctx, how)
	if err != nil {
		return nil, err
	}
	w, err := r.workspace(ref)
	if err != nil {
		return nil, err
	}
	return &object[workspace.Workspace]{Meta: r.metaOf(w.ModifyIndex), Body: r.WithSpending(w)}, nil
}

func (a *API) updateWorkspace(ctx context.Context, in *updateWorkspaceInput) (*object[workspace.Workspace], error) {
	index, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	id, err := a.workspaceID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	b := &in.Body
	change, err := limitsCommand(&b.LimitsChange)
	if err != nil {
		return nil, err
	}
	change.ID, change.IfIndex = id, index
	change.Name, change.ClearName = b.Name.Value, b.Name.Set && b.Name.Value == nil
	change.Description, change.Settings, change.Retention, change.Plan = b.Description, b.Settings, b.Retention, b.Plan
	if _, err := a.propose(ctx, change); err != nil {
		return nil, err
	}
	return a.workspaceAnswer(ctx, id, Reading{})
}

// limitsCommand is the part of a change that is about limits.
func limitsCommand(l *workspace.LimitsChange) (*state.UpdateWorkspace, error) {
	if l.IsDefault != nil && !*l.IsDefault {
		return nil, workspace.InvalidField("is_default", "can't be taken away: make another workspace the default")
	}
	return &state.UpdateWorkspace{
		DailyBudget: l.DailyBudget, UserDailyBudget: l.UserDailyBudget, SpendingLimit: l.SpendingLimit,
		MonthlyRuns: l.MonthlyRuns, MaxConcurrentRuns: l.MaxConcurrentRuns, Ceilings: l.Ceilings,
		KillSwitch: l.KillSwitch, MakeDefault: l.IsDefault != nil,
	}, nil
}

func (a *API) archiveWorkspace(ctx context.Context, in *Target) (*object[workspace.Workspace], error) {
	id, err := a.workspaceID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := a.propose(ctx, &state.ArchiveWorkspace{ID: id}); err != nil {
		return nil, err
	}
	return a.workspaceAnswer(ctx, id, Reading{})
}

// deleteWorkspace answers a repeated request too, to which the workspace is gone.
func (a *API) deleteWorkspace(ctx context.Context, in *Target) (*nothing, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	if old, err := r.replayed(ctx); old != nil || err != nil {
		return nil, err
	}
	w, err := r.workspace(in.ID)
	if err != nil {
		return nil, err
	}
	_, err = a.propose(ctx, &state.DeleteWorkspace{ID: w.ID})
	return nil, err
}

// workspaceID is the id of what a request calls by id or slug.
func (a *API) workspaceID(ctx context.Context, ref string) (string, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return "", err
	}
	w, err := r.workspace(ref)
	if err != nil {
		return "", err
	}
	return w.ID, nil
}
