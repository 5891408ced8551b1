package gpu

import (
	"errors"
	"time"
)

// ErrUnresponsive says that the driver took too long to answer, or its library ended the
// process that asked.
var ErrUnresponsive = errors.New("the GPU driver does not answer")

// Quantity is something a device measures.
type Quantity string

// The quantities, in base units. Which ones a device has depends on its model
// and driver.
const (
	Utilization       Quantity = "utilization"        // of the compute units, 0 to 1
	MemoryUtilization Quantity = "memory_utilization" // of the memory's bandwidth, 0 to 1
	MemoryUsed        Quantity = "memory_used"        // bytes
	MemoryFree        Quantity = "memory_free"        // bytes
	MemoryTotal       Quantity = "memory_total"       // bytes
	Temperature       Quantity = "temperature"        // °C
	MemoryTemperature Quantity = "memory_temperature" // °C
	Power             Quantity = "power"              // W
	PowerLimit        Quantity = "power_limit"        // W
	Energy            Quantity = "energy"             // J since the driver was loaded
	SMClock           Quantity = "sm_clock"           // Hz
	MemoryClock       Quantity = "memory_clock"       // Hz
	FanSpeed          Quantity = "fan_speed"          // 0 to 1
	ECCCorrected      Quantity = "ecc_corrected"      // errors since the driver was loaded
	ECCUncorrected    Quantity = "ecc_uncorrected"    // errors since the driver was loaded
	RemappedRows      Quantity = "remapped_rows"      // memory rows replaced for good
	RemapPending      Quantity = "remap_pending"      // 1: rows wait for a reset to be replaced
	RemapFailed       Quantity = "remap_failed"       // 1: a row couldn't be replaced
	PCIeReplays       Quantity = "pcie_replays"       // since the driver was loaded
	PCIeTX            Quantity = "pcie_tx"            // bytes/s
	PCIeRX            Quantity = "pcie_rx"            // bytes/s
	ThrottleReasons   Quantity = "throttle_reasons"   // NVML's bit mask
	RecoveryAction    Quantity = "recovery_action"    // what the driver wants done: 0 nothing, else NVML's number
)

// Reading is what one device measures at one moment. A quantity that it doesn't
// have isn't in Values.
type Reading struct {
	UUID   string               `json:"uuid"`
	At     time.Time            `json:"at"`
	Values map[Quantity]float64 `json:"values"`
}

// Process is a process of the host that uses a device.
type Process struct {
	UUID    string `json:"uuid"` // of the device, or of the slice
	PID     int    `json:"pid"`
	UsedMiB int64  `json:"used_mib"` // of the device's memory; 0 when the driver doesn't say
}

// EventKind is what happened to a device.
type EventKind string

// The kinds of events.
const (
	EventXid          EventKind = "xid"            // Code is the Xid number
	EventSingleBitECC EventKind = "ecc_single_bit" // corrected
	EventDoubleBitECC EventKind = "ecc_double_bit" // not corrected
	EventLost         EventKind = "lost"           // the driver has lost it
	EventBack         EventKind = "back"           // it answers again
)

// Event is something that happened to a device.
type Event struct {
	UUID string    `json:"uuid"`
	Kind EventKind `json:"kind"`
	Code uint64    `json:"code,omitempty"`
	At   time.Time `json:"at"`
}

// ReaderStatus is how reading goes.
type ReaderStatus struct {
	LastSuccess  time.Time `json:"last_success,omitzero"`  // of any call to the driver
	Unresponsive bool      `json:"unresponsive,omitempty"` // the latest call got no answer
	Message      string    `json:"message,omitempty"`      // what went wrong last, for people
	Restarts     uint64    `json:"restarts,omitempty"`     // of the process that asks the driver
}
