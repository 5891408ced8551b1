package api

import (
	"context"
	"iter"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/gpu"
	"berth/workspace"
)

type nodeInput struct {
	Target
	Reading
}

type listDevicesInput struct {
	Paging
	Node  string `query:"node" doc:"id or host name"`
	State string `query:"state" enum:"free,held,releasing,stuck"`
}

type deviceInput struct {
	UUID string `path:"uuid"`
	Reading
}

func (a *API) registerNodes(h huma.API) {
	route(h, http.MethodGet, "/nodes", "list-nodes", "Nodes in order of id", a.listNodes)
	route(h, http.MethodGet, "/nodes/{id}", "get-node", "One node", a.getNode)
	route(h, http.MethodGet, "/devices", "list-devices", "GPUs in order of UUID", a.listDevices)
	route(h, http.MethodGet, "/devices/readings", "list-readings", "What GPUs measure now, in order of UUID", a.listReadings)
	route(h, http.MethodGet, "/devices/{uuid}", "get-device", "One GPU", a.getDevice)
}

func (a *API) listNodes(ctx context.Context, in *Paging) (*pageAnswer[workspace.Node], error) {
	return listed(ctx, a, "nodes", in, func(r *reader) iter.Seq[*workspace.Node] { return r.Nodes() },
		func(n *workspace.Node) string { return n.ID })
}

func (a *API) getNode(ctx context.Context, in *nodeInput) (*object[workspace.Node], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	n, err := r.node(in.ID)
	if err != nil {
		return nil, err
	}
	return &object[workspace.Node]{Meta: r.metaOf(n.ModifyIndex), Body: n}, nil
}

func (a *API) listDevices(ctx context.Context, in *listDevicesInput) (*pageAnswer[gpu.Device], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	rows := r.Devices()
	if in.Node != "" {
		n, err := r.node(in.Node)
		if err != nil {
			return nil, err
		}
		rows = r.NodeDevices(n.ID)
	}
	rows = where(rows, func(d *gpu.Device) bool { return in.State == "" || string(d.State) == in.State })
	return paged(a, r, "devices", &in.Paging, rows, func(d *gpu.Device) string { return d.UUID })
}

func (a *API) getDevice(ctx context.Context, in *deviceInput) (*object[gpu.Device], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	d := r.Device(in.UUID)
	if d == nil {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no GPU %q: berth device ls shows them", in.UUID)
	}
	return &object[gpu.Device]{Meta: r.meta(), Body: d}, nil
}
