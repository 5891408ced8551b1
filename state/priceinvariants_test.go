package state

import (
	"fmt"

	"berth/gpu"
	"berth/workspace"
)

// ratesFrozen: what an entry places has the rate that the price book gives, worked
// out here in another way, and it never changes.
func ratesFrozen(before, after View, cmd Command) error {
	for old, r := range changes(before, after, runs) {
		switch {
		case r == nil || r.Kind == workspace.KindExternal:
		case old != nil && old.Node != "":
			if old.Rate != r.Rate {
				return fmt.Errorf("price: %T changed the rate of run %s from %d to %d", cmd, r.ID, old.Rate, r.Rate)
			}
		case r.Node != "":
			if want := rateOf(after, r); r.Rate != want {
				return fmt.Errorf("price: %T placed run %s at %d an hour, the price book says %d: %+v", cmd, r.ID, r.Rate, want, after.Prices())
			}
		case r.Rate != 0:
			return fmt.Errorf("price: run %s is %s and has a rate of %d", r.ID, r.Phase, r.Rate)
		}
	}
	return nil
}

func rateOf(v View, r *workspace.Run) int64 {
	sum := int64(0)
	for _, a := range r.Devices {
		sum += best(v, r.Node, priceGPU, v.Device(a.UUID)) * int64(a.Milli) / 1000
	}
	sum += best(v, r.Node, priceCPU, nil) * r.Resources.CPUMilli / 1000
	return min(workspace.MaxRate, sum+best(v, r.Node, priceMemory, nil)*r.Resources.MemoryMiB/1024)
}

// best is the price that goes before all others which fit: of the node, then of the
// longest type.
func best(v View, node, resource string, d *gpu.Device) (amount int64) {
	highest := -1
	for _, p := range v.Prices() {
		rank := len(p.GPUType)
		switch {
		case p.Resource != resource || p.Node != "" && p.Node != node:
			continue
		case p.GPUType == "*":
			rank = 0
		case d != nil && !gpu.Matches(p.GPUType, &d.Info):
			continue
		}
		if p.Node != "" {
			rank += 1000
		}
		if rank > highest {
			highest, amount = rank, p.Amount
		}
	}
	return amount
}
