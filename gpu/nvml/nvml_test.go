package nvml

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/gpu/gputest"
)

func simulation(t *testing.T, text string) gpu.Simulation {
	t.Helper()
	sim, err := gpu.ParseSimulation(text)
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

func inventoryOf(t *testing.T, reader gpu.Reader) gpu.Inventory {
	t.Helper()
	inventory, err := reader.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inventory
}

func TestSuite(t *testing.T) {
	for _, model := range gpu.SimulatedTypes() {
		t.Run(model, func(t *testing.T) {
			sim := simulation(t, model+":8")
			gputest.Suite(t, func(*testing.T) gpu.Reader { return NewSimulated("node-1", sim) })
		})
	}
	t.Run("as many as can be", func(t *testing.T) {
		sim := simulation(t, fmt.Sprintf("T4:%d", gpu.MaxSimulated))
		gputest.Suite(t, func(*testing.T) gpu.Reader { return NewSimulated("node-1", sim) })
	})
	t.Run("no driver", func(t *testing.T) {
		gputest.Suite(t, func(t *testing.T) gpu.Reader { return NewDriver(Config{Root: t.TempDir()}) })
	})
}

// UUIDs are names in the replicated state: a change of how they derive would
// orphan every simulated device, so one is written down here.
func TestUUIDsDeriveFromNodeAndIndex(t *testing.T) {
	const pinned = "GPU-85ee7a79-3e2e-b1c2-1155-49359f07dc84"
	one := inventoryOf(t, NewSimulated("node-1", simulation(t, "T4:2"))).Devices
	if one[0].UUID != pinned {
		t.Errorf("first device of node-1 is %s, want %s", one[0].UUID, pinned)
	}
	more := inventoryOf(t, NewSimulated("node-1", simulation(t, "T4:8"))).Devices
	if diff := cmp.Diff(one, more[:2]); diff != "" {
		t.Errorf("a host with more devices renames the first (-two +eight):\n%s", diff)
	}
	seen := map[string]string{}
	for _, node := range []string{"node-1", "node-2", "node-11"} {
		for _, d := range inventoryOf(t, NewSimulated(node, simulation(t, "T4:64"))).Devices {
			if other, ok := seen[d.UUID]; ok {
				t.Errorf("%s is of %s and of %s", d.UUID, node, other)
			}
			seen[d.UUID] = node
		}
	}
}

func TestModelsLookLikeTheDriver(t *testing.T) {
	for text, want := range map[string]gpu.Info{
		"A100-SXM4-80GB:1": {Model: "NVIDIA A100-SXM4-80GB", MemoryMiB: 81920},
		"H100-80GB-HBM3:1": {Model: "NVIDIA H100 80GB HBM3", MemoryMiB: 81559},
		"T4:1":             {Model: "Tesla T4", MemoryMiB: 15360},
	} {
		got := inventoryOf(t, NewSimulated("node-1", simulation(t, text))).Devices[0]
		if got.Model != want.Model || got.MemoryMiB != want.MemoryMiB || got.Vendor != "NVIDIA" {
			t.Errorf("%s: %+v, want %s with %d MiB", text, got, want.Model, want.MemoryMiB)
		}
	}
}

// topology writes the links of a host as a matrix by index.
func topology(t *testing.T, text string) string {
	inventory := inventoryOf(t, NewSimulated("node-1", simulation(t, text)))
	index := map[string]int{}
	for i, d := range inventory.Devices {
		index[d.UUID] = i
	}
	n := len(inventory.Devices)
	cells := make([][]string, n)
	for i := range cells {
		cells[i] = make([]string, n)
		cells[i][i] = "-"
	}
	for _, l := range inventory.Links {
		a, b := index[l.A], index[l.B]
		cell := string(l.PCIe)
		if l.NVLink > 0 {
			cell = fmt.Sprintf("nv%d", l.NVLink)
		}
		cells[a][b], cells[b][a] = cell, cell
	}
	lines := make([]string, n)
	for i := range cells {
		lines[i] = strings.Join(cells[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestTopology(t *testing.T) {
	for text, want := range map[string]string{
		"A100-SXM4-80GB:3": "- nv12 nv12\nnv12 - nv12\nnv12 nv12 -",
		"L4:5": "- host_bridge cpu cpu system\nhost_bridge - cpu cpu system\n" +
			"cpu cpu - host_bridge system\ncpu cpu host_bridge - system\nsystem system system system -",
		"H100-PCIE:2": "- switch\nswitch -",
		"V100-SXM2-32GB:8": "- nv1 nv1 nv2 nv2 system system system\n" +
			"nv1 - nv2 nv1 system nv2 system system\n" +
			"nv1 nv2 - nv2 system system nv1 system\n" +
			"nv2 nv1 nv2 - system system system nv1\n" +
			"nv2 system system system - nv1 nv1 nv2\n" +
			"system nv2 system system nv1 - nv2 nv1\n" +
			"system system nv1 system nv1 nv2 - nv2\n" +
			"system system system nv1 nv2 nv1 nv2 -",
	} {
		if diff := cmp.Diff(want, topology(t, text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// NVLink doesn't cross boards, and every device of a cube mesh has six links.
func TestNVLinkBudget(t *testing.T) {
	for text, perDevice := range map[string]int{"A100-SXM4-80GB:16": 12 * 7, "V100-SXM2-32GB:16": 6, "T4:16": 0} {
		inventory := inventoryOf(t, NewSimulated("node-1", simulation(t, text)))
		links := map[string]int{}
		for _, l := range inventory.Links {
			links[l.A] += l.NVLink
			links[l.B] += l.NVLink
		}
		for _, d := range inventory.Devices {
			if links[d.UUID] != perDevice {
				t.Errorf("%s: device %d has %d links to others, want %d", text, d.Index, links[d.UUID], perDevice)
			}
		}
	}
}

func TestDetect(t *testing.T) {
	const closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
	const open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.51  Release Build  (root)\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  Kernel
	}{
		{"nothing", nil, Kernel{}},
		{"another driver", map[string]string{"sys/module/nouveau/version": "1.0"}, Kernel{}},
		{"closed module", map[string]string{procVersion: closed}, Kernel{true, "550.54.15"}},
		{"open module", map[string]string{procVersion: open}, Kernel{true, "575.51"}},
		{"module only", map[string]string{"sys/module/nvidia/version": "535.161.08\n"}, Kernel{true, "535.161.08"}},
		{"both", map[string]string{procVersion: closed, "sys/module/nvidia/version": "1.2"}, Kernel{true, "550.54.15"}},
		{"first says nothing", map[string]string{procVersion: "", "sys/module/nvidia/version": "535.161.08\n"}, Kernel{true, "535.161.08"}},
		{"says no version", map[string]string{"sys/module/nvidia/refcnt": "3"}, Kernel{true, ""}},
	} {
		root := t.TempDir()
		for path, text := range test.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := Detect(root); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// A container gets its own device and no node that reaches another.
func TestDeviceNodes(t *testing.T) {
	for _, d := range inventoryOf(t, NewSimulated("node-1", simulation(t, "T4:3"))).Devices {
		want := []DeviceNode{{Path: fmt.Sprintf("/dev/nvidia%d", d.Index), Major: 195, Minor: int64(d.Index)}}
		if diff := cmp.Diff(want, DeviceNodes(d)); diff != "" {
			t.Errorf("device %d (-want +got):\n%s", d.Index, diff)
		}
	}
}
