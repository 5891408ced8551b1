package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type listVolumesInput struct {
	Scope
	Paging
}

type volumeInput struct {
	ID string `path:"id"`
	Reading
}

type keepVolumeInput struct {
	ID   string `path:"id"`
	Body workspace.KeepVolume
}

type removeVolumeInput struct {
	ID string `path:"id"`
}

func (a *API) registerVolumes(h huma.API) {
	route(h, http.MethodGet, "/volumes", "list-volumes", "Volumes of a workspace (* for all), oldest first", a.listVolumes)
	route(h, http.MethodGet, "/volumes/{id}", "get-volume", "One volume", a.getVolume)
	route(h, http.MethodPost, "/volumes/{id}/keep", "keep-volume", "Keep a detached volume longer than its policy says", a.keepVolume)
	route(h, http.MethodDelete, "/volumes/{id}", "remove-volume", "Delete a detached volume; its id stays known until its node has done so", a.removeVolume)
}

func (a *API) listVolumes(ctx context.Context, in *listVolumesInput) (*pageAnswer[workspace.Volume], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	rows, err := across(r, in.ref(), r.Volumes)
	if err != nil {
		return nil, err
	}
	return paged(a, r, "volumes", &in.Paging, rows, func(v *workspace.Volume) string { return v.Workspace + v.ID })
}

func (a *API) getVolume(ctx context.Context, in *volumeInput) (*object[workspace.Volume], error) {
	return a.volumeAnswer(ctx, in.ID, in.Reading)
}

func (a *API) volumeAnswer(ctx context.Context, id string, how Reading) (*object[workspace.Volume], error) {
	r, err := a.reader(ctx, how)
	if err != nil {
		return nil, err
	}
	v := r.Volume(id)
	if v == nil || !r.sees(v.Workspace) {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no volume %q: berth volume ls shows them", id)
	}
	return &object[workspace.Volume]{Meta: r.metaOf(v.ModifyIndex), Body: v}, nil
}

func (a *API) keepVolume(ctx context.Context, in *keepVolumeInput) (*object[workspace.Volume], error) {
	policy := in.Body.Policy
	if policy == "" {
		policy = "retain"
	}
	if _, err := a.propose(ctx, &state.KeepVolume{ID: in.ID, Policy: policy}); err != nil {
		return nil, err
	}
	return a.volumeAnswer(ctx, in.ID, Reading{})
}

func (a *API) removeVolume(ctx context.Context, in *removeVolumeInput) (*nothing, error) {
	_, err := a.propose(ctx, &state.RemoveVolume{ID: in.ID})
	return nil, err
}
