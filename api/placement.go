package api

import (
	"context"

	"berth/workspace"
)

type dryRunInput struct{ Body workspace.DryRun }

func (a *API) explainInstance(ctx context.Context, in *instanceInput) (*object[workspace.Explanation], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	inst = a.withProgress(r, inst)
	why := &workspace.Explanation{
		Instance: inst.ID, Name: inst.Name, Status: inst.Status, Reason: inst.Reason, Message: inst.Message,
		Since: inst.Since, Run: inst.Run,
	}
	if run := r.Run(inst.Run); run != nil {
		why.Phase = run.Phase
		if run.Phase == workspace.PhasePending {
			p := a.explain(r.View, run)
			why.Placement = &p
		}
	}
	return &object[workspace.Explanation]{Meta: r.metaOf(inst.ModifyIndex), Body: why}, nil
}

func (a *API) dryRun(ctx context.Context, in *dryRunInput) (*object[workspace.Placement], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	defaults := workspace.Resources{}
	if name := in.Body.Template; name != "" {
		t := r.Template(name)
		if t == nil {
			return nil, workspace.InvalidField("template", "there is no template %q: berth template ls shows them", name)
		}
		defaults = t.Resources
	}
	resources := in.Body.Resources.Over(defaults)
	if err := resources.Validate(); err != nil {
		return nil, err
	}
	p := a.explain(r.View, &workspace.Run{Phase: workspace.PhasePending, Resources: resources})
	return &object[workspace.Placement]{Meta: r.meta(), Body: &p}, nil
}
