// Package gpu says what a GPU is: data without handles, the names of models,
// links between devices, and who holds what of one. gpu/nvml reads devices from
// the driver (or simulates them); gpu/gputest holds the fake and the suite.
package gpu

import (
	"context"
	"time"
)

// MilliPerDevice is a whole device in thousandths (design: holders sum to at
// most this, always).
const MilliPerDevice = 1000

// Reader lists this host's devices. Implementations: gpu/nvml (driver or
// simulation), gpu/gputest (fake).
type Reader interface {
	// Inventory reads all devices. On a host without a driver it gives no
	// devices, Source "none" and a Message that says so; that is no error.
	// ErrUnresponsive when the driver doesn't answer in time.
	Inventory(ctx context.Context) (Inventory, error)
	// Readings reads what every device measures now. A device that can't be
	// read is left out.
	Readings(ctx context.Context) ([]Reading, error)
	// Processes lists the processes that use a device now, of berth's containers
	// and others alike.
	Processes(ctx context.Context) ([]Process, error)
	// Events calls handle for each thing that happens to a device, one after the
	// other, until ctx ends. A driver that goes away and comes back loses events
	// but doesn't end it.
	Events(ctx context.Context, handle func(Event)) error
	// Status says how reading goes, without asking the driver.
	Status() ReaderStatus
	Close() error
}

// Inventory is what a host's driver says it has.
type Inventory struct {
	Source        string `json:"source"`                   // "nvml", "simulated" or "none"
	DriverVersion string `json:"driver_version,omitempty"` // such as "550.54.15"
	CUDAVersion   string `json:"cuda_version,omitempty"`   // such as "12.4"
	Message       string `json:"message,omitempty"`        // why there are no devices, for people
	Devices       []Info `json:"devices"`
	Links         []Link `json:"links,omitempty"`
}

// Info is the hardware side of one device.
type Info struct {
	UUID      string `json:"uuid"`   // stable name, "GPU-…" or "MIG-…"
	Index     int    `json:"index"`  // today's index; display only, never a key
	Minor     int64  `json:"minor"`  // of /dev/nvidia<minor>
	Model     string `json:"model"`  // as the driver says: "NVIDIA A100-SXM4-80GB"
	Type      string `json:"type"`   // canonical: TypeName(Model), of a slice with -MIG-<PROFILE>
	Vendor    string `json:"vendor"` // "NVIDIA"
	MemoryMiB int64  `json:"memory_mib"`
	PCIBusID  string `json:"pci_bus_id,omitempty"` // "00000000:07:00.0"
	NUMANode  int    `json:"numa_node"`            // -1 when unknown
	Parent    string `json:"parent,omitempty"`     // UUID of the device this is a MIG slice of
	Profile   string `json:"profile,omitempty"`    // of a MIG slice, such as "3g.40gb"
	Simulated bool   `json:"simulated,omitempty"`
	// Capability is the CUDA compute capability, such as "8.0".
	Capability string `json:"cuda_compute_capability,omitempty"`
	// Unusable says why runs can't have it, though it is listed: MIG is enabled, so
	// that only its slices are of use, the driver has lost it, or the configuration
	// leaves it out. Empty: they can.
	Unusable string `json:"unusable,omitempty"`
}

// Link is how two devices of one host reach each other.
type Link struct {
	A      string   `json:"a"` // UUID, the smaller of the two
	B      string   `json:"b"`
	NVLink int      `json:"nvlink"` // number of NVLinks between them
	PCIe   PCIeLink `json:"pcie"`   // closeness over PCIe
}

// PCIeLink is closeness over PCIe, closest first.
type PCIeLink string

// PCIe closeness as the driver's topology names it.
const (
	LinkBoard       PCIeLink = "board"
	LinkSwitch      PCIeLink = "switch"
	LinkMultiSwitch PCIeLink = "multi_switch"
	LinkHostBridge  PCIeLink = "host_bridge"
	LinkCPU         PCIeLink = "cpu"
	LinkSystem      PCIeLink = "system"
)

// Device is a device as the cluster keeps it: hardware, health, holders.
type Device struct {
	Info
	Node    string    `json:"node"`  // id of its node
	State   State     `json:"state"` // derived from holders and releases
	Health  Health    `json:"health"`
	Reason  string    `json:"reason,omitempty"` // why not healthy, or why releasing or stuck
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`                // of State and Health
	Missing bool      `json:"missing,omitempty"`    // was reported once, isn't any more
	Blocked string    `json:"blocked_by,omitempty"` // id of a quarantined container that has it
	Holders []Holder  `json:"holders"`
}

// Holder is a share of a device held by a run. It goes only by its node's
// release report, a new boot id of its node, or an operator's fence.
type Holder struct {
	Run       string `json:"run"`
	Milli     int    `json:"milli"`
	Epoch     Epoch  `json:"epoch"`
	Releasing bool   `json:"releasing,omitempty"` // its run has ended; its release isn't confirmed
	Stuck     bool   `json:"stuck,omitempty"`     // its node can't confirm it
}

// Epoch orders placements across the life of a cluster, restores included.
type Epoch struct {
	Incarnation uint64 `json:"incarnation" cbor:"1,keyasint"`
	Index       uint64 `json:"index" cbor:"2,keyasint"` // Raft index of the entry
}

// Less reports whether e came before o.
func (e Epoch) Less(o Epoch) bool {
	if e.Incarnation != o.Incarnation {
		return e.Incarnation < o.Incarnation
	}
	return e.Index < o.Index
}

// State of a device, from its holders: free → held → releasing → free | stuck.
type State string

// The states a device can be in.
const (
	Free      State = "free"
	Held      State = "held"
	Releasing State = "releasing"
	Stuck     State = "stuck"
)

// Health as its agent judges it.
type Health string

// The healths a device can have.
const (
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
)

// HeldMilli is the sum of what the holders have.
func (d *Device) HeldMilli() int {
	sum := 0
	for _, h := range d.Holders {
		sum += h.Milli
	}
	return sum
}

// DeriveState is the state that the holders imply: stuck beats releasing beats
// held.
func (d *Device) DeriveState() State {
	state := Free
	for _, h := range d.Holders {
		switch {
		case h.Stuck:
			return Stuck
		case h.Releasing:
			state = Releasing
		case state == Free:
			state = Held
		}
	}
	return state
}
