package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxSimulated is the most devices a host can simulate.
const MaxSimulated = 64

// Simulation asks for Count devices of one model where there is no hardware.
// The zero value asks for none.
type Simulation struct {
	Model Model
	Count int // 1 … MaxSimulated
}

// Model is what the simulation must know of a model to look like it.
type Model struct {
	Name      string // as the driver says: "NVIDIA A100-SXM4-80GB"
	MemoryMiB int64  // as the driver reports it, a little less than the label on some
	Wiring    Wiring
	NVLinks   int      // between any two on a Switched board
	Pair      PCIeLink // how the closest two devices meet over PCIe
	// Capability is the CUDA compute capability (developer.nvidia.com/cuda-gpus).
	Capability string
	PowerLimit float64 // W, as sold
	SMClock    float64 // MHz, the highest
	MemClock   float64 // MHz
}

// Wiring is how the devices of a board are joined by NVLink. A board has eight.
type Wiring int

// The wirings of the models we simulate.
const (
	Unwired  Wiring = iota // PCIe cards without bridges
	Switched               // every two through NVSwitch
	CubeMesh               // hybrid cube mesh with one or two links (DGX-1V)
)

// Type is the model's canonical type.
func (m Model) Type() string { return TypeName(m.Name) }

// models are those that can be simulated, in the order people are told them.
var models = []Model{
	{"NVIDIA A100-SXM4-80GB", 81920, Switched, 12, LinkMultiSwitch, "8.0", 400, 1410, 1593},
	{"NVIDIA A100-SXM4-40GB", 40960, Switched, 12, LinkMultiSwitch, "8.0", 400, 1410, 1215},
	{"NVIDIA A100-PCIE-40GB", 40960, Unwired, 0, LinkSwitch, "8.0", 250, 1410, 1215},
	{"NVIDIA H100 80GB HBM3", 81559, Switched, 18, LinkMultiSwitch, "9.0", 700, 1980, 2619},
	{"NVIDIA H100 PCIe", 81559, Unwired, 0, LinkSwitch, "9.0", 350, 1755, 1593},
	{"NVIDIA H200", 143771, Switched, 18, LinkMultiSwitch, "9.0", 700, 1980, 3201},
	{"NVIDIA L4", 23034, Unwired, 0, LinkHostBridge, "8.9", 72, 2040, 6251},
	{"NVIDIA L40S", 46068, Unwired, 0, LinkSwitch, "8.9", 350, 2520, 9001},
	{"Tesla T4", 15360, Unwired, 0, LinkHostBridge, "7.5", 70, 1590, 5001},
	{"Tesla V100-SXM2-32GB", 32768, CubeMesh, 0, LinkSwitch, "7.0", 300, 1530, 877},
	{"NVIDIA A10", 23028, Unwired, 0, LinkHostBridge, "8.6", 150, 1695, 6251},
	{"NVIDIA GeForce RTX 4090", 24564, Unwired, 0, LinkHostBridge, "8.9", 450, 3105, 10501},
}

// SimulatedTypes lists the canonical types that ParseSimulation knows.
func SimulatedTypes() []string {
	types := make([]string, len(models))
	for i, m := range models {
		types[i] = m.Type()
	}
	return types
}

// ParseSimulation reads MODEL:COUNT, such as "A100-SXM4-80GB:8". The model is
// written in any case, with or without "NVIDIA "; the error says what would be
// right.
func ParseSimulation(s string) (Simulation, error) {
	name, number, ok := strings.Cut(strings.TrimSpace(s), ":")
	if !ok || name == "" {
		return Simulation{}, fmt.Errorf("simulated GPUs %q: want MODEL:COUNT, such as %s:8", s, models[0].Type())
	}
	model, ok := modelOf(name)
	if !ok {
		return Simulation{}, fmt.Errorf("simulated GPUs %q: no model %q; known are %s",
			s, name, strings.Join(SimulatedTypes(), ", "))
	}
	count, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || count < 1 || count > MaxSimulated {
		return Simulation{}, fmt.Errorf("simulated GPUs %q: the count must be a whole number from 1 to %d, not %q",
			s, MaxSimulated, number)
	}
	return Simulation{Model: model, Count: count}, nil
}

// String is the form that ParseSimulation reads; empty for none.
func (s Simulation) String() string {
	if s.Count == 0 {
		return ""
	}
	return s.Model.Type() + ":" + strconv.Itoa(s.Count)
}

func modelOf(name string) (Model, bool) {
	wanted := TypeName(name)
	for _, m := range models {
		if m.Type() == wanted {
			return m, true
		}
	}
	return Model{}, false
}
