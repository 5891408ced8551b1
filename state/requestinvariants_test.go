package state

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"

	"berth/workspace"
)

// answers are what requests were told, as a client remembers it.
type answers struct {
	requests map[string]*answer
	keys     map[string]*answer // by scope
	recent   []sent             // commands with an id, to be asked again
}

type answer struct {
	res   Result
	until time.Time // of the state: up to then it must be remembered
	body  string
}

type sent struct {
	cmd Command
	by  Caller
}

func newAnswers() answers { return answers{requests: map[string]*answer{}, keys: map[string]*answer{}} }

// check that a request which has an answer gets it again, within its time, and
// that no other is answered from an earlier entry.
func (a *answers) check(by Caller, got Result, at time.Time) error {
	var want *answer
	if old := a.requests[by.RequestID]; old != nil && (got.Replay || !old.until.Before(at)) {
		want = old // one whose time is over may be forgotten or not
	}
	if want == nil && by.Idem != nil {
		if old := a.keys[by.Idem.Scope]; old != nil && !old.until.Before(at) {
			want = old
			if old.body != by.Idem.Body {
				if !got.Replay || workspace.CodeOf(asError(got)) != workspace.CodeKeyReused {
					return fmt.Errorf("I7: key %q was used with another body, the answer is %+v", by.Idem.Scope, got)
				}
				return nil
			}
		}
	}
	switch {
	case want == nil && got.Replay:
		return fmt.Errorf("I7: request %q, key %+v, is answered from an earlier entry: %+v", by.RequestID, by.Idem, got)
	case want == nil:
		return nil
	case !got.Replay:
		return fmt.Errorf("I7: request %q, key %+v, was carried out again: it gave %+v before, %+v now", by.RequestID, by.Idem, want.res, got)
	}
	got.Replay = want.res.Replay
	if !reflect.DeepEqual(got, want.res) {
		return fmt.Errorf("I7: request %q, key %+v, was told %+v before, %+v now", by.RequestID, by.Idem, want.res, got)
	}
	return nil
}

func asError(r Result) error {
	if r.Err == nil {
		return nil
	}
	return r.Err
}

// keep what a request was told.
// denied: an external run was, and is kept as failed. As any denial it is judged
// anew.
func (a *answers) keep(cmd Command, by Caller, res Result, at time.Time, denied bool) {
	if res.Replay {
		return
	}
	if by.RequestID != "" {
		a.requests[by.RequestID] = &answer{res: res, until: at.Add(requestsKept)}
	}
	if by.Idem != nil && !denied && (res.Err == nil || res.Err.Code == workspace.CodeInvalid) {
		a.keys[by.Idem.Scope] = &answer{res: res, until: at.Add(idempotencyKept), body: by.Idem.Body}
	}
	if by.RequestID != "" || by.Idem != nil {
		a.recent = append(a.recent, sent{cmd, by})
		a.recent = a.recent[max(0, len(a.recent)-12):]
	}
}

// again sends what was sent before, as a client does that has heard no answer.
func (m *model) again(t *rapid.T) {
	if len(m.asked.recent) == 0 {
		return
	}
	s := one(t, m.asked.recent, "again")
	m.do(t, s.cmd, s.by)
}

// nothingChanged: an entry that is refused, or answered from an earlier one, leaves
// the state as it was, but for the log's position, outcomes, and counts of denials.
func nothingChanged(before, after View, res Result) error {
	if res.Err == nil && !res.Replay {
		return nil
	}
	for _, x := range slices.Concat(allTables, derived) {
		name := x.title()
		if name == meta.name || name == outcomes.name && !res.Replay || name == denials.name && !res.Replay && res.Err.Code.Admission() {
			continue
		}
		if name == outcomes.name { // old ones may go
			for _, o := range changes(before, after, outcomes) {
				if o != nil {
					return fmt.Errorf("I7: a request answered before left another outcome: %+v", o)
				}
			}
			continue
		}
		if !unchanged(before, after, name) {
			return fmt.Errorf("I7: an entry that gave %+v changed the table %s", res, name)
		}
	}
	return nil
}

