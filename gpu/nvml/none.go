package nvml

import (
	"context"

	"berth/gpu"
)

// None is the Reader of a host whose devices can't be read: its inventory is
// empty and says why.
type None struct{ message string }

// NewNone makes the Reader for a host in the state that Detect found.
func NewNone(driver Driver) *None {
	if driver.Loaded {
		version := driver.Version
		if version == "" {
			version = "of unknown version"
		}
		return &None{"NVIDIA driver " + version + " is loaded; reading its devices is not part of this version of berth"}
	}
	return &None{"no NVIDIA driver is loaded: neither /" + procVersion + " nor /" + sysModule + " exists"}
}

// Inventory gives no devices, and the reason.
func (n *None) Inventory(ctx context.Context) (gpu.Inventory, error) {
	return gpu.Inventory{Source: "none", Message: n.message, Devices: []gpu.Info{}}, ctx.Err()
}

// Close does nothing.
func (n *None) Close() error { return nil }

// Readings gives none.
func (n *None) Readings(ctx context.Context) ([]gpu.Reading, error) { return nil, ctx.Err() }

// Processes gives none.
func (n *None) Processes(ctx context.Context) ([]gpu.Process, error) { return nil, ctx.Err() }

// Events waits for the end of ctx.
func (n *None) Events(ctx context.Context, _ func(gpu.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Status is that of a reader that always succeeds.
func (n *None) Status() gpu.ReaderStatus { return gpu.ReaderStatus{} }
