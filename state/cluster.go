package state

import (
	"cmp"

	"berth/workspace"
)

// clusters has one row: what the members know of their cluster.
var clusters = table[workspace.Cluster]{name: "cluster", indexes: []index[workspace.Cluster]{
	{name: "id", key: func(*workspace.Cluster) []byte { return key("cluster") }},
}}

func (t *tx) cluster() *workspace.Cluster { return clusters.get(t, "id", "cluster") }

// InitCluster is the first entry of a cluster: its id, its default workspace
// and the templates that come with berth. Later ones are no errors and change
// nothing, so every start may propose it.
type InitCluster struct {
	ID        string               `cbor:"1,keyasint"`
	Name      string               `cbor:"2,keyasint"`
	Workspace string               `cbor:"3,keyasint"` // id of the default workspace
	Templates []workspace.Template `cbor:"4,keyasint,omitempty"`
}

// Type is TypeInitCluster.
func (*InitCluster) Type() Type { return TypeInitCluster }

func (c *InitCluster) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	if old := t.cluster(); old != nil {
		t.result.Object = old.ID
		return nil
	}
	clusters.put(t, &workspace.Cluster{
		ID: c.ID, Name: c.Name, Incarnation: 1, Version: 1, CreatedAt: t.at, ModifyIndex: t.index,
	})
	name := "default"
	def := &CreateWorkspace{ID: c.Workspace, Name: &name, Plan: workspace.PlanScale}
	if err := def.apply(t); err != nil {
		return err
	}
	w := *t.workspace(c.Workspace)
	w.IsDefault = true
	workspaces.put(t, &w)
	for i := range c.Templates {
		t.putTemplate(&c.Templates[i], true)
	}
	t.result.Object = c.ID
	return nil
}

// RaiseVersion sets the cluster_version, once every server supports it. It
// never falls.
type RaiseVersion struct {
	To uint64 `cbor:"1,keyasint"`
}

// Type is TypeRaiseVersion.
func (*RaiseVersion) Type() Type { return TypeRaiseVersion }

func (c *RaiseVersion) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	old := t.cluster()
	if c.To <= old.Version {
		return nil
	}
	n := *old
	n.Version, n.ModifyIndex = c.To, t.index
	clusters.put(t, &n)
	return nil
}

// UpdateCluster changes what isn't nil.
type UpdateCluster struct {
	Name              *string                      `cbor:"1,keyasint,omitempty"`
	KillSwitch        *bool                        `cbor:"2,keyasint,omitempty"`
	DailyBudget       workspace.Optional[int64]    `cbor:"3,keyasint,omitzero"`  // of all workspaces together
	MaxConcurrentRuns *int                         `cbor:"4,keyasint,omitempty"` // of all together; 0: unlimited
	Defaults          *workspace.WorkspaceDefaults `cbor:"5,keyasint,omitempty"`
	IfIndex           uint64                       `cbor:"6,keyasint,omitempty"` // If-Match; 0: any
}

// Type is TypeUpdateCluster.
func (*UpdateCluster) Type() Type { return TypeUpdateCluster }

func (c *UpdateCluster) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	old := t.cluster()
	if err := matchIndex(c.IfIndex, old.ModifyIndex); err != nil {
		return err
	}
	n := *old
	if err := c.merge(&n); err != nil {
		return err
	}
	n.ModifyIndex = t.index
	clusters.put(t, &n)
	t.result.Object = n.ID
	t.event(workspace.Event{Type: "cluster.updated", Object: n.ID, Message: "cluster " + n.Name + " updated"})
	switched(t, n.ID, "", "the cluster", old.KillSwitch, n.KillSwitch)
	if n.KillSwitch && !old.KillSwitch {
		for _, w := range collect(workspaces.each(t, "id")) {
			t.stopAll(w.ID, workspace.ReasonKillSwitch, "the cluster's kill switch was switched on by "+t.env.Principal)
		}
	}
	return nil
}

func (c *UpdateCluster) merge(n *workspace.Cluster) error {
	if c.Name != nil {
		if err := workspace.ValidateLabel("name", *c.Name, workspace.MaxSlug); err != nil {
			return err
		}
		n.Name = *c.Name
	}
	if c.KillSwitch != nil {
		n.KillSwitch = *c.KillSwitch
	}
	if c.DailyBudget.Set {
		n.Limits.DailyBudget = c.DailyBudget.Value
	}
	if c.MaxConcurrentRuns != nil {
		if *c.MaxConcurrentRuns < 0 {
			return workspace.InvalidField("max_concurrent_runs", "%d is negative; 0 means unlimited", *c.MaxConcurrentRuns)
		}
		n.Limits.MaxConcurrentRuns = *c.MaxConcurrentRuns
	}
	if c.Defaults != nil {
		n.Defaults = *c.Defaults
	}
	return cmp.Or(checkBudget("daily_budget_micro_usd", n.Limits.DailyBudget), n.Defaults.Validate())
}
