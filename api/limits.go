package api

import (
	"context"
	"iter"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type killSwitchInput struct {
	Target
	Body workspace.KillSwitchChange
}

type memberInput struct {
	Target
	User string `path:"user" minLength:"1"`
}

func (a *API) registerLimits(h huma.API) {
	route(h, http.MethodGet, "/workspaces/{id}/kill-switch", "get-kill-switch", "Is a workspace's kill switch on, and which runs would it stop now?", a.killSwitch)
	route(h, http.MethodPost, "/workspaces/{id}/kill-switch", "set-kill-switch", "Stop all that runs in a workspace and let nothing start, or let things start again", a.setKillSwitch)
	route(h, http.MethodPost, "/workspaces/{id}/members/{user}/block", "block-user", "Let a user start nothing more in a workspace; what runs goes on", a.blockUser)
	route(h, http.MethodPost, "/workspaces/{id}/members/{user}/unblock", "unblock-user", "Let a user start things again", a.unblockUser)
}

// ceilingsOrNull describes ceilings that may be null, which a reference to their
// schema can't say.
type ceilingsOrNull struct{}

// Schema is what huma asks for.
func (ceilingsOrNull) Schema(r huma.Registry) *huma.Schema {
	s := *huma.SchemaFromType(r, reflect.TypeFor[workspace.Ceilings]())
	s.Nullable = true
	return &s
}

func (a *API) killSwitch(ctx context.Context, in *workspaceInput) (*object[workspace.KillSwitch], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	w, err := r.workspace(in.ID)
	if err != nil {
		return nil, err
	}
	answer := r.switchOf(w)
	r.sortOut(answer, where(r.ActiveRuns(w.ID), func(run *workspace.Run) bool { return wanted(run) || killed(run) }))
	return &object[workspace.KillSwitch]{Meta: r.meta(), Body: answer}, nil
}

func (a *API) setKillSwitch(ctx context.Context, in *killSwitchInput) (*object[workspace.KillSwitch], error) {
	id, err := a.workspaceID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	before := idsOf(a.cluster.View().ActiveRuns(id))
	if _, err := a.propose(ctx, &state.UpdateWorkspace{ID: id, KillSwitch: &in.Body.Active}); err != nil {
		return nil, err
	}
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	w, err := r.workspace(id)
	if err != nil {
		return nil, err
	}
	answer := r.switchOf(w)
	r.sortOut(answer, r.killedOf(in.Body.Active, before, r.ActiveRuns(id)))
	return &object[workspace.KillSwitch]{Meta: r.meta(), Body: answer}, nil
}

func (r *reader) switchOf(w *workspace.Workspace) *workspace.KillSwitch {
	return &workspace.KillSwitch{Active: w.KillSwitch, Workspace: w.ID, Name: w.Slug}
}

// wanted: a kill switch stops this run.
func wanted(run *workspace.Run) bool {
	return run.Phase.Active() && run.Desired == workspace.RunWanted
}

// killed: a kill switch has stopped this run. The reason is the state's.
func killed(run *workspace.Run) bool { return run.StopReason == workspace.ReasonKillSwitch }

// idsOf the runs that are wanted.
func idsOf(active iter.Seq[*workspace.Run]) []string {
	var ids []string
	for run := range where(active, wanted) {
		ids = append(ids, run.ID)
	}
	return ids
}

// killedOf are the runs that a kill switch which was just turned on is stopping:
// the active ones, and of those that were wanted before the ones that have
// ended since.
func (r *reader) killedOf(on bool, before []string, active iter.Seq[*workspace.Run]) iter.Seq[*workspace.Run] {
	return func(yield func(*workspace.Run) bool) {
		if !on {
			return
		}
		for run := range where(active, killed) {
			if !yield(run) {
				return
			}
		}
		for _, id := range before {
			if run := r.Run(id); run != nil && run.Phase.Terminal() && killed(run) && !yield(run) {
				return
			}
		}
	}
}

// sortOut fills in the runs, those of unreachable nodes apart.
func (r *reader) sortOut(k *workspace.KillSwitch, runs iter.Seq[*workspace.Run]) {
	k.Runs, k.Unreachable = []workspace.StoppedRun{}, []workspace.StoppedRun{}
	for run := range runs {
		s := workspace.StoppedRun{
			Run: run.ID, Instance: run.Instance, Name: run.Name, Workspace: run.Workspace, User: run.User,
			Kind: run.Kind, Phase: run.Phase, Node: run.Node,
		}
		if inst := r.Instance(run.Instance); inst != nil {
			s.Name = inst.Name
		}
		n := r.Node(run.Node)
		if n != nil {
			s.NodeName = n.Name
		}
		if n != nil && !n.Reachable {
			k.Unreachable = append(k.Unreachable, s)
		} else {
			k.Runs = append(k.Runs, s)
		}
	}
}

func (a *API) blockUser(ctx context.Context, in *memberInput) (*object[workspace.Member], error) {
	return a.block(ctx, in, true)
}

func (a *API) unblockUser(ctx context.Context, in *memberInput) (*object[workspace.Member], error) {
	return a.block(ctx, in, false)
}

func (a *API) block(ctx context.Context, in *memberInput, blocked bool) (*object[workspace.Member], error) {
	id, err := a.workspaceID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := a.propose(ctx, &state.BlockUser{Workspace: id, User: in.User, Blocked: blocked}); err != nil {
		return nil, err
	}
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	m := r.Member(id, in.User)
	if m == nil { // who is no member has no row once nothing keeps them out
		m = &workspace.Member{Workspace: id, User: in.User}
	}
	return &object[workspace.Member]{Meta: r.meta(), Body: m}, nil
}
