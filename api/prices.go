package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

type setPriceInput struct{ Body workspace.Price }

type removePriceInput struct {
	Resource string `query:"resource" required:"true" enum:"gpu,cpu,memory"`
	GPUType  string `query:"gpu_type"`
	Node     string `query:"node" doc:"id or host name; absent: the price for all nodes"`
}

func (a *API) registerPrices(h huma.API) {
	route(h, http.MethodGet, "/prices", "list-prices", "The price book, whole", a.listPrices)
	route(h, http.MethodPut, "/prices", "set-price", "Set the price of an hour of something, for what is placed from now on", a.setPrice)
	route(h, http.MethodDelete, "/prices", "remove-price", "Take a price out of the price book", a.removePrice)
}

func (a *API) listPrices(ctx context.Context, in *Reading) (*object[workspace.PriceBook], error) {
	r, err := a.reader(ctx, *in)
	if err != nil {
		return nil, err
	}
	prices := append([]workspace.Price{}, r.Prices()...)
	return &object[workspace.PriceBook]{Meta: r.meta(), Body: &workspace.PriceBook{Items: prices, Unpriced: r.unpriced(prices)}}, nil
}

// unpriced GPU types, in order: those of devices that no price is for.
func (r *reader) unpriced(prices []workspace.Price) []string {
	types := []string{}
	for d := range r.Devices() {
		priced := slices.ContainsFunc(prices, func(p workspace.Price) bool {
			return p.Resource == "gpu" && (p.Node == "" || p.Node == d.Node) && (p.GPUType == "*" || gpu.Matches(p.GPUType, &d.Info))
		})
		if !priced && !slices.Contains(types, d.Type) {
			types = append(types, d.Type)
		}
	}
	slices.Sort(types)
	return types
}

func (a *API) setPrice(ctx context.Context, in *setPriceInput) (*object[workspace.Price], error) {
	p := in.Body
	if p.Node != "" {
		r, err := a.reader(ctx, Reading{})
		if err != nil {
			return nil, err
		}
		n, err := r.node(p.Node)
		if err != nil {
			return nil, workspace.InvalidField("node", "there is no node %q: berth node ls shows them", p.Node)
		}
		p.Node = n.ID
	}
	res, err := a.propose(ctx, &state.SetPrice{Resource: p.Resource, GPUType: p.GPUType, Node: p.Node, Amount: p.Amount})
	if err != nil {
		return nil, err
	}
	return &object[workspace.Price]{Meta: Meta{Index: res.Index}, Body: &p}, nil
}

// removePrice finds a node by its name; what it doesn't find may be the id of
// one that is gone.
func (a *API) removePrice(ctx context.Context, in *removePriceInput) (*nothing, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	node := in.Node
	if node != "" {
		if n, err := r.node(node); err == nil {
			node = n.ID
		}
	}
	_, err = a.propose(ctx, &state.RemovePrice{Resource: in.Resource, GPUType: in.GPUType, Node: node})
	return nil, err
}
