package scheduler

import (
	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

// View is what placement looks at: every registered node, unreachable ones
// too, because they decide whether a GPU kind exists at all.
type View struct{ Nodes []Node }

// Node is a host with what it offers and what is taken of it.
type Node struct {
	ID   string
	Name string
	// Closed says why the node takes no new runs ("draining", "unreachable",
	// …); empty when it takes them.
	Closed string
	// Reported is whether the node has ever told its devices. Until it has, no
	// GPU kind counts as absent.
	Reported bool
	// Shares is whether runs can share one of its GPUs.
	Shares bool
	// DetachedMiB is how much of what is used are volumes of no instance.
	DetachedMiB int64
	Total       Capacity
	Used        Capacity // of the runs placed here that aren't over, and of all volumes
	Devices     []gpu.Device
	Links       []gpu.Link
}

// Capacity is what runs need besides devices.
type Capacity struct{ CPUMilli, MemoryMiB, StorageMiB int64 }

// Request is one run to be placed.
type Request struct {
	Run       string
	Resources workspace.Resources
	Node      string // id of the only node allowed (its volume is there); empty: any
	VolumeMiB int64  // that its volume there has already
}

// RequestFor makes the request of a run of the state, or of one to come of an
// instance of the state.
func RequestFor(view state.View, run *workspace.Run) Request {
	return Request{Run: run.ID, Resources: run.Resources}.on(view.VolumeOf(run))
}

// on ties a request to a volume; nil ties it to none.
func (r Request) on(v *workspace.Volume) Request {
	if v != nil {
		r.Node, r.VolumeMiB = v.Node, v.SizeMiB
	}
	return r
}

// RequestOn makes the request of a run to come of a new instance that goes on
// with a detached volume; a volume that isn't there is for Apply to refuse.
func RequestOn(view state.View, run string, r workspace.Resources, volume string) Request {
	return Request{Run: run, Resources: r}.on(view.Volume(volume))
}

// Decision is what Place says of one request: a node with devices, or a reason.
type Decision struct {
	Run     string
	Node    string                // empty when not placed
	Devices []workspace.Allotment // empty without GPUs
	Reason  *Reason               // nil when placed
}

// NodeOf makes placement's view of a node from its record, its devices and
// what its runs use.
func NodeOf(n *workspace.Node, devices []gpu.Device, used Capacity) Node {
	return Node{
		ID:       n.ID,
		Name:     n.Name,
		Closed:   closed(n),
		Reported: n.Facts.GPUSource != "",
		Shares:   n.Facts.Sharing != "",
		Total:    Capacity{n.Facts.CPUMilli, n.Facts.MemoryMiB, n.Facts.StorageMiB},
		Used:     used,
		Devices:  devices,
		Links:    n.Links,
	}
}

// closed names the one thing that must change first before the node takes runs.
func closed(n *workspace.Node) string {
	switch {
	case n.Draining:
		return "draining"
	case n.Cordoned:
		return "cordoned"
	case !n.Reachable:
		return "unreachable"
	case !n.Ready:
		return "not ready"
	default:
		return ""
	}
}
