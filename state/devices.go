package state

import (
	"fmt"
	"slices"

	"berth/gpu"
	"berth/workspace"
)

var devices = table[gpu.Device]{name: "devices", indexes: []index[gpu.Device]{
	{name: "id", key: func(d *gpu.Device) []byte { return key(d.UUID) }},
	{name: "node", key: func(d *gpu.Device) []byte { return key(d.Node, d.UUID) }},
	{name: "parent", key: func(d *gpu.Device) []byte { return keyIf(d.Parent != "", d.Parent, d.UUID) }},
}}

// hold gives a run its devices: all of them or none. This is where it is
// decided that no more than 1000 milli of a device are ever held.
func (t *tx) hold(run *workspace.Run, node *workspace.Node, want []workspace.Allotment, epoch gpu.Epoch) (reason, message string) {
	if reason, message = rightShape(run, want); reason != "" {
		return reason, message
	}
	for _, a := range want {
		d := devices.get(t, "id", a.UUID)
		if d == nil || d.Node != node.ID {
			return "device_unknown", fmt.Sprintf("%s has no GPU %s", node.Name, a.UUID)
		}
		if slices.ContainsFunc(want, func(o workspace.Allotment) bool { return o.UUID == d.Parent }) {
			return "bad_suggestion", fmt.Sprintf("GPU %s is a slice of %s: a run can't have both", d.UUID, d.Parent)
		}
		if reason, message = t.deviceFits(d, &run.Resources, a.Milli); reason != "" {
			return reason, message
		}
	}
	for _, a := range want {
		n := *devices.get(t, "id", a.UUID)
		n.Holders = append(slices.Clone(n.Holders), gpu.Holder{Run: run.ID, Milli: a.Milli, Epoch: epoch})
		t.putDevice(&n)
	}
	return "", ""
}

// rightShape checks that a suggestion is what was asked for: as many distinct
// devices, whole or the share.
func rightShape(run *workspace.Run, want []workspace.Allotment) (reason, message string) {
	milli := run.Resources.MilliPerGPU()
	seen := map[string]bool{}
	for _, a := range want {
		if a.Milli != milli || seen[a.UUID] {
			return "bad_suggestion", "the scheduler's choice isn't what was asked for"
		}
		seen[a.UUID] = true
	}
	if len(want) != run.Resources.GPUCount {
		return "bad_suggestion", "the scheduler's choice isn't what was asked for"
	}
	return "", ""
}

// deviceFits says whether a run may have so much of a device now.
func (t *tx) deviceFits(d *gpu.Device, r *workspace.Resources, milli int) (reason, message string) {
	held := d.HeldMilli()
	switch {
	case d.Unusable != "":
		return "device_unusable", fmt.Sprintf("GPU %s can't be had: %s", d.UUID, d.Unusable)
	case d.Missing || d.Health != gpu.Healthy:
		return "device_unhealthy", fmt.Sprintf("GPU %s is not usable: %s", d.UUID, d.Message)
	case d.Blocked != "":
		return "device_blocked", fmt.Sprintf("GPU %s is held by the quarantined container %s", d.UUID, d.Blocked)
	case !gpu.Matches(r.GPUType, &d.Info) || !d.HasMemory(r.GPUMemoryMiB):
		return "device_mismatch", fmt.Sprintf("GPU %s (%s, %d MiB) isn't what was asked for", d.UUID, d.Type, d.MemoryMiB)
	case planted == mutantFreeDevice:
	case held+milli > gpu.MilliPerDevice:
		return "waiting_for_gpu", fmt.Sprintf("GPU %s has %d of 1000 milli held, %d are needed", d.UUID, held, milli)
	case t.familyHeld(d):
		return "waiting_for_gpu", fmt.Sprintf("GPU %s is held through its parent or its slices", d.UUID)
	}
	return "", ""
}

// familyHeld: a sliced device and its slices exclude each other.
func (t *tx) familyHeld(d *gpu.Device) bool {
	if d.Parent != "" {
		if p := devices.get(t, "id", d.Parent); p != nil && len(p.Holders) > 0 {
			return true
		}
	}
	for child := range devices.each(t, "parent", d.UUID) {
		if len(child.Holders) > 0 {
			return true
		}
	}
	return false
}

// releasing marks that a run has ended and its devices wait for their release.
func (t *tx) releasing(run *workspace.Run) {
	for _, a := range run.Devices {
		d := devices.get(t, "id", a.UUID)
		if d == nil {
			continue
		}
		n := *d
		n.Holders = slices.Clone(n.Holders)
		for i := range n.Holders {
			if n.Holders[i].Run == run.ID {
				n.Holders[i].Releasing = true
			}
		}
		t.putDevice(&n)
	}
}

