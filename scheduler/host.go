package scheduler

import (
	"berth/gpu"
)

// host is a node during one Place: its view, less what this batch took.
type host struct {
	node    *Node
	free    Capacity
	devices []device
	sliced  bool // some device has a parent
}

// device is the part of a device that changes while a batch is placed.
type device struct {
	usable     bool // healthy, present, none of its holders on their way out
	held       int  // milli
	parent     int  // index of the device this is a slice of; -1 for none
	heldSlices int  // how many of its slices are held
}

func newHosts(view View) []host {
	hosts := make([]host, len(view.Nodes))
	total := 0
	for i := range view.Nodes {
		total += len(view.Nodes[i].Devices)
	}
	slab := make([]device, total)
	for i := range view.Nodes {
		n := &view.Nodes[i]
		count := len(n.Devices)
		hosts[i] = host{node: n, devices: slab[:count:count], free: Capacity{
			CPUMilli:   n.Total.CPUMilli - n.Used.CPUMilli,
			MemoryMiB:  n.Total.MemoryMiB - n.Used.MemoryMiB,
			StorageMiB: n.Total.StorageMiB - n.Used.StorageMiB,
		}}
		slab = slab[count:]
		hosts[i].readDevices()
	}
	return hosts
}

func (h *host) readDevices() {
	for i := range h.devices {
		info := &h.node.Devices[i]
		state := info.DeriveState()
		h.devices[i] = device{
			usable: info.Unusable == "" && info.Health == gpu.Healthy && !info.Missing && info.Blocked == "" && (state == gpu.Free || state == gpu.Held),
			held:   info.HeldMilli(),
			parent: -1,
		}
		h.sliced = h.sliced || info.Parent != ""
	}
	if !h.sliced {
		return
	}
	index := make(map[string]int, len(h.devices))
	for i := range h.node.Devices {
		index[h.node.Devices[i].UUID] = i
	}
	for i := range h.devices {
		parent, ok := index[h.node.Devices[i].Parent]
		if !ok {
			continue
		}
		h.devices[i].parent = parent
		if h.devices[i].held > 0 {
			h.devices[parent].heldSlices++
		}
	}
}

// hasRoom reports whether device i can give milli now: a slice only while its
// parent isn't held, and the reverse.
func (h *host) hasRoom(i, milli int) bool {
	d := &h.devices[i]
	return d.usable && d.held+milli <= gpu.MilliPerDevice && d.heldSlices == 0 &&
		(d.parent < 0 || h.devices[d.parent].held == 0)
}

// freeMilli is what is left of the usable devices.
func (h *host) freeMilli() int {
	sum := 0
	for i := range h.devices {
		if h.devices[i].usable {
			sum += gpu.MilliPerDevice - h.devices[i].held
		}
	}
	return sum
}

// take notes that the demand got these devices.
func (h *host) take(d *demand, chosen []int) {
	r := &d.request.Resources
	h.free.CPUMilli -= r.CPUMilli
	h.free.MemoryMiB -= r.MemoryMiB
	h.free.StorageMiB -= r.StorageMiB - d.storageHere(h)
	for _, i := range chosen {
		if parent := h.devices[i].parent; parent >= 0 && h.devices[i].held == 0 {
			h.devices[parent].heldSlices++
		}
		h.devices[i].held += d.milli
	}
}
