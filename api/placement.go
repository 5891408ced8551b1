package api

import (
	"context"
	"time"

	"berth/workspace"
)

// Placement is where a run would go now, or why nowhere.
type Placement struct {
	Fits    bool                  `json:"fits"`
	Node    string                `json:"node,omitempty" doc:"id"`
	Devices []workspace.Allotment `json:"devices,omitempty"`
	Reason  string                `json:"reason,omitempty" doc:"such as waiting_for_gpu; empty when it fits"`
	Message string                `json:"message"`
	Final   bool                  `json:"final,omitempty" doc:"no node could ever run it"`
}

// Explanation says why an instance is as it is.
type Explanation struct {
	Instance  string           `json:"instance"`
	Name      string           `json:"name"`
	Status    workspace.Status `json:"status"`
	Reason    string           `json:"reason"`
	Message   string           `json:"message"`
	Since     time.Time        `json:"since"`
	Run       string           `json:"run,omitempty"`
	Phase     workspace.Phase  `json:"phase,omitempty" doc:"of its run"`
	Placement *Placement       `json:"placement,omitempty" doc:"of a pending run: would it fit now?"`
}

// DryRun is the body that asks whether a run would find a place now.
type DryRun struct {
	Template  string                    `json:"template,omitempty"`
	Resources workspace.ResourceRequest `json:"resources,omitzero" doc:"what is absent comes from the template"`
}

type dryRunInput struct{ Body DryRun }

func (a *API) explainInstance(ctx context.Context, in *instanceInput) (*object[Explanation], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	why := &Explanation{
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
	return &object[Explanation]{Meta: r.metaOf(inst.ModifyIndex), Body: why}, nil
}

func (a *API) dryRun(ctx context.Context, in *dryRunInput) (*object[Placement], error) {
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
	return &object[Placement]{Meta: r.meta(), Body: &p}, nil
}
