package state

import (
	"time"

	"berth/workspace"
)

// CreateInstance makes an instance and, with Start, its first run: admitted and
// placed in the same entry. A refused start stores nothing.
type CreateInstance struct {
	ID            string                      `cbor:"1,keyasint"`
	Workspace     string                      `cbor:"2,keyasint"`
	Project       string                      `cbor:"3,keyasint,omitempty"`
	Name          string                      `cbor:"4,keyasint"`
	Description   string                      `cbor:"5,keyasint,omitempty"`
	Template      workspace.TemplateRef       `cbor:"6,keyasint"`
	Secrets       map[string]workspace.Sealed `cbor:"7,keyasint,omitempty"`
	Resources     workspace.Resources         `cbor:"8,keyasint"`
	Kind          workspace.RunKind           `cbor:"9,keyasint"`
	Spec          workspace.RunSpec           `cbor:"10,keyasint"`
	StoragePolicy string                      `cbor:"11,keyasint,omitempty"`
	ToBeDeletedAt time.Time                   `cbor:"12,keyasint,omitzero"`
	FailoverAfter int                         `cbor:"13,keyasint,omitempty"`
	Start         bool                        `cbor:"14,keyasint,omitempty"`
	Run           string                      `cbor:"15,keyasint,omitempty"` // id for the run
	Suggestion    *Suggestion                 `cbor:"16,keyasint,omitempty"`
	// RestartPolicy: what it leaves open is the template's, then the kind's.
	RestartPolicy workspace.RestartPolicy `cbor:"17,keyasint,omitzero"`
	Volume        string                  `cbor:"18,keyasint,omitempty"` // id of a detached volume to go on with
}

// Type is TypeCreateInstance.
func (*CreateInstance) Type() Type { return TypeCreateInstance }

func (c *CreateInstance) apply(t *tx) error {
	w, err := t.needMember(c.Workspace)
	if err != nil {
		return err
	}
	if denial := closed(w); denial != nil {
		t.deniedIn = w.ID
		return denial
	}
	if c.Project != "" {
		return workspace.InvalidField("project", "there is no project %.40q: workspace %s has none", c.Project, w.Slug)
	}
	if err := fresh("instance", c.ID, instances.get(t, "id", c.ID)); err != nil {
		return err
	}
	inst := &workspace.Instance{
		ID: c.ID, Workspace: c.Workspace, Project: c.Project, Name: c.Name, Description: c.Description,
		Owner: t.env.Principal, ClusterID: t.cluster().ID, Template: c.Template, Secrets: c.Secrets,
		Resources: c.Resources, Kind: c.Kind, Spec: c.Spec, Desired: workspace.DesiredStopped,
		RestartPolicy: t.restartPolicy(c.RestartPolicy, c.Template.Name, c.Kind),
		StoragePolicy: t.storagePolicyOf(c), ToBeDeletedAt: c.ToBeDeletedAt, FailoverAfter: c.FailoverAfter,
		CreatedAt: t.at, UpdatedAt: t.at,
	}
	if err := inst.Validate(); err != nil {
		return err
	}
	if err := t.checkLifetime(inst); err != nil {
		return err
	}
	if old := instances.get(t, "name", c.Workspace, c.Name); old != nil {
		return workspace.Errorf(workspace.CodeExists, "instance %q exists in workspace %s: choose another name or delete it", c.Name, w.Slug)
	}
	if c.Volume != "" {
		if err := t.reattach(inst, c.Volume); err != nil {
			return err
		}
	}
	t.result.Object = inst.ID
	t.putInstance(inst)
	t.event(workspace.Event{Type: "instance.created", Object: inst.ID, Workspace: w.ID, Instance: inst.ID,
		Message: "instance " + inst.Name + " created from template " + inst.Template.Name})
	if !c.Start {
		return nil
	}
	return t.start(inst, c.Run, c.Suggestion)
}

// storagePolicyOf is the policy asked for, else the template's as it is now.
func (t *tx) storagePolicyOf(c *CreateInstance) string {
	if from := templates.get(t, "id", c.Template.Name); from != nil && c.StoragePolicy == "" {
		return from.StoragePolicy
	}
	return c.StoragePolicy
}
