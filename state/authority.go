package state

import "berth/workspace"

// The role in the envelope was set by the server that authenticated the caller;
// what it may do is decided here, in the order of the log.

func (t *tx) needSystem() error {
	if t.env.Role != workspace.RoleSystem {
		return t.denied("only the cluster's own servers may do this")
	}
	return nil
}

func (t *tx) needAdmin() error {
	if t.env.Role != workspace.RoleClusterAdmin && t.env.Role != workspace.RoleSystem {
		return t.denied("only a cluster admin may do this")
	}
	return nil
}

// needMember checks that the caller may change things of a workspace, and
// gives the workspace.
func (t *tx) needMember(id string) (*workspace.Workspace, error) {
	w := t.workspace(id)
	if w == nil || !w.DeletedAt.IsZero() || !t.belongs(w) {
		// Who isn't a member doesn't learn that it exists.
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no workspace %q", id)
	}
	return w, nil
}

// belongs: the caller may change things of a workspace, deleted or not.
func (t *tx) belongs(w *workspace.Workspace) bool {
	switch t.env.Role {
	case workspace.RoleClusterAdmin, workspace.RoleSystem:
		return true
	}
	m := members.get(t, "id", w.ID, t.env.Principal)
	return m != nil && isMember(m.Role) && isMember(t.env.Role)
}

// isMember: the role is one that memberships give. A node or a caller whose role
// nobody has set is no member, whatever its name.
func isMember(r workspace.Role) bool {
	return r == workspace.RoleOwner || r == workspace.RoleAdmin || r == workspace.RoleMember
}

// needOwner is needMember for those who may change the workspace itself.
func (t *tx) needOwner(id string) (*workspace.Workspace, error) {
	w, err := t.needMember(id)
	if err != nil {
		return nil, err
	}
	switch t.env.Role {
	case workspace.RoleClusterAdmin, workspace.RoleSystem:
		return w, nil
	}
	if m := members.get(t, "id", id, t.env.Principal); m.Role == workspace.RoleMember {
		return nil, t.denied("only owners and admins of the workspace may do this")
	}
	return w, nil
}

func (t *tx) denied(why string) error {
	return workspace.Errorf(workspace.CodeDenied, "%s; you are %s (%s)", why, t.env.Principal, t.env.Role)
}
