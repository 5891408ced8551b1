package main

import (
	"context"
	"slices"

	"berth/client"
	"berth/gpu"
	"berth/workspace"
)

// names finds the names of what objects refer to by id, asking once for each
// kind and only when one is shown. What can't be found shows as its id.
type names struct {
	ctx        context.Context
	cl         *client.Client
	nodes      map[string]string
	workspaces map[string]string
	instances  map[string]string       // by id, and by the id of the latest run
	devices    map[string][]gpu.Device // by node
}

func newNames(ctx context.Context, cl *client.Client) *names { return &names{ctx: ctx, cl: cl} }

func (n *names) node(id string) string {
	if n.nodes == nil {
		n.nodes = map[string]string{}
		nodes, _ := all(n.ctx, n.cl.Nodes, client.ListOptions{})
		for i := range nodes {
			n.nodes[nodes[i].ID] = nodes[i].Name
		}
	}
	return known(n.nodes, id)
}

func (n *names) workspace(id string) string {
	if n.workspaces == nil {
		n.workspaces = map[string]string{}
		workspaces, _ := all(n.ctx, n.cl.Workspaces, client.ListOptions{})
		for i := range workspaces {
			n.workspaces[workspaces[i].ID] = workspaces[i].Slug
		}
	}
	return known(n.workspaces, id)
}

func (n *names) instance(id string) string {
	if n.instances == nil {
		n.instances = map[string]string{}
		instances, _ := all(n.ctx, n.cl.Instances, client.ListOptions{Workspace: "*"})
		for i := range instances {
			n.instances[instances[i].ID] = instances[i].Name
			n.instances[instances[i].Run] = instances[i].Name
		}
	}
	return known(n.instances, id)
}

// holder is the name of the instance whose run has something.
func (n *names) holder(run string) string {
	if name := n.instance(run); name != run {
		return name
	}
	name := run
	if r, err := n.cl.Run(n.ctx, run); err == nil && r.Instance != "" { // not its latest
		name = n.instance(r.Instance)
	}
	n.instances[run] = name
	return name
}

func known(names map[string]string, id string) string {
	if name := names[id]; name != "" && id != "" {
		return name
	}
	return id
}

// The lists that completion offers.

func instanceNames(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Instances, client.ListOptions{})
	return each(items, func(i workspace.Instance) string { return i.Name }), err
}

func workspaceNames(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Workspaces, client.ListOptions{})
	return each(items, func(w workspace.Workspace) string { return w.Slug }), err
}

func templateNames(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Templates, client.ListOptions{})
	return each(items, func(t workspace.Template) string { return t.Name }), err
}

func nodeNames(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Nodes, client.ListOptions{})
	return each(items, func(n workspace.Node) string { return n.Name }), err
}

func runIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Runs, client.ListOptions{})
	return each(items, func(r workspace.Run) string { return r.ID }), err
}

func deviceIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Devices, client.ListOptions{})
	return each(items, func(d gpu.Device) string { return d.UUID }), err
}

func imageReferences(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Images, client.ListOptions{})
	return each(items, func(i workspace.ImageOnNode) string { return i.Reference }), err
}

func volumeIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Volumes, client.ListOptions{})
	return each(items, func(v workspace.Volume) string { return v.ID }), err
}

func detachedVolumes(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Volumes, client.ListOptions{})
	items = slices.DeleteFunc(items, func(v workspace.Volume) bool { return !v.Detached || v.Purging })
	return each(items, func(v workspace.Volume) string { return v.ID }), err
}

func registryHosts(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Registries, client.ListOptions{})
	return each(items, func(r workspace.Registry) string { return r.Host }), err
}
