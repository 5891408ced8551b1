package api

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

// NewWorkspace is the body that asks for a workspace.
type NewWorkspace struct {
	Name        *string              `json:"name,omitempty"`
	Slug        string               `json:"slug,omitempty" doc:"made of the name when absent"`
	Description string               `json:"description,omitempty"`
	Settings    json.RawMessage      `json:"settings,omitempty" doc:"a JSON object of at most 64 KiB"`
	Plan        workspace.Plan       `json:"plan,omitempty" enum:"basic,pro,scale,enterprise" default:"scale"`
	Retention   *workspace.Retention `json:"data_retention,omitempty"`
}

// WorkspaceChange is the body that changes a workspace: what is absent stays.
type WorkspaceChange struct {
	Name              optional[string]     `json:"name,omitempty" doc:"null takes the name away"`
	Description       *string              `json:"description,omitempty"`
	Settings          json.RawMessage      `json:"settings,omitempty" doc:"replaced whole"`
	Retention         *workspace.Retention `json:"data_retention,omitempty"`
	MaxConcurrentRuns *int                 `json:"max_concurrent_runs,omitempty"`
}

// optional is a value that can be absent, null or there.
type optional[T any] struct {
	set   bool
	value *T // nil: null
}

// UnmarshalJSON is called only when the value isn't absent.
func (o *optional[T]) UnmarshalJSON(b []byte) error {
	o.set = true
	return json.Unmarshal(b, &o.value)
}

// Schema describes it as T or null.
func (optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return s
}

type createWorkspaceInput struct{ Body NewWorkspace }

type workspaceInput struct {
	Target
	Reading
}

type updateWorkspaceInput struct {
	Target
	IfMatch string `header:"If-Match" doc:"an ETag: refuse when it was changed since"`
	Body    WorkspaceChange
}

func (a *API) registerWorkspaces(h huma.API) {
	route(h, http.MethodPost, "/workspaces", "create-workspace", "Make a workspace", a.createWorkspace, created)
	route(h, http.MethodGet, "/workspaces", "list-workspaces", "Workspaces in order of creation, archived ones too", a.listWorkspaces)
	route(h, http.MethodGet, "/workspaces/{id}", "get-workspace", "One workspace", a.getWorkspace)
	route(h, http.MethodPatch, "/workspaces/{id}", "update-workspace", "Change a workspace", a.updateWorkspace)
	route(h, http.MethodPost, "/workspaces/{id}/archive", "archive-workspace", "End a workspace for good: what runs is stopped", a.archiveWorkspace)
}

func (a *API) createWorkspace(ctx context.Context, in *createWorkspaceInput) (*object[workspace.Workspace], error) {
	b := &in.Body
	res, err := a.propose(ctx, &state.CreateWorkspace{
		Name: b.Name, Slug: b.Slug, Description: b.Description, Settings: b.Settings, Plan: b.Plan, Retention: b.Retention,
	})
	if err != nil {
		return nil, err
	}
	return a.workspaceAnswer(ctx, res.Object, Reading{})
}

func (a *API) listWorkspaces(ctx context.Context, in *Paging) (*pageAnswer[workspace.Workspace], error) {
	return listed(ctx, a, "workspaces", in, func(r *reader) iter.Seq[*workspace.Workspace] { return r.workspaces() },
		func(w *workspace.Workspace) string { return w.ID })
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
	return &object[workspace.Workspace]{Meta: r.metaOf(w.ModifyIndex), Body: w}, nil
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
	if _, err := a.propose(ctx, &state.UpdateWorkspace{
		ID: id, Name: b.Name.value, ClearName: b.Name.set && b.Name.value == nil, Description: b.Description,
		Settings: b.Settings, Retention: b.Retention, MaxConcurrentRuns: b.MaxConcurrentRuns, IfIndex: index,
	}); err != nil {
		return nil, err
	}
	return a.workspaceAnswer(ctx, id, Reading{})
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
