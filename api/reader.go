package api

import (
	"berth/state"
	"berth/workspace"
)

// reader is the state as one caller may see it. It is the one place that
// decides what a caller sees: everything in a workspace for its members and for
// cluster admins, nothing of it for others, to whom it doesn't exist.
type reader struct {
	state.View
	who Principal
	age string // for X-Berth-Age-Ms
}

func (r *reader) meta() Meta { return Meta{Index: r.Index(), Age: r.age} }

// metaOf is meta for an answer with one object.
func (r *reader) metaOf(modified uint64) Meta {
	m := r.meta()
	m.ETag = etag(modified)
	return m
}

func (r *reader) admin() bool { return r.who.Role == workspace.RoleClusterAdmin }

// sees reports whether the caller may know what is in a workspace. What belongs
// to none (nodes, devices, templates) is seen by all.
func (r *reader) sees(workspaceID string) bool {
	if workspaceID == "" || r.admin() {
		return true
	}
	m := r.Member(workspaceID, r.who.User)
	return m != nil && m.Role != "" // who is only blocked has no role
}

// workspace by id or slug; the default one when ref is empty.
func (r *reader) workspace(ref string) (*workspace.Workspace, error) {
	w := r.DefaultWorkspace()
	if ref != "" {
		if w = r.Workspace(ref); w == nil {
			w = r.WorkspaceBySlug(ref)
		}
	}
	if w == nil || !w.DeletedAt.IsZero() || !r.sees(w.ID) {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no workspace %q: berth workspace ls shows them", ref)
	}
	return w, nil
}

// instance by id, or by name in a workspace.
func (r *reader) instance(ref, workspaceRef string) (*workspace.Instance, error) {
	if inst := r.Instance(ref); inst != nil && r.sees(inst.Workspace) {
		return inst, nil
	}
	w, err := r.workspace(workspaceRef)
	if err != nil {
		return nil, err
	}
	if inst := r.InstanceByName(w.ID, ref); inst != nil {
		return inst, nil
	}
	return nil, workspace.Errorf(workspace.CodeNotFound, "there is no instance %q in workspace %s: berth instance ls shows them", ref, w.Slug)
}

func (r *reader) run(id string) (*workspace.Run, error) {
	if run := r.Run(id); run != nil && r.sees(run.Workspace) {
		return run, nil
	}
	return nil, workspace.Errorf(workspace.CodeNotFound, "there is no run %q: berth run ls shows them", id)
}

// node by id or host name.
func (r *reader) node(ref string) (*workspace.Node, error) {
	if n := r.Node(ref); n != nil {
		return n, nil
	}
	for n := range r.Nodes() {
		if n.Name == ref {
			return n, nil
		}
	}
	return nil, workspace.Errorf(workspace.CodeNotFound, "there is no node %q: berth node ls shows them", ref)
}
