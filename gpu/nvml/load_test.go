package nvml

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/gpu/gputest"
)

// Readings depend on UUID, time and held, and on nothing before.
func TestSimulatedReadings(t *testing.T) {
	for _, model := range gpu.SimulatedTypes() {
		s, again := NewSimulated("node-1", simulation(t, model+":2")), NewSimulated("node-1", simulation(t, model+":8"))
		inventory := inventoryOf(t, s)
		busy := inventory.Devices[1].UUID
		if inventory.Devices[0].Capability == "" {
			t.Errorf("%s: no compute capability", model)
		}
		for _, r := range []*Simulated{s, again} {
			r.SetHeld(func(uuid string) bool { return uuid == busy })
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		for range 300 {
			at = at.Add(time.Second)
			s.now, again.now = func() time.Time { return at }, func() time.Time { return at }
			readings := readingsOf(t, s)
			if problems := gputest.ReadingProblems(inventory, readings, at); len(problems) > 0 || len(readings) != 2 {
				t.Fatalf("%s: %d readings, %q", model, len(readings), problems)
			}
			if diff := cmp.Diff(readings, readingsOf(t, again)[:2]); diff != "" {
				t.Fatalf("%s: another reader differs:\n%s", model, diff)
			}
			idle, working := readings[0].Values, readings[1].Values
			if idle[gpu.Utilization] != 0 || idle[gpu.MemoryUsed] != 0 || idle[gpu.Temperature] > 40 || idle[gpu.Power] > working[gpu.PowerLimit]/4 {
				t.Fatalf("%s: idle %v", model, idle)
			}
			if working[gpu.Utilization] < 0.7 || working[gpu.MemoryUsed] < working[gpu.MemoryTotal]/2 ||
				working[gpu.Temperature] < 55 || working[gpu.Temperature] > 85 || working[gpu.Power] > working[gpu.PowerLimit] ||
				working[gpu.SMClock] <= idle[gpu.SMClock] {
				t.Fatalf("%s: working %v", model, working)
			}
		}
	}
}

func readingsOf(t *testing.T, reader gpu.Reader) []gpu.Reading {
	t.Helper()
	readings, err := reader.Readings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return readings
}

func TestSimulatedDevicesCanBeLeftOut(t *testing.T) {
	s := NewSimulated("node-1", simulation(t, "T4:2"))
	s.Select(nil, []string{inventoryOf(t, s).Devices[0].UUID, "GPU-x"})
	got := inventoryOf(t, s)
	if got.Devices[0].Unusable == "" || got.Devices[1].Unusable != "" || got.Message != "[gpu] include or exclude names GPU-x, which this host doesn't have" {
		t.Errorf("%+v", got)
	}
	if got.Devices[0].Capability != "7.5" {
		t.Errorf("capability %q", got.Devices[0].Capability)
	}
}
