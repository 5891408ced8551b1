package state

import (
	"strings"

	"berth/gpu"
	"berth/workspace"
)

var prices = table[workspace.Price]{name: "prices", indexes: []index[workspace.Price]{
	{name: "id", key: func(p *workspace.Price) []byte { return key(p.Resource, p.Node, strings.ToUpper(p.GPUType)) }},
}}

// What a price can be for.
const (
	priceGPU    = "gpu"
	priceCPU    = "cpu"
	priceMemory = "memory"

	anyType = "*"
)

// SetPrice sets the price of an hour of something. It counts for what is placed
// from then on.
type SetPrice struct {
	Resource string `cbor:"1,keyasint"`
	GPUType  string `cbor:"2,keyasint,omitempty"`
	Node     string `cbor:"3,keyasint,omitempty"` // id
	Amount   int64  `cbor:"4,keyasint"`
}

// Type is TypeSetPrice.
func (*SetPrice) Type() Type { return TypeSetPrice }

func (c *SetPrice) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	p := &workspace.Price{Resource: c.Resource, GPUType: c.GPUType, Node: c.Node, Amount: c.Amount}
	if err := p.Validate(); err != nil {
		return err
	}
	if c.Node != "" && nodes.get(t, "id", c.Node) == nil {
		return workspace.InvalidField("node", "there is no node %.40q", c.Node)
	}
	prices.put(t, p)
	t.event(workspace.Event{Type: "price.set", Object: p.Label(), Node: p.Node,
		Message: "an hour of " + p.Label() + " costs " + workspace.FormatUSD(p.Amount) + " from now on"})
	return nil
}

// RemovePrice takes a price out of the price book.
type RemovePrice struct {
	Resource string `cbor:"1,keyasint"`
	GPUType  string `cbor:"2,keyasint,omitempty"`
	Node     string `cbor:"3,keyasint,omitempty"` // id
}

// Type is TypeRemovePrice.
func (*RemovePrice) Type() Type { return TypeRemovePrice }

func (c *RemovePrice) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	probe := &workspace.Price{Resource: c.Resource, GPUType: c.GPUType, Node: c.Node}
	old := prices.get(t, "id", c.Resource, c.Node, strings.ToUpper(c.GPUType))
	if old == nil {
		return workspace.Errorf(workspace.CodeNotFound, "there is no price for %s: berth price ls shows those there are", probe.Label())
	}
	prices.delete(t, old)
	t.event(workspace.Event{Type: "price.removed", Object: old.Label(), Node: old.Node, Message: "an hour of " + old.Label() + " has no price from now on"})
	return nil
}

// Prices of the price book, in the order of resource, node and GPU type.
func (v View) Prices() []workspace.Price {
	all := []workspace.Price{}
	for p := range prices.each(v.txn, "id") {
		all = append(all, *p)
	}
	return all
}

// price of an hour of cpu or memory on a node: the node's own, else the one for
// all, else 0.
func price(in reader, resource, node string) int64 {
	for _, at := range []string{node, ""} {
		if p := prices.get(in, "id", resource, at, ""); p != nil {
			return p.Amount
		}
	}
	return 0
}

// gpuPrice is the price of an hour of a device: the node's own prices go before
// those for all, and among each the longest type that matches.
func gpuPrice(in reader, d *gpu.Device) (amount int64, priced bool) {
	for _, node := range []string{d.Node, ""} {
		longest := -1
		for p := range prices.each(in, "id", priceGPU, node) {
			length := len(p.GPUType)
			if p.GPUType == anyType {
				length = 0
			} else if !gpu.Matches(p.GPUType, &d.Info) {
				continue
			}
			if length > longest {
				longest, amount = length, p.Amount
			}
		}
		if longest >= 0 {
			return amount, true
		}
	}
	return 0, false
}

// quote is what an hour of a run costs at a place.
type quote struct {
	known    bool   // there is a place to be priced
	rate     int64  // micro-USD an hour
	unpriced string // a GPU type without a price; empty: all have one
	types    string // of the GPUs, joined by +
	milli    int64  // of GPUs
}

// quoteFor prices a run where a suggestion would put it: Σ devices × their price
// (a share costs its share) + cores + memory, each part rounded down to a
// micro-USD an hour.
func quoteFor(in reader, r *workspace.Resources, s *Suggestion) quote {
	if s == nil || s.Node == "" {
		return quote{}
	}
	q := quote{known: true}
	for _, a := range s.Devices {
		d := devices.get(in, "id", a.UUID)
		if d == nil {
			continue // the placement will be refused for it
		}
		amount, priced := gpuPrice(in, d)
		if !priced && q.unpriced == "" {
			q.unpriced = d.Type
		}
		q.rate += amount * int64(a.Milli) / gpu.MilliPerDevice
		q.milli += int64(a.Milli)
		q.addType(d.Type)
	}
	q.rate += scaled(price(in, priceCPU, s.Node), r.CPUMilli, 1000)
	q.rate += scaled(price(in, priceMemory, s.Node), r.MemoryMiB, 1024)
	q.rate = min(q.rate, workspace.MaxRate)
	return q
}

// scaled is ⌊amount × n / per⌋. Amounts are at most MaxRate: a product of one with
// a host's cores or MiB is far below 2^63.
func scaled(amount, n, per int64) int64 {
	return amount/per*n + amount%per*n/per
}

func (q *quote) addType(name string) {
	if !strings.Contains("+"+q.types+"+", "+"+name+"+") {
		q.types = strings.TrimPrefix(q.types+"+"+name, "+")
	}
}
