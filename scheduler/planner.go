package scheduler

import (
	"sync"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

// Planner makes suggestions on the leader, each seeing the ones made before it
// that the log hasn't applied yet, so that a batch in flight never suggests one
// device twice. Apply checks them all the same.
type Planner struct {
	freed    chan struct{} // nudged when a newcomer's suggestion is no longer in flight
	mu       sync.Mutex
	inFlight map[string]flight // by run, not applied yet
}

// flight is a suggestion on its way into the log.
type flight struct {
	run     string
	uses    Capacity
	node    string
	devices []workspace.Allotment
}

// NewPlanner makes a planner without suggestions in flight.
func NewPlanner() *Planner {
	return &Planner{freed: make(chan struct{}, 1), inFlight: map[string]flight{}}
}

// Suggest says where each request would go. done must be called once the entry
// that carries the suggestions is applied, or will never be.
func (p *Planner) Suggest(view state.View, requests []Request) (out []state.Suggestion, done func()) {
	return p.suggest(view, nil, requests)
}

// SuggestNewcomer suggests for a run that isn't in the state yet. It stands in
// the same queue as those that wait: what one of them could have now isn't
// offered to it. Where its entry is refused, what was kept for it is free again
// without a change of the state, so its end wakes the loop.
func (p *Planner) SuggestNewcomer(view state.View, newcomer Request) (state.Suggestion, func()) {
	out, done := p.suggest(view, queueOf(view, view.At()).requests, []Request{newcomer})
	return out[0], func() {
		done()
		select {
		case p.freed <- struct{}{}:
		default:
		}
	}
}

func (p *Planner) suggest(view state.View, ahead, requests []Request) (out []state.Suggestion, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	decisions := Place(ViewOf(view, p.flights()), append(ahead, requests...))[len(ahead):]
	var runs []string
	for i, d := range decisions {
		out = append(out, suggestion(d))
		if d.Node != "" {
			p.inFlight[d.Run] = flight{run: d.Run, uses: requests[i].uses(), node: d.Node, devices: d.Devices}
			runs = append(runs, d.Run)
		}
	}
	return out, func() { p.forget(runs) }
}

func (p *Planner) flights() []flight {
	var all []flight
	for _, f := range p.inFlight {
		all = append(all, f)
	}
	return all
}

func (p *Planner) forget(runs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range runs {
		delete(p.inFlight, r)
	}
}

func suggestion(d Decision) state.Suggestion {
	if d.Reason != nil {
		return state.Suggestion{Reason: string(d.Reason.Code), Message: d.Reason.Message, Impossible: d.Reason.Final()}
	}
	return state.Suggestion{Node: d.Node, Devices: d.Devices}
}

// ViewOf is what placement looks at: the state, with the suggestions in flight
// taken off what is free.
func ViewOf(view state.View, inFlight []flight) View {
	var v View
	for n := range view.Nodes() {
		used := Capacity{StorageMiB: view.PromisedStorage(n.ID)}
		for r := range view.NodeRuns(n.ID) {
			if r.Phase.Active() {
				used.add(Capacity{CPUMilli: r.Resources.CPUMilli, MemoryMiB: r.Resources.MemoryMiB})
			}
		}
		var devices []gpu.Device
		for d := range view.NodeDevices(n.ID) {
			devices = append(devices, *d)
		}
		for _, f := range inFlight {
			if f.node == n.ID && !applied(view, f.run) {
				used.add(f.uses)
				take(devices, f)
			}
		}
		node := NodeOf(n, devices, used)
		for x := range view.NodeVolumes(n.ID) {
			if x.Detached && !x.Lost() {
				node.DetachedMiB += x.SizeMiB
			}
		}
		v.Nodes = append(v.Nodes, node)
	}
	return v
}

// applied: the run is in the state with a place of its own.
func applied(view state.View, run string) bool {
	r := view.Run(run)
	return r != nil && r.Phase != workspace.PhasePending
}

func take(devices []gpu.Device, f flight) {
	for _, a := range f.devices {
		for i := range devices {
			if devices[i].UUID == a.UUID {
				held := append([]gpu.Holder(nil), devices[i].Holders...)
				devices[i].Holders = append(held, gpu.Holder{Run: f.run, Milli: a.Milli})
			}
		}
	}
}

func (c *Capacity) add(o Capacity) {
	c.CPUMilli += o.CPUMilli
	c.MemoryMiB += o.MemoryMiB
	c.StorageMiB += o.StorageMiB
}

// uses is what a request takes of the node it is placed on.
func (r *Request) uses() Capacity {
	return Capacity{r.Resources.CPUMilli, r.Resources.MemoryMiB, max(0, r.Resources.StorageMiB-r.VolumeMiB)}
}
