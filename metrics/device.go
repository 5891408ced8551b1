package metrics

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"berth/gpu"
)

var (
	deviceInfo  = gauge("device_info", "What the device is, and of which node; always 1.", "node", "device", "type", "model", "pci_bus_id", "parent")
	deviceIs    = gauge("device_state", "1 for the state the device is in, 0 for the others.", "device", "state")
	deviceOK    = gauge("device_healthy", "Whether the device is healthy and listed: 1 or 0.", "device")
	deviceWhy   = gauge("device_unhealthy_info", "Why the device is unhealthy; absent while it isn't.", "device", "reason")
	deviceUse   = gauge("device_held_ratio", "Share of the device that is held, 0 to 1.", "device")
	deviceBlock = gauge("device_blocked", "Whether a quarantined container has the device, so that it isn't given out: 1 or 0.", "device")
)

var deviceStates = []gpu.State{gpu.Free, gpu.Held, gpu.Releasing, gpu.Stuck}

// deviceCollector tells of this host's devices. Only device_info names their
// node, to be joined on device: a UUID is enough for the rest, and of a scrape's
// bytes the ids are most.
type deviceCollector struct{ *Metrics }

// Describe sends the families.
func (deviceCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, deviceInfo, deviceIs, deviceOK, deviceWhy, deviceUse, deviceBlock, deviceThrottle)
	described := map[*prometheus.Desc]bool{}
	for _, q := range quantities {
		if !described[q.family.desc] {
			described[q.family.desc] = true
			describe(ch, *q.family)
		}
	}
}

// Collect sends the readings.
func (c deviceCollector) Collect(ch chan<- prometheus.Metric) {
	for d := range c.View().NodeDevices(c.Node) {
		deviceInfo.send(ch, 1, d.Node, d.UUID, d.Type, d.Model, d.PCIBusID, d.Parent)
		for _, s := range deviceStates {
			deviceIs.send(ch, truth(d.State == s), d.UUID, string(s))
		}
		ok := healthy(d)
		deviceOK.send(ch, truth(ok), d.UUID)
		if !ok {
			deviceWhy.send(ch, 1, d.UUID, code(d.Reason))
		}
		deviceUse.send(ch, float64(d.HeldMilli())/gpu.MilliPerDevice, d.UUID)
		deviceBlock.send(ch, truth(d.Blocked != ""), d.UUID)
	}
	for _, r := range c.readings.get(staleAfter * c.Every) {
		collectReading(ch, r)
	}
}

func healthy(d *gpu.Device) bool { return d.Health == gpu.Healthy && !d.Missing }

var lastXid = gauge("device_last_xid", "Number of the device's latest Xid since the daemon started; absent before the first.", "device")

// faultCounters counts what happens to this host's devices.
type faultCounters struct {
	events *prometheus.CounterVec

	mu   sync.Mutex
	xids map[string]float64 // latest by device
}

func newFaultCounters() *faultCounters {
	return &faultCounters{xids: map[string]float64{}, events: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_device_events_total",
		Help: "What the driver has told of the device since the daemon started, by kind.",
	}, []string{"device", "kind"})}
}

// Describe sends the families.
func (f *faultCounters) Describe(ch chan<- *prometheus.Desc) {
	f.events.Describe(ch)
	describe(ch, lastXid)
}

// Collect sends the counts.
func (f *faultCounters) Collect(ch chan<- prometheus.Metric) {
	f.events.Collect(ch)
	f.mu.Lock()
	defer f.mu.Unlock()
	for device, xid := range f.xids {
		lastXid.send(ch, xid, device)
	}
}

func (f *faultCounters) count(e gpu.Event) {
	f.events.WithLabelValues(e.UUID, code(string(e.Kind))).Inc()
	if e.Kind == gpu.EventXid {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.xids[e.UUID] = float64(e.Code)
	}
}

// last is the number of a device's latest Xid, 0 when it had none.
func (f *faultCounters) last(device string) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.xids[device]
}

// Tap gives a reader for everyone else, from which the metrics learn: a driver
// tells of an event only once, and what was read for others need not be read
// again.
func (m *Metrics) Tap(r gpu.Reader) gpu.Reader { return tapped{r, m} }

type tapped struct {
	gpu.Reader
	m *Metrics
}

// Events counts each before it is handled.
func (t tapped) Events(ctx context.Context, handle func(gpu.Event)) error {
	return t.Reader.Events(ctx, func(e gpu.Event) {
		t.m.faults.count(e)
		handle(e)
	})
}

// Readings are shown as they are given. Nobody changes them.
func (t tapped) Readings(ctx context.Context) ([]gpu.Reading, error) {
	readings, err := t.Reader.Readings(ctx)
	if err == nil {
		t.m.readings.set(readings)
	}
	return readings, err
}
