// Package gputest holds the fake of gpu.Reader and the suite that every
// implementation must pass.
package gputest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"berth/gpu"
)

// Fake is a Reader whose inventory, readings, processes, events, and failure the
// test decides. Safe for concurrent use.
type Fake struct {
	mu        sync.Mutex
	inventory gpu.Inventory
	readings  []gpu.Reading
	processes []gpu.Process
	err       error
	status    gpu.ReaderStatus
	watchers  map[chan gpu.Event]bool
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

// SetReadings replaces what the devices measure; as they are given.
func (f *Fake) SetReadings(readings ...gpu.Reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readings = readings
}

// SetProcesses replaces the processes that use a device.
func (f *Fake) SetProcesses(processes ...gpu.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.processes = processes
}

// Emit gives an event to all that call Events now, and says to how many.
func (f *Fake) Emit(e gpu.Event) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		w <- e
	}
	return len(f.watchers)
}

// Fail makes all reading return err until Set, or Fail with nil.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// ask is what every call does first. mu must be held.
func (f *Fake) ask(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.err != nil {
		f.status.Unresponsive, f.status.Message = errors.Is(f.err, gpu.ErrUnresponsive), f.err.Error()
		return f.err
	}
	f.status.Unresponsive, f.status.Message = false, ""
	if f.inventory.Source != "none" {
		f.status.LastSuccess = time.Now()
	}
	return nil
}

// Inventory gives a copy of what was set, or the failure.
func (f *Fake) Inventory(ctx context.Context) (gpu.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask(ctx); err != nil {
		return gpu.Inventory{}, err
	}
	inventory := f.inventory
	inventory.Devices = slices.Clone(inventory.Devices)
	inventory.Links = slices.Clone(inventory.Links)
	return inventory, nil
}

// Readings gives a copy of what was set, or the failure.
func (f *Fake) Readings(ctx context.Context) ([]gpu.Reading, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask(ctx); err != nil {
		return nil, err
	}
	readings := slices.Clone(f.readings)
	for i := range readings {
		readings[i].Values = maps.Clone(readings[i].Values)
	}
	return readings, nil
}

// Processes gives a copy of what was set, or the failure.
func (f *Fake) Processes(ctx context.Context) ([]gpu.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask(ctx); err != nil {
		return nil, err
	}
	return slices.Clone(f.processes), nil
}

// waiting is how many events an Emit may be ahead of their handling.
const waiting = 100

// Events hands on what is emitted until the end of ctx.
func (f *Fake) Events(ctx context.Context, handle func(gpu.Event)) error {
	events := make(chan gpu.Event, waiting)
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[chan gpu.Event]bool{}
	}
	f.watchers[events] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, events)
	}()
	for {
		select {
		case e := <-events:
			handle(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Status says how the latest call went.
func (f *Fake) Status() gpu.ReaderStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Close does nothing.
func (f *Fake) Close() error { return nil }
