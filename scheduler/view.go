package scheduler

import (
	"berth/gpu"
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
	Total    Capacity
	Used     Capacity // of the runs placed here that aren't over
	Devices  []gpu.Device
	Links    []gpu.Link
}

// Capacity is what runs need besides devices.
type Capacity struct{ CPUMilli, MemoryMiB, StorageMiB int64 }

// Request is one run to be placed.
type Request struct {
	Run       string
	Resources workspace.Resources
	Node      string // id of the only node allowed (its volume is there); empty: any
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
