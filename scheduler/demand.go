package scheduler

import (
	"strings"

	"berth/gpu"
)

// demand is a request made ready for many nodes.
type demand struct {
	request *Request
	count   int           // devices
	milli   int           // of each
	types   map[kind]bool // matches, as far as met
	room    []int         // reused by on
}

// kind is what a request's type is matched against.
type kind struct {
	name  string
	slice bool
}

func newDemand(request *Request) *demand {
	r := &request.Resources
	d := &demand{request: request, count: r.GPUCount, milli: gpu.MilliPerDevice, types: map[kind]bool{}}
	if r.GPUShare > 0 && r.GPUShare < gpu.MilliPerDevice {
		d.milli = r.GPUShare
		d.count = max(1, d.count)
	}
	return d
}

func (d *demand) whole() bool { return d.milli == gpu.MilliPerDevice }

// matches reports whether the hardware is of the kind asked for.
func (d *demand) matches(info *gpu.Device) bool {
	r := &d.request.Resources
	if !info.HasMemory(r.GPUMemoryMiB) || r.GPUVendor != "" && !strings.EqualFold(r.GPUVendor, info.Vendor) {
		return false
	}
	k := kind{info.Type, info.Parent != ""}
	match, known := d.types[k]
	if !known {
		match = gpu.Matches(r.GPUType, &info.Info)
		d.types[k] = match
	}
	return match
}

// fit is a demand looked at on one host.
type fit struct {
	host   *host
	demand *demand
	kind   int   // present devices of the kind asked for, busy and broken ones too
	room   []int // those that can give the milli now, by index; valid until the next on
	// unusable is why one of the kind asked for can't be had, though it is there.
	unusable string
}

func (d *demand) on(h *host) fit {
	f := fit{host: h, demand: d}
	if d.count == 0 {
		return f
	}
	d.room = d.room[:0]
	for i := range h.devices {
		info := &h.node.Devices[i]
		if info.Missing || !d.matches(info) {
			continue
		}
		if info.Unusable != "" {
			f.unusable = info.Unusable
			continue
		}
		if !h.sliced || !f.sliceStandsFor(i, false) {
			f.kind++
		}
		if h.hasRoom(i, d.milli) && (!h.sliced || !f.sliceStandsFor(i, true)) {
			d.room = append(d.room, i)
		}
	}
	f.room = d.room
	return f
}

// sliceStandsFor reports whether device i has a slice that would do as well
// (withRoom: do so now). Device and slice can't both be given, and a device has
// at least as many slices as itself, so leaving it out loses nothing.
func (f *fit) sliceStandsFor(i int, withRoom bool) bool {
	for j := range f.host.devices {
		info := &f.host.node.Devices[j]
		if f.host.devices[j].parent == i && !info.Missing && info.Unusable == "" && f.demand.matches(info) &&
			(!withRoom || f.host.hasRoom(j, f.demand.milli)) {
			return true
		}
	}
	return false
}

// idleNeeded is how many untouched devices a share has to break here.
func (f *fit) idleNeeded() int {
	started := 0
	for _, i := range f.room {
		if f.host.devices[i].held > 0 {
			started++
		}
	}
	return max(0, f.demand.count-started)
}

// storageHere is how much of the storage asked for the run's volume on this host
// has already.
func (d *demand) storageHere(h *host) int64 {
	if d.request.Node == "" || d.request.Node != h.node.ID {
		return 0
	}
	return min(d.request.VolumeMiB, d.request.Resources.StorageMiB)
}