// release takes a node's word that an ended run is off a device. A live run's
// holder never goes by a report.
func (t *tx) release(node string, rel *workspace.Release) {
	d := devices.get(t, "id", rel.Device)
	run := runs.get(t, "id", rel.Run)
	if d == nil || d.Node != node || run != nil && !run.Phase.Terminal() {
		return
	}
	i := slices.IndexFunc(d.Holders, func(h gpu.Holder) bool { return h.Run == rel.Run && h.Epoch == rel.Epoch })
	if i < 0 || rel.Stuck && d.Holders[i].Stuck {
		return
	}
	n := *d
	n.Holders = slices.Clone(n.Holders)
	if rel.Stuck {
		n.Holders[i].Stuck, n.Reason, n.Message = true, "release_unconfirmed", rel.Message
	} else {
		n.Holders = slices.Delete(n.Holders, i, i+1)
	}
	t.putDevice(&n)
	e := workspace.Event{Type: "device.released", Object: d.UUID, Run: rel.Run, Node: node, Message: "run " + rel.Run + " has left it"}
	if rel.Stuck {
		e.Type, e.Reason, e.Message = "device.stuck", n.Reason, n.Message
	}
	t.event(e)
	t.released(run)
}

// released notes when a run has no device left.
func (t *tx) released(run *workspace.Run) {
	if run == nil || !run.Unreleased {
		return
	}
	for _, a := range run.Devices {
		d := devices.get(t, "id", a.UUID)
		if d != nil && slices.ContainsFunc(d.Holders, func(h gpu.Holder) bool { return h.Run == run.ID }) {
			return
		}
	}
	n := *run
	n.Unreleased = false
	t.putRun(&n)
}

// putDevice writes a device with its derived state.
func (t *tx) putDevice(d *gpu.Device) {
	old := d.State
	d.State = d.DeriveState()
	if d.State != old {
		d.Since = t.at
	}
	if d.State != gpu.Stuck && d.Reason == "release_unconfirmed" {
		d.Reason, d.Message = "", ""
	}
	devices.put(t, d)
}

// setInventory brings a node's devices in line with what its driver lists. A
// device that is gone stays, as missing: a run may hold it. A held device stays
// its node's, whoever else lists it: only that node can say that it is free.
func (t *tx) setInventory(node string, inv *gpu.Inventory) {
	listed := map[string]bool{}
	for _, info := range inv.Devices {
		listed[info.UUID] = true
		n := gpu.Device{Info: info, Node: node, Health: gpu.Healthy, Since: t.at}
		old := devices.get(t, "id", info.UUID)
		if old != nil && old.Node != node && len(old.Holders) > 0 {
			t.event(workspace.Event{Type: "device.conflict", Object: info.UUID, Node: node, Reason: "held_elsewhere",
				Message: fmt.Sprintf("GPU %s is held on node %s, so it stays that node's", info.UUID, old.Node)})
			continue
		}
		if old != nil {
			n = *old
			n.Info, n.Node, n.Missing = info, node, false
			if n.Reason == "missing" {
				n.Reason, n.Message = "", ""
			}
		}
		t.putDevice(&n)
	}
	for _, d := range collect(devices.each(t, "node", node)) {
		if !listed[d.UUID] && !d.Missing {
			t.lostDevice(d)
		}
	}
}

func (t *tx) lostDevice(d *gpu.Device) {
	n := *d
	n.Missing, n.Reason, n.Message = true, "missing", "its driver doesn't list it any more"
	t.putDevice(&n)
	t.event(workspace.Event{Type: "device.missing", Object: n.UUID, Node: n.Node, Reason: n.Reason, Message: n.Message})
}

// setHealth takes an agent's judgement of one of its devices.
func (t *tx) setHealth(node string, h *workspace.DeviceHealth) {
	d := devices.get(t, "id", h.Device)
	if d == nil || d.Node != node || d.Health == h.Health && d.Reason == h.Reason {
		return
	}
	n := *d
	n.Health, n.Reason, n.Message, n.Since = h.Health, h.Reason, h.Message, t.at
	t.putDevice(&n)
	t.event(workspace.Event{Type: "device." + string(h.Health), Object: n.UUID, Node: node, Reason: h.Reason, Message: h.Message})
}

// setBlocked notes which devices quarantined containers have, whichever of the
// two was reported first.
func (t *tx) setBlocked(node string, orphans []workspace.Orphan) {
	by := map[string]string{}
	for _, o := range orphans {
		for _, uuid := range o.Devices {
			by[uuid] = o.Container
		}
	}
	for _, d := range collect(devices.each(t, "node", node)) {
		if d.Blocked != by[d.UUID] {
			n := *d
			n.Blocked = by[d.UUID]
			t.putDevice(&n)
		}
	}
}
