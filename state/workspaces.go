package state

import (
	"encoding/json"
	"fmt"
	"strings"

	"berth/workspace"
)

var workspaces = table[workspace.Workspace]{name: "workspaces", indexes: []index[workspace.Workspace]{
	{name: "id", key: func(w *workspace.Workspace) []byte { return key(w.ID) }},
	{name: "slug", unique: true, key: func(w *workspace.Workspace) []byte { return key(w.Slug) }},
	{name: "default", key: func(w *workspace.Workspace) []byte {
		if w.IsDefault {
			return key("default")
		}
		return nil
	}},
}}

var members = table[workspace.Member]{name: "members", indexes: []index[workspace.Member]{
	{name: "id", key: func(m *workspace.Member) []byte { return key(m.Workspace, m.User) }},
	{name: "user", key: func(m *workspace.Member) []byte { return key(m.User, m.Workspace) }},
}}

func (t *tx) workspace(id string) *workspace.Workspace { return workspaces.get(t, "id", id) }

// CreateWorkspace makes a workspace; its creator becomes its owner. An explicit
// slug must be free, one made from the name gets a suffix.
type CreateWorkspace struct {
	ID          string               `cbor:"1,keyasint"`
	Name        *string              `cbor:"2,keyasint,omitempty"`
	Slug        string               `cbor:"3,keyasint,omitempty"`
	Description string               `cbor:"4,keyasint,omitempty"`
	Settings    json.RawMessage      `cbor:"5,keyasint,omitempty"`
	Plan        workspace.Plan       `cbor:"6,keyasint"`
	Retention   *workspace.Retention `cbor:"7,keyasint,omitempty"`
}

// Type is TypeCreateWorkspace.
func (*CreateWorkspace) Type() Type { return TypeCreateWorkspace }

func (c *CreateWorkspace) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	if err := fresh("workspace", c.ID, t.workspace(c.ID)); err != nil {
		return err
	}
	w := &workspace.Workspace{
		ID: c.ID, Name: c.Name, Slug: c.Slug, Description: c.Description, Settings: c.Settings, Plan: c.Plan,
		Limits:    workspace.Limits{MaxConcurrentRuns: defaultConcurrency(c.Plan)},
		Retention: workspace.Retention{Unit: "days", Value: workspace.DefaultRetentionDays},
		CreatedAt: t.at, UpdatedAt: t.at, ModifyIndex: t.index,
	}
	if c.Retention != nil {
		w.Retention = *c.Retention
	}
	if err := t.slugFor(w); err != nil {
		return err
	}
	if err := w.Validate(); err != nil {
		return err
	}
	workspaces.put(t, w)
	if u := t.env.Principal; u != "" {
		members.put(t, &workspace.Member{
			Workspace: w.ID, User: u, Role: workspace.RoleOwner, CreatedAt: t.at, UpdatedAt: t.at,
		})
	}
	t.result.Object = w.ID
	t.event(workspace.Event{Type: "workspace.created", Object: w.ID, Workspace: w.ID,
		Message: "workspace " + w.Slug + " created"})
	return nil
}

func defaultConcurrency(p workspace.Plan) int {
	if p == workspace.PlanBasic {
		return workspace.BasicMaxConcurrentRuns
	}
	return workspace.DefaultMaxConcurrentRuns
}

// slugFor gives w a free slug: its own, or one from its name or id.
func (t *tx) slugFor(w *workspace.Workspace) error {
	if w.Slug != "" {
		if workspaces.get(t, "slug", w.Slug) != nil {
			return workspace.Errorf(workspace.CodeExists, "slug %q is taken: choose another", w.Slug)
		}
		return nil
	}
	base := ""
	if w.Name != nil {
		base = workspace.Slugify(*w.Name)
	}
	if base == "" {
		id := strings.ReplaceAll(w.ID, "-", "")
		base = "workspace-" + id[max(0, len(id)-8):]
	}
	w.Slug = base
	for n := 1; workspaces.get(t, "slug", w.Slug) != nil; n++ {
		suffix := fmt.Sprintf("-%d", n)
		w.Slug = strings.TrimRight(base[:min(len(base), workspace.MaxSlug-len(suffix))], "-") + suffix
	}
	return nil
}

