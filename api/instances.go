package api

import (
	"context"
	"crypto/rand"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type createInstanceInput struct {
	WorkspaceHeader string `header:"X-Berth-Workspace"`
	Body            workspace.NewInstance
}

type listInstancesInput struct {
	Scope
	Paging
	Status string `query:"status" enum:"PENDING,RUNNING,STOPPED,FAILED,DELETED"`
	Name   string `query:"name"`
	Kind   string `query:"kind" enum:"interactive,job"`
}

type instanceInput struct {
	Target
	Scope
	Reading
}

func (a *API) registerInstances(h huma.API) {
	route(h, http.MethodPost, "/instances", "create-instance", "Make an instance and start it", a.createInstance, created)
	route(h, http.MethodGet, "/instances", "list-instances", "Instances of a workspace (* for all), oldest first", a.listInstances)
	route(h, http.MethodGet, "/instances/{id}", "get-instance", "One instance", a.getInstance)
}

func (a *API) createInstance(ctx context.Context, in *createInstanceInput) (*object[workspace.Instance], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	asked := &workspace.Instance{Name: in.Body.Name, Template: workspace.TemplateRef{Name: in.Body.Template.Name}}
	if answer, err := r.instanceReplay(ctx, asked); answer != nil || err != nil {
		return answer, err
	}
	scope := Scope{Workspace: in.Body.Workspace, WorkspaceHeader: in.WorkspaceHeader}
	w, err := r.workspace(scope.ref())
	if err != nil {
		return nil, err
	}
	cmd, err := a.creation(ctx, r, w, &in.Body)
	if err != nil {
		return nil, err
	}
	res, err := a.propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	// A replayed answer may be about one that is gone since.
	return a.instanceAnswer(ctx, res.Object, &workspace.Instance{
		ID: res.Object, Workspace: w.ID, Name: cmd.Name, Template: cmd.Template, Resources: cmd.Resources, Kind: cmd.Kind, Run: res.Run,
	})
}

// creation is the command that makes an instance: its template rendered, its
// secrets sealed, its image's digest pinned.
func (a *API) creation(ctx context.Context, r *reader, w *workspace.Workspace, b *workspace.NewInstance) (*state.CreateInstance, error) {
	t := r.Template(b.Template.Name)
	if t == nil {
		return nil, workspace.InvalidField("template.name", "there is no template %q: berth template ls shows them", b.Template.Name)
	}
	spec, public, secrets, err := t.Render(b.Template.Variables, rand.Text)
	if err != nil {
		return nil, err
	}
	if b.MaxDuration != nil {
		spec.MaxDuration = *b.MaxDuration
	}
	end, err := utc("to_be_deleted_at", b.ToBeDeletedAt)
	if err != nil {
		return nil, err
	}
	if spec.ImageDigest, err = a.pin(ctx, r, spec.Image); err != nil {
		return nil, err
	}
	sealed := map[string]workspace.Sealed{}
	for name, secret := range secrets {
		if sealed[name], err = a.cluster.Seal(secret); err != nil {
			return nil, err
		}
	}
	policy := b.StoragePolicy
	if policy == "" {
		policy = t.StoragePolicy
	}
	return &state.CreateInstance{
		Workspace: w.ID, Project: b.Project, Name: b.Name, Description: b.Description,
		Template: workspace.TemplateRef{Name: t.Name, Variables: public, Description: t.Description},
		Secrets:  sealed, Resources: b.Resources.Over(t.Resources), Kind: t.Kind, Spec: spec,
		StoragePolicy: policy, RestartPolicy: b.RestartPolicy, Volume: b.Volume, ToBeDeletedAt: end, FailoverAfter: b.FailoverAfter,
		Start: b.Start == nil || *b.Start,
	}, nil
}

// instanceAnswer shows an instance after a change; gone is shown, as deleted,
// where the change was its end.
func (a *API) instanceAnswer(ctx context.Context, id string, gone *workspace.Instance) (*object[workspace.Instance], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	inst := r.Instance(id)
	if inst == nil {
		inst = deleted(gone)
	}
	return &object[workspace.Instance]{Meta: r.metaOf(inst.ModifyIndex), Body: a.shown(r, inst)}, nil
}

// instanceReplay answers a retry with the instance as it is now, or, when it is
// gone, with the ids that the first answer had and what else is known of it. It
// gives nil for a request that is new.
func (r *reader) instanceReplay(ctx context.Context, gone *workspace.Instance) (*object[workspace.Instance], error) {
	old, err := r.replayed(ctx)
	if old == nil || err != nil {
		return nil, err
	}
	inst := r.Instance(old.Object)
	switch {
	case inst == nil:
		gone.ID, gone.Run = old.Object, old.Run
		inst = deleted(gone)
	case !r.sees(inst.Workspace):
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no instance %q: berth instance ls shows them", old.Object)
	}
	return &object[workspace.Instance]{Meta: r.metaOf(inst.ModifyIndex), Body: inst}, nil
}

// deleted is an instance as it would be if its row weren't gone.
func deleted(inst *workspace.Instance) *workspace.Instance {
	n := *inst
	n.Desired, n.Status, n.Access = workspace.DesiredDeleted, workspace.StatusDeleted, nil
	n.Reason, n.Message = "deleted", "it is gone"
	return &n
}

func (a *API) listInstances(ctx context.Context, in *listInstancesInput) (*pageAnswer[workspace.Instance], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	rows, err := across(r, in.ref(), r.Instances)
	if err != nil {
		return nil, err
	}
	rows = where(rows, func(i *workspace.Instance) bool {
		return (in.Status == "" || string(i.Status) == in.Status) && (in.Name == "" || i.Name == in.Name) &&
			(in.Kind == "" || string(i.Kind) == in.Kind)
	})
	answer, err := paged(a, r, "instances", &in.Paging, rows, func(i *workspace.Instance) string { return i.Workspace + i.ID })
	if err != nil {
		return nil, err
	}
	for i, inst := range answer.Body.Items {
		answer.Body.Items[i] = a.shown(r, inst)
	}
	return answer, nil
}

func (a *API) getInstance(ctx context.Context, in *instanceInput) (*object[workspace.Instance], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	return &object[workspace.Instance]{Meta: r.metaOf(inst.ModifyIndex), Body: a.shown(r, inst)}, nil
}
