package state

import (
	"cmp"
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
	// With is what else it begins with: a change in the same entry.
	With *UpdateWorkspace `cbor:"8,keyasint,omitempty"`
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
		Retention: workspace.Retention{Unit: "days", Value: workspace.DefaultRetentionDays},
		CreatedAt: t.at, UpdatedAt: t.at, ModifyIndex: t.index,
	}
	t.defaultLimits(w)
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
	if c.With == nil {
		return nil
	}
	with := *c.With
	with.ID, with.IfIndex = w.ID, 0
	return with.apply(t)
}

// defaultLimits are the operator's for new workspaces, as far as the plan has them.
func (t *tx) defaultLimits(w *workspace.Workspace) {
	d := t.cluster().Defaults
	if w.Plan == "" {
		w.Plan = cmp.Or(d.Plan, workspace.PlanScale)
	}
	w.Limits = workspace.Limits{MaxConcurrentRuns: defaultConcurrency(w.Plan), DailyBudget: d.DailyBudget}
	if d.MaxConcurrentRuns > 0 && w.Plan != workspace.PlanBasic {
		w.Limits.MaxConcurrentRuns = d.MaxConcurrentRuns
	}
	if w.Plan.Includes(workspace.PlanPro) {
		w.Limits.UserDailyBudget = d.UserDailyBudget
	}
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
	if err := c.limit(t, old, &w); err != nil {
		return err
	}
	if err := w.Validate(); err != nil {
		return err
	}
	if c.MakeDefault && !w.IsDefault {
		if err := t.moveDefault(&w); err != nil {
			return err
		}
	}
	w.UpdatedAt, w.ModifyIndex = t.at, t.index
	workspaces.put(t, &w)
	t.result.Object = w.ID
	t.event(workspace.Event{Type: "workspace.updated", Object: w.ID, Workspace: w.ID,
		Message: "workspace " + w.Slug + " updated"})
	switched(t, w.ID, w.ID, "workspace "+w.Slug, old.KillSwitch, w.KillSwitch)
	if w.KillSwitch && !old.KillSwitch {
		t.stopAll(w.ID, workspace.ReasonKillSwitch, "the kill switch of workspace "+w.Slug+" was switched on by "+t.env.Principal)
	}
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
}

// moveDefault takes the flag of the default workspace from the one that has it.
func (t *tx) moveDefault(w *workspace.Workspace) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	if w.Archived() {
		return workspace.Errorf(workspace.CodeConflict, "workspace %s is archived: it can't be the default", w.Slug)
	}
	old := *workspaces.get(t, "default", "default")
	old.IsDefault, old.UpdatedAt, old.ModifyIndex = false, t.at, t.index
	workspaces.put(t, &old)
	w.IsDefault = true
	return nil
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
	_, err = t.archive(old)
	return err
}

// archive gives the workspace as it is then.
func (t *tx) archive(old *workspace.Workspace) (*workspace.Workspace, error) {
	if old.Archived() {
		return old, nil
	}
	if old.IsDefault {
		return nil, workspace.Errorf(workspace.CodeConflict, "the default workspace can't be archived: make another one the default first")
	}
	w := *old
	w.ArchivedAt, w.UpdatedAt, w.ModifyIndex = t.at, t.at, t.index
	workspaces.put(t, &w)
	for _, inst := range collect(instances.each(t, "workspace", w.ID)) {
		if inst.Desired == workspace.DesiredRunning {
			t.stopInstance(inst, "workspace_archived", "its workspace was archived")
		}
	}
	t.stopAll(w.ID, "workspace_archived", "its workspace was archived")
	t.event(workspace.Event{Type: "workspace.archived", Object: w.ID, Workspace: w.ID,
		Message: "workspace " + w.Slug + " archived"})
	return &w, nil
}

// DeleteWorkspace archives a workspace and takes it out of lists. Its ledger
// stays and its slug isn't used again.
type DeleteWorkspace struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeDeleteWorkspace.
func (*DeleteWorkspace) Type() Type { return TypeDeleteWorkspace }

func (c *DeleteWorkspace) apply(t *tx) error {
	old, err := t.needOwner(c.ID)
	if err != nil {
		return err
	}
	t.result.Object = c.ID
	w, err := t.archive(old)
	if err != nil {
		return err
	}
	n := *w
	n.DeletedAt, n.UpdatedAt, n.ModifyIndex = t.at, t.at, t.index
	workspaces.put(t, &n)
	t.event(workspace.Event{Type: "workspace.deleted", Object: n.ID, Workspace: n.ID,
		Message: "workspace " + n.Slug + " deleted by " + t.env.Principal + "; its ledger stays and its slug isn't used again"})
	return nil
}

// BlockUser keeps a user from starting anything in a workspace, or lets them
// again.
type BlockUser struct {
	Workspace string `cbor:"1,keyasint"`
	User      string `cbor:"2,keyasint"`
	Blocked   bool   `cbor:"3,keyasint,omitempty"`
}

// Type is TypeBlockUser.
func (*BlockUser) Type() Type { return TypeBlockUser }

func (c *BlockUser) apply(t *tx) error {
	w, err := t.needOwner(c.Workspace)
	if err != nil {
		return err
	}
	if c.User == "" {
		return workspace.InvalidField("user", "is required")
	}
	m := workspace.Member{Workspace: w.ID, User: c.User, CreatedAt: t.at} // who isn't a member doesn't become one by it
	if old := members.get(t, "id", w.ID, c.User); old != nil {
		m = *old
	}
	if c.Blocked && m.Role == workspace.RoleOwner && t.env.Role != workspace.RoleClusterAdmin {
		return t.denied("only a cluster admin may block an owner")
	}
	m.Blocked, m.UpdatedAt = c.Blocked, t.at
	members.put(t, &m)
	if m.Role == "" && !m.Blocked {
		members.delete(t, &m)
	}
	t.result.Object = w.ID
	e := workspace.Event{Type: "member.unblocked", Object: c.User, Workspace: w.ID, Message: "user " + c.User + " may start runs again"}
	if c.Blocked {
		e.Type, e.Message = "member.blocked", "user "+c.User+" can't start runs any more; what runs goes on"
	}
	t.event(e)
	return nil
}
