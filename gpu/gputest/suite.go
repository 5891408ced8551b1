package gputest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
)

// Suite checks what every Reader promises. open must give a Reader of the same
// host each time; the suite closes it.
func Suite(t *testing.T, open func(t *testing.T) gpu.Reader) {
	t.Helper()
	t.Run("stable across calls and readers", func(t *testing.T) {
		first, second := open(t), open(t)
		want := read(t, first)
		if diff := cmp.Diff(want, read(t, first)); diff != "" {
			t.Errorf("a second call differs (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(want, read(t, second)); diff != "" {
			t.Errorf("a second reader differs (-first +second):\n%s", diff)
		}
		shut(t, first)
		if diff := cmp.Diff(want, read(t, second)); diff != "" {
			t.Errorf("closing one reader changes another (-before +after):\n%s", diff)
		}
		shut(t, second)
	})
	t.Run("callers own what they get", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		want, spoilt := read(t, reader), read(t, reader)
		want.Devices, want.Links = slices.Clone(want.Devices), slices.Clone(want.Links)
		clear(spoilt.Devices)
		clear(spoilt.Links)
		if diff := cmp.Diff(want, read(t, reader)); diff != "" {
			t.Errorf("a caller's change shows (-before +after):\n%s", diff)
		}
	})
	t.Run("consistent", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		for _, problem := range Problems(read(t, reader)) {
			t.Error(problem)
		}
	})
	t.Run("an ended context is an error", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := reader.Inventory(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("inventory: error %v, want %v", err, context.Canceled)
		}
		if _, err := reader.Readings(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("readings: error %v, want %v", err, context.Canceled)
		}
		if _, err := reader.Processes(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("processes: error %v, want %v", err, context.Canceled)
		}
	})
	t.Run("soft state", func(t *testing.T) { softSuite(t, open) })
}

// Problems lists what is wrong with an inventory in itself; empty when nothing
// is.
func Problems(inventory gpu.Inventory) []string {
	problems := sourceProblems(inventory)
	byUUID := map[string]gpu.Info{}
	for _, d := range inventory.Devices {
		if _, ok := byUUID[d.UUID]; ok {
			problems = append(problems, fmt.Sprintf("UUID %s twice", d.UUID))
		}
		byUUID[d.UUID] = d
	}
	problems = append(problems, deviceProblems(inventory, byUUID)...)
	return append(problems, linkProblems(inventory, byUUID)...)
}

func sourceProblems(inventory gpu.Inventory) (problems []string) {
	if !slices.Contains([]string{"nvml", "simulated", "none"}, inventory.Source) {
		problems = append(problems, fmt.Sprintf("source %q is not one of the contract's", inventory.Source))
	}
	if inventory.Devices == nil {
		problems = append(problems, "devices are null: JSON readers expect a list")
	}
	if len(inventory.Devices) == 0 && inventory.Message == "" {
		problems = append(problems, "no devices and no message that says why")
	}
	if inventory.Source == "none" && len(inventory.Devices) > 0 {
		problems = append(problems, "devices from no source")
	}
	if inventory.Source != "none" && inventory.DriverVersion == "" {
		problems = append(problems, "no driver version")
	}
	return problems
}

func deviceProblems(inventory gpu.Inventory, byUUID map[string]gpu.Info) (problems []string) {
	minors, buses := map[int64]string{}, map[string]string{}
	for _, d := range inventory.Devices {
		bad := func(format string, args ...any) {
			problems = append(problems, d.UUID+": "+fmt.Sprintf(format, args...))
		}
		if d.UUID == "" || d.Model == "" || d.Vendor == "" {
			bad("UUID, model or vendor is empty")
		}
		if d.Type != gpu.TypeName(d.Model) {
			bad("type %q, want %q from model %q", d.Type, gpu.TypeName(d.Model), d.Model)
		}
		if d.MemoryMiB <= 0 {
			bad("%d MiB of memory", d.MemoryMiB)
		}
		if d.NUMANode < -1 {
			bad("NUMA node %d", d.NUMANode)
		}
		if d.Simulated != (inventory.Source == "simulated") {
			bad("simulated is %v in an inventory from %q", d.Simulated, inventory.Source)
		}
		if d.Parent != "" { // a slice shares its parent's minor and address
			if parent, ok := byUUID[d.Parent]; !ok || parent.Parent != "" {
				bad("parent %s is not a whole device of this host", d.Parent)
			}
			continue
		}
		if other, ok := minors[d.Minor]; ok {
			bad("minor %d is %s's too", d.Minor, other)
		}
		if other, ok := buses[d.PCIBusID]; ok && d.PCIBusID != "" {
			bad("PCI address %s is %s's too", d.PCIBusID, other)
		}
		minors[d.Minor], buses[d.PCIBusID] = d.UUID, d.UUID
	}
	return problems
}

func linkProblems(inventory gpu.Inventory, byUUID map[string]gpu.Info) (problems []string) {
	levels := []gpu.PCIeLink{
		gpu.LinkBoard, gpu.LinkSwitch, gpu.LinkMultiSwitch, gpu.LinkHostBridge, gpu.LinkCPU, gpu.LinkSystem,
	}
	seen := map[[2]string]bool{}
	for _, l := range inventory.Links {
		bad := func(text string) { problems = append(problems, fmt.Sprintf("link %s to %s: %s", l.A, l.B, text)) }
		if _, ok := byUUID[l.A]; !ok {
			bad("the first is no device of this host")
		}
		if _, ok := byUUID[l.B]; !ok {
			bad("the second is no device of this host")
		}
		if l.A >= l.B {
			bad("the smaller UUID must come first")
		}
		if seen[[2]string{l.A, l.B}] {
			bad("given twice")
		}
		seen[[2]string{l.A, l.B}] = true
		if l.NVLink < 0 || !slices.Contains(levels, l.PCIe) {
			bad(fmt.Sprintf("%d NVLinks, PCIe %q", l.NVLink, l.PCIe))
		}
	}
	return problems
}

func read(t *testing.T, reader gpu.Reader) gpu.Inventory {
	t.Helper()
	inventory, err := reader.Inventory(t.Context())
	if err != nil {
		t.Fatalf("inventory: %v", err)
	}
	return inventory
}

func shut(t *testing.T, reader gpu.Reader) {
	t.Helper()
	if err := reader.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
