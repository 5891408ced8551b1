// Package nvml reads GPUs from the NVIDIA driver, or simulates them where there
// is no hardware, and says which device nodes a container needs for one.
package nvml

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"berth/gpu"
)

// A simulated host: boards of eight devices, a CPU for every four, a PCIe
// switch or host bridge for every two.
const (
	perBoard = 8
	perCPU   = 4
	perPair  = 2
)

// The driver that the simulation claims: the oldest branch that supports every
// simulated model.
const (
	simulatedDriver = "550.54.15"
	simulatedCUDA   = "12.4"
)

// cubeMesh is the number of NVLinks between the devices of a DGX-1V, each of
// which has six (NVIDIA DGX-1 with Tesla V100 System Architecture, figure 4).
var cubeMesh = [perBoard][perBoard]int{
	{0, 1, 1, 2, 2, 0, 0, 0},
	{1, 0, 2, 1, 0, 2, 0, 0},
	{1, 2, 0, 2, 0, 0, 1, 0},
	{2, 1, 2, 0, 0, 0, 0, 1},
	{2, 0, 0, 0, 0, 1, 1, 2},
	{0, 2, 0, 0, 1, 0, 2, 1},
	{0, 0, 1, 0, 1, 2, 0, 2},
	{0, 0, 0, 1, 2, 1, 2, 0},
}

// Simulated is a Reader of devices that don't exist. The same node and
// simulation give the same inventory in every process, so that UUIDs survive a
// restart as a real device's do.
type Simulated struct {
	inventory gpu.Inventory
	model     gpu.Model
	now       func() time.Time

	mu   sync.Mutex
	held func(uuid string) bool
}

// NewSimulated makes the devices of a host; node is the id of its node, from
// which UUIDs and PCI addresses derive together with a device's index.
func NewSimulated(node string, sim gpu.Simulation) *Simulated {
	inventory := gpu.Inventory{
		Source:        "simulated",
		DriverVersion: simulatedDriver,
		CUDAVersion:   simulatedCUDA,
		Devices:       make([]gpu.Info, sim.Count),
	}
	for i := range sim.Count {
		inventory.Devices[i] = simulateDevice(node, i, sim.Model)
	}
	for i := range sim.Count {
		for j := i + 1; j < sim.Count; j++ {
			a, b := inventory.Devices[i].UUID, inventory.Devices[j].UUID
			inventory.Links = append(inventory.Links, gpu.Link{
				A: min(a, b), B: max(a, b),
				NVLink: nvlinks(sim.Model, i, j),
				PCIe:   closeness(sim.Model, i, j),
			})
		}
	}
	return &Simulated{
		inventory: inventory, model: sim.Model, now: time.Now,
		held: func(string) bool { return false },
	}
}

// Select leaves devices out, as a Driver's Include and Exclude do. It is for
// before the first Inventory.
func (s *Simulated) Select(include, exclude []string) {
	selectDevices(&s.inventory, include, exclude)
}

// Inventory gives a copy of the simulated devices.
func (s *Simulated) Inventory(ctx context.Context) (gpu.Inventory, error) {
	inventory := s.inventory
	inventory.Devices = append([]gpu.Info{}, inventory.Devices...)
	inventory.Links = append([]gpu.Link(nil), inventory.Links...)
	return inventory, ctx.Err()
}

// Close does nothing.
func (s *Simulated) Close() error { return nil }

func simulateDevice(node string, index int, model gpu.Model) gpu.Info {
	return gpu.Info{
		UUID:       uuid(node, index),
		Index:      index,
		Minor:      int64(index),
		Model:      model.Name,
		Type:       model.Type(),
		Vendor:     "NVIDIA",
		MemoryMiB:  model.MemoryMiB,
		PCIBusID:   pciBusID(node, index),
		NUMANode:   index / perCPU,
		Capability: model.Capability,
		Simulated:  true,
	}
}

func uuid(node string, index int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "simulated device %d of node %s", index, node))
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// pciBusID starts at a bus that differs between nodes and keeps every bus below
// 256 for gpu.MaxSimulated devices.
func pciBusID(node string, index int) string {
	h := sha256.Sum256([]byte("first bus of node " + node))
	first := 1 + binary.BigEndian.Uint16(h[:])%32
	return fmt.Sprintf("00000000:%02X:00.0", int(first)+3*index)
}

func nvlinks(model gpu.Model, i, j int) int {
	if i/perBoard != j/perBoard {
		return 0
	}
	switch model.Wiring {
	case gpu.Switched:
		return model.NVLinks
	case gpu.CubeMesh:
		return cubeMesh[i%perBoard][j%perBoard]
	default:
		return 0
	}
}

func closeness(model gpu.Model, i, j int) gpu.PCIeLink {
	switch {
	case i/perPair == j/perPair:
		return model.Pair
	case i/perCPU == j/perCPU:
		return gpu.LinkCPU
	default:
		return gpu.LinkSystem
	}
}

// Processes gives none: the containers' processes use nothing of a device that
// doesn't exist.
func (s *Simulated) Processes(ctx context.Context) ([]gpu.Process, error) { return nil, ctx.Err() }

// Events waits for the end of ctx: nothing happens to simulated devices.
func (s *Simulated) Events(ctx context.Context, _ func(gpu.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Status is that of a reader that always succeeds.
func (s *Simulated) Status() gpu.ReaderStatus { return gpu.ReaderStatus{LastSuccess: s.now()} }