// authorityHolds: whoever may not do something hasn't done it.
func authorityHolds(before View, cmd Command, by Caller, res Result) error {
	if res.Replay || res.Err != nil || before.Cluster() == nil || may(before, cmd, by) {
		return nil
	}
	return fmt.Errorf("authority: %+v did %T", by, cmd)
}

// may says it anew who may do what (docs/domain.md).
func may(v View, cmd Command, by Caller) bool {
	system := by.Role == workspace.RoleSystem
	admin := system || by.Role == workspace.RoleClusterAdmin
	switch c := cmd.(type) {
	case *InitCluster, *RaiseVersion, *Sweep, *FoldHistory, *PlaceRuns, *RenewLeases, *ExpireLeases, *SetReachable, *InstallTemplates:
		return system
	case *CreateWorkspace, *UpdateCluster, *SetPrice, *RemovePrice, *PutTemplate, *DeleteTemplate, *SetRegistry, *RemoveRegistry:
		return admin
	case *Report:
		return by.Role == workspace.RoleNode && by.Principal == c.Node
	case *UpdateWorkspace:
		only := c.Plan != nil || c.SpendingLimit.Set || c.Ceilings.Set || c.MonthlyRuns.Set || c.MakeDefault && !v.Workspace(c.ID).IsDefault
		return admin || !only && owns(v, c.ID, by) && below(v.Workspace(c.ID).Limits.Ceilings, c)
	case *ArchiveWorkspace:
		return admin || owns(v, c.ID, by)
	case *DeleteWorkspace:
		return admin || owns(v, c.ID, by)
	case *BlockUser:
		m := v.Member(c.Workspace, c.User)
		return by.Role == workspace.RoleClusterAdmin || (system || owns(v, c.Workspace, by)) && (!c.Blocked || m == nil || m.Role != workspace.RoleOwner)
	case *StartExternal:
		return admin || belongs(v, c.Workspace, by) && (c.User == "" || c.User == by.Principal || owns(v, c.Workspace, by))
	}
	return admin || belongs(v, workspaceOf(v, cmd), by)
}

// below: an owner's change stays within the ceilings.
func below(most *workspace.Ceilings, c *UpdateWorkspace) bool {
	within := func(b workspace.Optional[int64], ceiling *int64) bool {
		return !b.Set || ceiling == nil || b.Value != nil && *b.Value <= *ceiling
	}
	return most == nil || within(c.DailyBudget, most.DailyBudget) && within(c.UserDailyBudget, most.UserDailyBudget) &&
		(c.MaxConcurrentRuns == nil || most.MaxConcurrentRuns == nil || *c.MaxConcurrentRuns <= *most.MaxConcurrentRuns)
}

func belongs(v View, ws string, by Caller) bool {
	return v.Member(ws, by.Principal) != nil && slices.Contains([]workspace.Role{workspace.RoleOwner, workspace.RoleAdmin, workspace.RoleMember}, by.Role)
}

func owns(v View, ws string, by Caller) bool {
	return belongs(v, ws, by) && v.Member(ws, by.Principal).Role != workspace.RoleMember
}

// workspaceOf is where the object of a member's command is.
func workspaceOf(v View, cmd Command) string {
	instance, run, volume := "", "", ""
	switch c := cmd.(type) {
	case *CreateInstance:
		return c.Workspace
	case *StartInstance:
		instance = c.ID
	case *StopInstance:
		instance = c.ID
	case *RestartInstance:
		instance = c.ID
	case *DeleteInstance:
		instance = c.ID
	case *ExtendInstance:
		instance = c.ID
	case *RenewExternal:
		run = c.Run
	case *EndExternal:
		run = c.Run
	case *RemoveVolume:
		volume = c.ID
	case *KeepVolume:
		volume = c.ID
	}
	if i := v.Instance(instance); i != nil {
		return i.Workspace
	}
	if r := v.Run(run); r != nil {
		return r.Workspace
	}
	if x := v.Volume(volume); x != nil {
		return x.Workspace
	}
	return ""
}
