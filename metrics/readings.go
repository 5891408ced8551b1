package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"berth/gpu"
)

// Families of what devices measure.
var (
	measureUse      = measured(gauge, "utilization_ratio", "Share of the time in which the compute units had work, 0 to 1.")
	measureBus      = measured(gauge, "memory_utilization_ratio", "Share of the time in which the memory was read or written, 0 to 1.")
	measureMemory   = measured(gauge, "memory_bytes", "Memory of the device, by use.", "use")
	measureTemp     = measured(gauge, "temperature_celsius", "Temperature.", "sensor")
	measurePower    = measured(gauge, "power_watts", "Power drawn.")
	measureLimit    = measured(gauge, "power_limit_watts", "Power that it may draw.")
	measureEnergy   = measured(counter, "energy_joules_total", "Energy used since the driver was loaded.")
	measureClock    = measured(gauge, "clock_hertz", "Clock.", "clock")
	measureFan      = measured(gauge, "fan_speed_ratio", "Fan speed, 0 to 1.")
	measureECC      = measured(counter, "ecc_errors_total", "Memory errors since the driver was loaded.", "kind")
	measureRows     = measured(gauge, "remapped_rows", "Rows of memory that were replaced for good.")
	measureRemap    = measured(gauge, "row_remap_pending", "Whether rows wait for a reset to be replaced: 1 or 0.")
	measureNoRemap  = measured(gauge, "row_remap_failed", "Whether a row couldn't be replaced: 1 or 0.")
	measureReplays  = measured(counter, "pcie_replays_total", "PCIe packets sent again since the driver was loaded.")
	measurePCIe     = measured(gauge, "pcie_bytes_per_second", "PCIe traffic, as seen from the device.", "direction")
	measureRecovery = measured(gauge, "recovery_action", "What the driver wants done about the device, as NVML numbers it; 0: nothing.")
	deviceThrottle  = *measured(gauge, "throttled", "Whether the clocks are held down for this reason: 1 or 0.", "reason")
)

func measured(kind func(name, help string, labels ...string) family, name, help string, labels ...string) *family {
	f := kind("device_"+name, help, append([]string{"device"}, labels...)...)
	return &f
}

// quantities maps what a device measures to a family, and to the value of its
// own label where it has one.
var quantities = []struct {
	quantity gpu.Quantity
	family   *family
	label    string
}{
	{gpu.Utilization, measureUse, ""},
	{gpu.MemoryUtilization, measureBus, ""},
	{gpu.MemoryUsed, measureMemory, "used"},
	{gpu.MemoryFree, measureMemory, "free"},
	{gpu.Temperature, measureTemp, "gpu"},
	{gpu.MemoryTemperature, measureTemp, "memory"},
	{gpu.Power, measurePower, ""},
	{gpu.PowerLimit, measureLimit, ""},
	{gpu.Energy, measureEnergy, ""},
	{gpu.SMClock, measureClock, "sm"},
	{gpu.MemoryClock, measureClock, "memory"},
	{gpu.FanSpeed, measureFan, ""},
	{gpu.ECCCorrected, measureECC, "corrected"},
	{gpu.ECCUncorrected, measureECC, "uncorrected"},
	{gpu.RemappedRows, measureRows, ""},
	{gpu.RemapPending, measureRemap, ""},
	{gpu.RemapFailed, measureNoRemap, ""},
	{gpu.PCIeReplays, measureReplays, ""},
	{gpu.PCIeTX, measurePCIe, "tx"},
	{gpu.PCIeRX, measurePCIe, "rx"},
	{"recovery_action", measureRecovery, ""},
}

// throttles are the bits of NVML's clocks event reasons that cost speed
// (nvml.h, nvmlClocksEventReason…). Idle clocks and those set on purpose do not.
var throttles = []struct {
	bit    uint64
	reason string
}{
	{0x04, "power_cap"},
	{0x08, "hardware_slowdown"},
	{0x20, "thermal"},
	{0x40, "hardware_thermal"},
	{0x80, "power_brake"},
}

func collectReading(ch chan<- prometheus.Metric, r gpu.Reading) {
	for _, q := range quantities {
		value, ok := r.Values[q.quantity]
		if !ok {
			continue
		}
		labels := []string{r.UUID}
		if q.label != "" {
			labels = append(labels, q.label)
		}
		q.family.send(ch, value, labels...)
	}
	mask, ok := r.Values[gpu.ThrottleReasons]
	if !ok {
		return
	}
	for _, t := range throttles {
		deviceThrottle.send(ch, truth(uint64(mask)&t.bit != 0), r.UUID, t.reason)
	}
}