// UpdateWorkspace changes what isn't nil.
type UpdateWorkspace struct {
	ID                string               `cbor:"1,keyasint"`
	Name              *string              `cbor:"2,keyasint,omitempty"`
	ClearName         bool                 `cbor:"3,keyasint,omitempty"`
	Description       *string              `cbor:"4,keyasint,omitempty"`
	Settings          json.RawMessage      `cbor:"5,keyasint,omitempty"` // replaced whole
	Retention         *workspace.Retention `cbor:"6,keyasint,omitempty"`
	MaxConcurrentRuns *int                 `cbor:"7,keyasint,omitempty"`
	IfIndex           uint64               `cbor:"8,keyasint,omitempty"` // If-Match; 0: any
	// Money is micro-USD; a null ends the limit.
	DailyBudget     workspace.Optional[int64]              `cbor:"9,keyasint,omitzero"`
	UserDailyBudget workspace.Optional[int64]              `cbor:"10,keyasint,omitzero"`
	SpendingLimit   workspace.Optional[int64]              `cbor:"11,keyasint,omitzero"` // workspace.MaxMoney: as null
	MonthlyRuns     workspace.Optional[int64]              `cbor:"12,keyasint,omitzero"`
	Ceilings        workspace.Optional[workspace.Ceilings] `cbor:"13,keyasint,omitzero"` // replaced whole
	Plan            *workspace.Plan                        `cbor:"14,keyasint,omitempty"`
	KillSwitch      *bool                                  `cbor:"15,keyasint,omitempty"`
	// MakeDefault moves the flag of the default workspace here.
	MakeDefault bool `cbor:"16,keyasint,omitempty"`
}

// Type is TypeUpdateWorkspace.
func (*UpdateWorkspace) Type() Type { return TypeUpdateWorkspace }

func (c *UpdateWorkspace) apply(t *tx) error {
	old, err := t.needOwner(c.ID)
	if err != nil {
		return err
	}
	if err := matchIndex(c.IfIndex, old.ModifyIndex); err != nil {
		return err
	}
	w := *old
	c.merge(&w)
	if c.MaxConcurrentRuns != nil && w.Plan == workspace.PlanBasic {
		return workspace.Errorf(workspace.CodeDenied, "max_concurrent_runs is fixed at %d on plan basic: it needs plan pro or higher",
			workspace.BasicMaxConcurrentRuns)
	}
	if err := w.Validate(); err != nil {
		return err
	}
	w.UpdatedAt, w.ModifyIndex = t.at, t.index
	workspaces.put(t, &w)
	t.result.Object = w.ID
	t.event(workspace.Event{Type: "workspace.updated", Object: w.ID, Workspace: w.ID,
		Message: "workspace " + w.Slug + " updated"})
	return nil
}

func (c *UpdateWorkspace) merge(w *workspace.Workspace) {
	if c.Name != nil || c.ClearName {
		w.Name = c.Name
	}
	if c.Description != nil {
		w.Description = *c.Description
	}
	if c.Settings != nil {
		w.Settings = c.Settings
	}
	if c.Retention != nil {
		w.Retention = *c.Retention
	}
	if c.MaxConcurrentRuns != nil {
		w.Limits.MaxConcurrentRuns = *c.MaxConcurrentRuns
	}
}

func matchIndex(want, have uint64) error {
	if want != 0 && want != have {
		return workspace.Errorf(workspace.CodeTooOld,
			"it was changed at index %d, you saw %d: read it again", have, want)
	}
	return nil
}

// ArchiveWorkspace ends a workspace for good: what waits is cancelled, what
// runs is stopped, nothing starts again.
type ArchiveWorkspace struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeArchiveWorkspace.
func (*ArchiveWorkspace) Type() Type { return TypeArchiveWorkspace }

func (c *ArchiveWorkspace) apply(t *tx) error {
	old, err := t.needOwner(c.ID)
	if err != nil {
		return err
	}
	t.result.Object = c.ID
	if old.Archived() {
		return nil
	}
	if old.IsDefault {
		return workspace.Errorf(workspace.CodeConflict, "the default workspace can't be archived: make another one the default first")
	}
	w := *old
	w.ArchivedAt, w.UpdatedAt, w.ModifyIndex = t.at, t.at, t.index
	workspaces.put(t, &w)
	for _, inst := range collect(instances.each(t, "workspace", w.ID)) {
		if inst.Desired == workspace.DesiredRunning {
			t.stopInstance(inst, "workspace_archived", "its workspace was archived")
		}
	}
	t.event(workspace.Event{Type: "workspace.archived", Object: w.ID, Workspace: w.ID,
		Message: "workspace " + w.Slug + " archived"})
	return nil
}

// DeleteWorkspace archives a workspace and takes it out of lists. Its ledger
// stays and its slug isn't used again.
type DeleteWorkspace struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeDeleteWorkspace.
func (*DeleteWorkspace) Type() Type { return TypeDeleteWorkspace }

func (c *DeleteWorkspace) apply(*tx) error { panic("todo") }

// BlockUser keeps a user from starting anything in a workspace, or lets them
// again.
type BlockUser struct {
	Workspace string `cbor:"1,keyasint"`
	User      string `cbor:"2,keyasint"`
	Blocked   bool   `cbor:"3,keyasint,omitempty"`
}

// Type is TypeBlockUser.
func (*BlockUser) Type() Type { return TypeBlockUser }

func (c *BlockUser) apply(*tx) error { panic("todo") }
