// Package scheduler says which node and which devices a run gets. Placement is
// pure: it suggests, from one view of the cluster; the entry that places a run
// checks the suggestion again.
package scheduler

import (
	"cmp"

	"berth/workspace"
)

// Place decides the requests in their order, each on what the earlier ones
// left. It gives one decision per request, in the same order, and is
// deterministic: the order of nodes matters to neither feasibility nor choice.
func Place(view View, requests []Request) []Decision {
	hosts := newHosts(view)
	decisions := make([]Decision, len(requests))
	for i := range requests {
		decisions[i] = placeOne(hosts, &requests[i])
	}
	return decisions
}

func placeOne(hosts []host, request *Request) Decision {
	d := newDemand(request)
	var best *host
	var bestRank rank
	for i := range hosts {
		f := d.on(&hosts[i])
		if firstRefusal(f) != nil {
			continue
		}
		if r := rankOf(f); best == nil || r.before(bestRank) {
			best, bestRank = f.host, r
		}
	}
	if best == nil {
		return Decision{Run: request.Run, Reason: explain(hosts, d)}
	}
	chosen := chooseDevices(d.on(best))
	best.take(d, chosen)
	decision := Decision{Run: request.Run, Node: best.node.ID}
	for _, i := range chosen {
		decision.Devices = append(decision.Devices,
			workspace.Allotment{UUID: best.node.Devices[i].UUID, Milli: d.milli})
	}
	return decision
}

// rank orders the nodes that fit, best fit first: don't break an idle device
// for a share, then fill the node with the least GPU left (a run without GPUs
// so keeps off the GPU nodes), then the one with the least CPU left.
type rank struct {
	breaksIdle int
	freeMilli  int
	freeCPU    int64
	id         string
}

func (r rank) before(o rank) bool {
	return cmp.Or(
		cmp.Compare(r.breaksIdle, o.breaksIdle),
		cmp.Compare(r.freeMilli, o.freeMilli),
		cmp.Compare(r.freeCPU, o.freeCPU),
		cmp.Compare(r.id, o.id),
	) < 0
}

func rankOf(f fit) rank {
	r := rank{freeMilli: f.host.freeMilli(), freeCPU: f.host.free.CPUMilli, id: f.host.node.ID}
	if !f.demand.whole() {
		r.breaksIdle = f.idleNeeded()
	}
	return r
}
