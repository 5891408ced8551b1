package nvml

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// probe reads quantities of a device with one call of the library.
type probe struct {
	symbols []string // versions of the call; one must exist
	slice   bool     // slices have it too
	read    func(nvml.Device, values) nvml.Return
}

// values are what one device measures, in base units.
type values map[gpu.Quantity]float64

// put notes a value, unless it couldn't be read.
func (v values) put(q gpu.Quantity, value float64, ret nvml.Return) {
	if ret == nvml.SUCCESS {
		v[q] = value
	}
}

// What the library counts in, and what it is in base units.
const (
	percent   = 1.0 / 100
	milli     = 1.0 / 1000
	megahertz = 1e6
	kilobyte  = 1000
)

var probes = []probe{
	{[]string{"nvmlDeviceGetUtilizationRates"}, false, func(d nvml.Device, v values) nvml.Return {
		u, ret := d.GetUtilizationRates()
		v.put(gpu.Utilization, float64(u.Gpu)*percent, ret)
		v.put(gpu.MemoryUtilization, float64(u.Memory)*percent, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetTemperature"}, false, func(d nvml.Device, v values) nvml.Return {
		t, ret := d.GetTemperature(nvml.TEMPERATURE_GPU)
		v.put(gpu.Temperature, float64(t), ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetPowerUsage"}, false, func(d nvml.Device, v values) nvml.Return {
		p, ret := d.GetPowerUsage()
		v.put(gpu.Power, float64(p)*milli, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetEnforcedPowerLimit"}, false, func(d nvml.Device, v values) nvml.Return {
		p, ret := d.GetEnforcedPowerLimit()
		v.put(gpu.PowerLimit, float64(p)*milli, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetTotalEnergyConsumption"}, false, func(d nvml.Device, v values) nvml.Return {
		e, ret := d.GetTotalEnergyConsumption()
		v.put(gpu.Energy, float64(e)*milli, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetClockInfo"}, false, func(d nvml.Device, v values) nvml.Return {
		sm, ret := d.GetClockInfo(nvml.CLOCK_SM)
		v.put(gpu.SMClock, float64(sm)*megahertz, ret)
		memory, ret := d.GetClockInfo(nvml.CLOCK_MEM)
		v.put(gpu.MemoryClock, float64(memory)*megahertz, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetFanSpeed"}, false, func(d nvml.Device, v values) nvml.Return {
		fan, ret := d.GetFanSpeed()
		v.put(gpu.FanSpeed, float64(fan)*percent, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetTotalEccErrors"}, false, func(d nvml.Device, v values) nvml.Return {
		corrected, ret := d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
		v.put(gpu.ECCCorrected, float64(corrected), ret)
		uncorrected, ret := d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
		v.put(gpu.ECCUncorrected, float64(uncorrected), ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetRemappedRows"}, false, func(d nvml.Device, v values) nvml.Return {
		corrected, uncorrected, pending, failed, ret := d.GetRemappedRows()
		v.put(gpu.RemappedRows, float64(corrected+uncorrected), ret)
		v.put(gpu.RemapPending, flag(pending), ret)
		v.put(gpu.RemapFailed, flag(failed), ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetPcieReplayCounter"}, false, func(d nvml.Device, v values) nvml.Return {
		n, ret := d.GetPcieReplayCounter()
		v.put(gpu.PCIeReplays, float64(n), ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetPcieThroughput"}, false, func(d nvml.Device, v values) nvml.Return {
		tx, ret := d.GetPcieThroughput(nvml.PCIE_UTIL_TX_BYTES)
		v.put(gpu.PCIeTX, float64(tx)*kilobyte, ret)
		if ret != nvml.SUCCESS {
			return ret
		}
		rx, ret := d.GetPcieThroughput(nvml.PCIE_UTIL_RX_BYTES)
		v.put(gpu.PCIeRX, float64(rx)*kilobyte, ret)
		return ret
	}},
	{[]string{"nvmlDeviceGetFieldValues"}, false, readFields},
}

// readings reads every device; one that is lost meanwhile is left out.
func (s *server) readings() ([]gpu.Reading, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	devices, err := s.list()
	if err != nil {
		return nil, err
	}
	readings := []gpu.Reading{}
	for _, d := range devices {
		v, ok := s.measure(d)
		if !ok {
			continue
		}
		readings = append(readings, gpu.Reading{UUID: d.info.UUID, At: time.Now(), Values: v})
	}
	return readings, nil
}

func (s *server) measure(d *device) (values, bool) {
	v := values{}
	if ret := s.readMemory(d, v); ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED {
		return nil, false
	}
	if d.info.Parent != "" {
		return v, len(v) > 0
	}
	for _, p := range probes {
		if s.lib.has(p.symbols...) && isLost(p.read(d.Device, v)) {
			return nil, false
		}
	}
	s.readThrottling(d, v)
	return v, len(v) > 0
}

// readMemory prefers the version that doesn't count what the driver keeps for
// itself as used.
func (s *server) readMemory(d *device, v values) nvml.Return {
	if s.lib.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := d.GetMemoryInfo_v2(); ret == nvml.SUCCESS {
			v[gpu.MemoryTotal], v[gpu.MemoryUsed], v[gpu.MemoryFree] = float64(m.Total), float64(m.Used), float64(m.Free)
			return ret
		}
	}
	m, ret := d.GetMemoryInfo()
	if ret == nvml.SUCCESS {
		v[gpu.MemoryTotal], v[gpu.MemoryUsed], v[gpu.MemoryFree] = float64(m.Total), float64(m.Used), float64(m.Free)
	}
	return ret
}

// readThrottling knows the call's newer and older name.
func (s *server) readThrottling(d *device, v values) {
	switch {
	case s.lib.has("nvmlDeviceGetCurrentClocksEventReasons"):
		mask, ret := d.GetCurrentClocksEventReasons()
		v.put(gpu.ThrottleReasons, float64(mask), ret)
	case s.lib.has("nvmlDeviceGetCurrentClocksThrottleReasons"):
		mask, ret := d.GetCurrentClocksThrottleReasons()
		v.put(gpu.ThrottleReasons, float64(mask), ret)
	}
}

// readFields reads what has no call of its own.
func readFields(d nvml.Device, v values) nvml.Return {
	quantities := []gpu.Quantity{gpu.MemoryTemperature, gpu.RecoveryAction}
	fields := []nvml.FieldValue{{FieldId: nvml.FI_DEV_MEMORY_TEMP}, {FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	ret := d.GetFieldValues(fields)
	if ret != nvml.SUCCESS {
		return ret
	}
	for i, f := range fields {
		if value, ok := fieldValue(f); ok {
			v[quantities[i]] = value
		}
	}
	return ret
}

func fieldValue(f nvml.FieldValue) (float64, bool) {
	if nvml.Return(f.NvmlReturn) != nvml.SUCCESS { // #nosec G115 -- the library's own code
		return 0, false
	}
	switch bits := binary.NativeEndian.Uint64(f.Value[:]); nvml.ValueType(f.ValueType) { // #nosec G115 -- one of seven
	case nvml.VALUE_TYPE_DOUBLE:
		return math.Float64frombits(bits), true
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return float64(binary.NativeEndian.Uint32(f.Value[:])), true
	case nvml.VALUE_TYPE_SIGNED_INT:
		return float64(int32(binary.NativeEndian.Uint32(f.Value[:]))), true // #nosec G115 -- it is signed
	case nvml.VALUE_TYPE_UNSIGNED_LONG, nvml.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return float64(bits), true
	case nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		return float64(int64(bits)), true // #nosec G115 -- it is signed
	default:
		return 0, false
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
