package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"berth/gpu"
)

// dcgmLabels are those of dcgm-exporter.
var dcgmLabels = []string{"gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname"}

// dcgmFamilies are the readings under the names and in the units of
// dcgm-exporter (its etc/default-counters.csv), so that dashboards made for it
// go on. per is how much of ours makes one of its units.
var dcgmFamilies = []struct {
	quantity gpu.Quantity
	per      float64
	family   family
}{
	{gpu.Temperature, 1, dcgm(prometheus.GaugeValue, "GPU_TEMP", "GPU temperature in °C.")},
	{gpu.MemoryTemperature, 1, dcgm(prometheus.GaugeValue, "MEMORY_TEMP", "Memory temperature in °C.")},
	{gpu.Power, 1, dcgm(prometheus.GaugeValue, "POWER_USAGE", "Power drawn in W.")},
	{gpu.Energy, 1e-3, dcgm(prometheus.CounterValue, "TOTAL_ENERGY_CONSUMPTION", "Energy since the driver was loaded in mJ.")},
	{gpu.SMClock, 1e6, dcgm(prometheus.GaugeValue, "SM_CLOCK", "SM clock in MHz.")},
	{gpu.MemoryClock, 1e6, dcgm(prometheus.GaugeValue, "MEM_CLOCK", "Memory clock in MHz.")},
	{gpu.Utilization, .01, dcgm(prometheus.GaugeValue, "GPU_UTIL", "GPU utilization in percent.")},
	{gpu.MemoryUtilization, .01, dcgm(prometheus.GaugeValue, "MEM_COPY_UTIL", "Memory utilization in percent.")},
	{gpu.MemoryUsed, 1 << 20, dcgm(prometheus.GaugeValue, "FB_USED", "Memory used in MiB.")},
	{gpu.MemoryFree, 1 << 20, dcgm(prometheus.GaugeValue, "FB_FREE", "Memory free in MiB.")},
	{gpu.PCIeReplays, 1, dcgm(prometheus.CounterValue, "PCIE_REPLAY_COUNTER", "PCIe packets sent again.")},
	{gpu.RemapFailed, 1, dcgm(prometheus.GaugeValue, "ROW_REMAP_FAILURE", "Whether remapping of rows has failed.")},
}

var dcgmXid = dcgm(prometheus.GaugeValue, "XID_ERRORS", "Number of the latest Xid; 0: none since the daemon started.")

func dcgm(kind prometheus.ValueType, name, help string) family {
	return family{prometheus.NewDesc("DCGM_FI_DEV_"+name, help, dcgmLabels, nil), kind}
}

// dcgmCollector tells readings as dcgm-exporter does. It is for hosts where that
// doesn't run.
type dcgmCollector struct{ *Metrics }

// Describe sends the families.
func (dcgmCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, dcgmXid)
	for _, f := range dcgmFamilies {
		describe(ch, f.family)
	}
}

// Collect sends the readings.
func (c dcgmCollector) Collect(ch chan<- prometheus.Metric) {
	view := c.View()
	for _, r := range c.readings.get(staleAfter * c.Every) {
		d := view.Device(r.UUID)
		if d == nil || d.Parent != "" {
			continue // slices have labels of their own there
		}
		index := strconv.Itoa(d.Index)
		labels := []string{index, d.UUID, d.PCIBusID, "nvidia" + index, d.Model, c.Host}
		for _, f := range dcgmFamilies {
			if value, ok := r.Values[f.quantity]; ok {
				f.family.send(ch, value/f.per, labels...)
			}
		}
		dcgmXid.send(ch, c.faults.last(d.UUID), labels...)
	}
}
