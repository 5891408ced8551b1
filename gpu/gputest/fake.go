// Package gputest holds the fake of gpu.Reader and the suite that every
// implementation must pass.
package gputest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"berth/gpu"
)

// Fake is a Reader whose inventory, or failure, the test decides. Safe for
// concurrent use.
type Fake struct {
	mu        sync.Mutex
	inventory gpu.Inventory
	err       error
}

// New makes a Fake with count devices of a model (as the driver writes it) and
// no links; with 0, a host without a driver.
func New(model string, count int) *Fake {
	f := &Fake{inventory: gpu.Inventory{Source: "nvml", DriverVersion: "550.54.15", CUDAVersion: "12.4", Devices: []gpu.Info{}}}
	if count == 0 {
		f.inventory = gpu.Inventory{Source: "none", Message: "no NVIDIA driver is loaded", Devices: []gpu.Info{}}
	}
	for i := range count {
		f.inventory.Devices = append(f.inventory.Devices, gpu.Info{
			UUID:      fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", i),
			Index:     i,
			Minor:     int64(i),
			Model:     model,
			Type:      gpu.TypeName(model),
			Vendor:    "NVIDIA",
			MemoryMiB: 40960,
			NUMANode:  -1,
		})
	}
	return f
}

// Set replaces what the driver says, and ends a failure.
func (f *Fake) Set(inventory gpu.Inventory) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inventory, f.err = inventory, nil
}

// Fail makes Inventory return err until Set, or Fail with nil.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Inventory gives a copy of what was set, or the failure.
func (f *Fake) Inventory(ctx context.Context) (gpu.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return gpu.Inventory{}, err
	}
	if f.err != nil {
		return gpu.Inventory{}, f.err
	}
	inventory := f.inventory
	inventory.Devices = slices.Clone(inventory.Devices)
	inventory.Links = slices.Clone(inventory.Links)
	return inventory, nil
}

// Close does nothing.
func (f *Fake) Close() error { return nil }

// Readings gives none.
func (f *Fake) Readings(ctx context.Context) ([]gpu.Reading, error) { return nil, ctx.Err() }

// Processes gives none.
func (f *Fake) Processes(ctx context.Context) ([]gpu.Process, error) { return nil, ctx.Err() }

// Events waits for the end of ctx.
func (f *Fake) Events(ctx context.Context, _ func(gpu.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Status is that of a driver that has always answered.
func (f *Fake) Status() gpu.ReaderStatus { return gpu.ReaderStatus{} }
