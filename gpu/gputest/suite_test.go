package gputest

import (
	"errors"
	"strings"
	"testing"

	"berth/gpu"
)

func TestFake(t *testing.T) {
	for _, count := range []int{0, 1, 8} {
		Suite(t, func(*testing.T) gpu.Reader { return New("NVIDIA A100-SXM4-40GB", count) })
	}
}

func TestFakeFailsWhenTold(t *testing.T) {
	fake, broken := New("Tesla T4", 1), errors.New("driver unresponsive")
	fake.Fail(broken)
	if _, err := fake.Inventory(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	fake.Set(gpu.Inventory{Source: "none", Message: "unloaded"})
	if inventory, err := fake.Inventory(t.Context()); err != nil || inventory.Message != "unloaded" {
		t.Errorf("after Set: %+v, %v", inventory, err)
	}
}

// Each promise of the suite is broken once; a suite that lets it pass checks
// nothing.
func TestProblemsFindsEachBreach(t *testing.T) {
	for _, test := range []struct {
		want  string
		spoil func(*gpu.Inventory)
	}{
		{"UUID", func(i *gpu.Inventory) { i.Devices[1].UUID = i.Devices[0].UUID }},
		{"is empty", func(i *gpu.Inventory) { i.Devices[0].Vendor = "" }},
		{"minor 0", func(i *gpu.Inventory) { i.Devices[1].Minor = 0 }},
		{"PCI address", func(i *gpu.Inventory) { i.Devices[0].PCIBusID, i.Devices[1].PCIBusID = "x", "x" }},
		{"type", func(i *gpu.Inventory) { i.Devices[0].Type = "TESLA-T4" }},
		{"0 MiB", func(i *gpu.Inventory) { i.Devices[0].MemoryMiB = 0 }},
		{"NUMA node", func(i *gpu.Inventory) { i.Devices[0].NUMANode = -2 }},
		{"simulated is true", func(i *gpu.Inventory) { i.Devices[0].Simulated = true }},
		{"parent", func(i *gpu.Inventory) { i.Devices[0].Parent = "GPU-x" }},
		{"parent", func(i *gpu.Inventory) { i.Devices[0].Parent = i.Devices[0].UUID }},
		{"not one of", func(i *gpu.Inventory) { i.Source = "guess" }},
		{"from no source", func(i *gpu.Inventory) { i.Source = "none" }},
		{"no driver version", func(i *gpu.Inventory) { i.DriverVersion = "" }},
		{"no message", func(i *gpu.Inventory) { i.Devices, i.Links = []gpu.Info{}, nil }},
		{"null", func(i *gpu.Inventory) { i.Devices, i.Links, i.Message = nil, nil, "none here" }},
		{"smaller UUID", func(i *gpu.Inventory) { i.Links[0].A, i.Links[0].B = i.Links[0].B, i.Links[0].A }},
		{"first is no device", func(i *gpu.Inventory) { i.Links[0].A = "A" }},
		{"second is no device", func(i *gpu.Inventory) { i.Links[0].B = "Z" }},
		{"given twice", func(i *gpu.Inventory) { i.Links = append(i.Links, i.Links[0]) }},
		{"-1 NVLinks", func(i *gpu.Inventory) { i.Links[0].NVLink = -1 }},
		{`PCIe "near"`, func(i *gpu.Inventory) { i.Links[0].PCIe = "near" }},
	} {
		inventory, err := New("Tesla T4", 2).Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inventory.Links = []gpu.Link{{A: inventory.Devices[0].UUID, B: inventory.Devices[1].UUID, PCIe: gpu.LinkCPU}}
		if problems := Problems(inventory); len(problems) > 0 {
			t.Fatalf("a good inventory has problems: %q", problems)
		}
		test.spoil(&inventory)
		if problems := strings.Join(Problems(inventory), "\n"); !strings.Contains(problems, test.want) {
			t.Errorf("breach %q isn't found: %q", test.want, problems)
		}
	}
}
