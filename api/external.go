package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type startExternalInput struct {
	WorkspaceHeader string `header:"X-Berth-Workspace"`
	Body            workspace.NewExternalRun
}

type externalInput struct {
	ID string `path:"id" doc:"of the run"`
}

type endExternalInput struct {
	ID   string `path:"id" doc:"of the run"`
	Body workspace.ExternalEnd
}

func (a *API) registerExternal(h huma.API) {
	route(h, http.MethodPost, "/external-runs", "start-external-run",
		"Ask for leave to run something elsewhere; a denial names the run that is kept as failed", a.startExternal, created)
	route(h, http.MethodPost, "/external-runs/{id}/renew", "renew-external-run",
		"Keep the slot of an external run: its lease begins anew. Reading it (GET /runs/{id}) renews nothing", a.renewExternal)
	route(h, http.MethodPost, "/external-runs/{id}/end", "end-external-run", "Say that an external run is over, and how it ended", a.endExternal)
}

func (a *API) startExternal(ctx context.Context, in *startExternalInput) (*object[workspace.Run], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	if old, err := r.replayed(ctx); old != nil || err != nil {
		return a.admitted(ctx, old, err)
	}
	scope := Scope{Workspace: in.Body.Workspace, WorkspaceHeader: in.WorkspaceHeader}
	w, err := r.workspace(scope.ref())
	if err != nil {
		return nil, err
	}
	b := &in.Body
	lease, err := b.Lease()
	if err != nil {
		return nil, err
	}
	res, err := a.propose(ctx, &state.StartExternal{
		Workspace: w.ID, User: b.User, Name: b.Name, Rate: b.Rate, Lease: lease,
	})
	return a.admitted(ctx, &res, err)
}

// admitted answers with an external run, or, when it was denied, with the
// problem that its admission had.
func (a *API) admitted(ctx context.Context, res *state.Result, err error) (*object[workspace.Run], error) {
	if err != nil {
		return nil, err
	}
	answer, err := a.runAnswer(ctx, res.Run, Reading{})
	if err != nil {
		return nil, err
	}
	if run := answer.Body; run.Phase == workspace.PhaseFailed {
		code := workspace.Code(run.Reason)
		p := newProblem(statusOf(code), code, run.Message, nil)
		p.Run = run.ID
		return nil, p
	}
	return answer, nil
}

func (a *API) renewExternal(ctx context.Context, in *externalInput) (*object[workspace.Run], error) {
	return a.onExternal(ctx, in.ID, func(id string) state.Command { return &state.RenewExternal{Run: id} })
}

func (a *API) endExternal(ctx context.Context, in *endExternalInput) (*object[workspace.Run], error) {
	return a.onExternal(ctx, in.ID, func(id string) state.Command {
		return &state.EndExternal{Run: id, Phase: in.Body.Phase, Message: in.Body.Message, ExitCode: in.Body.ExitCode}
	})
}

// onExternal carries out a command on an external run that the caller sees.
func (a *API) onExternal(ctx context.Context, id string, command func(id string) state.Command) (*object[workspace.Run], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	run, err := r.run(id)
	if err != nil {
		return nil, err
	}
	if run.Kind != workspace.KindExternal {
		return nil, workspace.Errorf(workspace.CodeConflict,
			"run %s is no external one: it has a container on a node, which alone says how it goes", run.ID)
	}
	if _, err := a.propose(ctx, command(run.ID)); err != nil {
		return nil, err
	}
	return a.runAnswer(ctx, run.ID, Reading{})
}

func (a *API) runAnswer(ctx context.Context, id string, how Reading) (*object[workspace.Run], error) {
	r, err := a.reader(ctx, how)
	if err != nil {
		return nil, err
	}
	run, err := r.run(id)
	if err != nil {
		return nil, err
	}
	return &object[workspace.Run]{Meta: r.metaOf(run.ModifyIndex), Body: r.Present(run)}, nil
}
