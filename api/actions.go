package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type actionInput struct {
	Target
	Scope
}

func (a *API) registerActions(h huma.API) {
	route(h, http.MethodPost, "/instances/{id}/start", "start-instance", "Start a stopped or failed instance", a.startInstance)
	route(h, http.MethodPost, "/instances/{id}/stop", "stop-instance", "Stop an instance", a.stopInstance)
	route(h, http.MethodPost, "/instances/{id}/restart", "restart-instance", "Stop an instance and start it again", a.restartInstance)
	route(h, http.MethodPost, "/instances/{id}/extend", "extend-instance", "Move the time at which an instance is deleted", a.extendInstance)
	route(h, http.MethodDelete, "/instances/{id}", "delete-instance", "Remove an instance; its id stays known until its container is gone", a.deleteInstance)
	route(h, http.MethodGet, "/instances/{id}/wait", "wait-for-instance", "Wait until an instance is running, stopped or deleted", a.wait)
	route(h, http.MethodGet, "/instances/{id}/explain", "explain-instance", "Why an instance is as it is", a.explainInstance)
	route(h, http.MethodPost, "/placements:dry-run", "dry-run", "Would a run find a place now?", a.dryRun)
}

// act carries out a command on the instance that a request names.
func (a *API) act(ctx context.Context, in *actionInput, command func(*reader, *workspace.Instance) (state.Command, error)) (*object[workspace.Instance], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	if answer, err := r.instanceReplay(ctx, &workspace.Instance{}); answer != nil || err != nil {
		return answer, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	cmd, err := command(r, inst)
	if err != nil {
		return nil, err
	}
	if _, err := a.propose(ctx, cmd); err != nil {
		return nil, err
	}
	return a.instanceAnswer(ctx, inst.ID, inst)
}

type startInput struct {
	Target
	Scope
	FreshVolume bool `query:"fresh_volume" doc:"begin with an empty volume; the one it has is detached and follows its storage policy"`
}

func (a *API) startInstance(ctx context.Context, in *startInput) (*object[workspace.Instance], error) {
	return a.act(ctx, &actionInput{in.Target, in.Scope}, func(r *reader, inst *workspace.Instance) (state.Command, error) {
		digest, err := a.repin(ctx, r, inst)
		return &state.StartInstance{ID: inst.ID, ImageDigest: digest, FreshVolume: in.FreshVolume}, err
	})
}

func (a *API) stopInstance(ctx context.Context, in *actionInput) (*object[workspace.Instance], error) {
	return a.act(ctx, in, func(_ *reader, inst *workspace.Instance) (state.Command, error) {
		return &state.StopInstance{ID: inst.ID}, nil
	})
}

func (a *API) restartInstance(ctx context.Context, in *actionInput) (*object[workspace.Instance], error) {
	return a.act(ctx, in, func(r *reader, inst *workspace.Instance) (state.Command, error) {
		digest, err := a.repin(ctx, r, inst)
		return &state.RestartInstance{ID: inst.ID, ImageDigest: digest}, err
	})
}

func (a *API) deleteInstance(ctx context.Context, in *actionInput) (*object[workspace.Instance], error) {
	return a.act(ctx, in, func(_ *reader, inst *workspace.Instance) (state.Command, error) {
		return &state.DeleteInstance{ID: inst.ID}, nil
	})
}
