package gputest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"berth/gpu"
)

func TestFake(t *testing.T) {
	for _, count := range []int{0, 1, 8} {
		Suite(t, func(*testing.T) gpu.Reader { return New("NVIDIA A100-SXM4-40GB", count) })
	}
}

func TestFakeFailsWhenTold(t *testing.T) {
	fake, broken := New("Tesla T4", 1), errors.New("driver unresponsive")
	fake.Fail(broken)
	if _, err := fake.Inventory(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	fake.Set(gpu.Inventory{Source: "none", Message: "unloaded"})
	if inventory, err := fake.Inventory(t.Context()); err != nil || inventory.Message != "unloaded" {
		t.Errorf("after Set: %+v, %v", inventory, err)
	}
}

// Each promise of the suite is broken once; a suite that lets it pass checks
// nothing.
func TestProblemsFindsEachBreach(t *testing.T) {
	for _, test := range []struct {
		want  string
		spoil func(*gpu.Inventory)
	}{
		{"UUID", func(i *gpu.Inventory) { i.Devices[1].UUID = i.Devices[0].UUID }},
		{"is empty", func(i *gpu.Inventory) { i.Devices[0].Vendor = "" }},
		{"minor 0", func(i *gpu.Inventory) { i.Devices[1].Minor = 0 }},
		{"PCI address", func(i *gpu.Inventory) { i.Devices[0].PCIBusID, i.Devices[1].PCIBusID = "x", "x" }},
		{"type", func(i *gpu.Inventory) { i.Devices[0].Type = "TESLA-T4" }},
		{"0 MiB", func(i *gpu.Inventory) { i.Devices[0].MemoryMiB = 0 }},
		{"NUMA node", func(i *gpu.Inventory) { i.Devices[0].NUMANode = -2 }},
		{"simulated is true", func(i *gpu.Inventory) { i.Devices[0].Simulated = true }},
		{"parent", func(i *gpu.Inventory) { i.Devices[0].Parent = "GPU-x" }},
		{"parent", func(i *gpu.Inventory) { i.Devices[0].Parent = i.Devices[0].UUID }},
		{"not one of", func(i *gpu.Inventory) { i.Source = "guess" }},
		{"from no source", func(i *gpu.Inventory) { i.Source = "none" }},
		{"no driver version", func(i *gpu.Inventory) { i.DriverVersion = "" }},
		{"no message", func(i *gpu.Inventory) { i.Devices, i.Links = []gpu.Info{}, nil }},
		{"null", func(i *gpu.Inventory) { i.Devices, i.Links, i.Message = nil, nil, "none here" }},
		{"smaller UUID", func(i *gpu.Inventory) { i.Links[0].A, i.Links[0].B = i.Links[0].B, i.Links[0].A }},
		{"first is no device", func(i *gpu.Inventory) { i.Links[0].A = "A" }},
		{"second is no device", func(i *gpu.Inventory) { i.Links[0].B = "Z" }},
		{"given twice", func(i *gpu.Inventory) { i.Links = append(i.Links, i.Links[0]) }},
		{"-1 NVLinks", func(i *gpu.Inventory) { i.Links[0].NVLink = -1 }},
		{`PCIe "near"`, func(i *gpu.Inventory) { i.Links[0].PCIe = "near" }},
	} {
		inventory, err := New("Tesla T4", 2).Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inventory.Links = []gpu.Link{{A: inventory.Devices[0].UUID, B: inventory.Devices[1].UUID, PCIe: gpu.LinkCPU}}
		if problems := Problems(inventory); len(problems) > 0 {
			t.Fatalf("a good inventory has problems: %q", problems)
		}
		test.spoil(&inventory)
		if problems := strings.Join(Problems(inventory), "\n"); !strings.Contains(problems, test.want) {
			t.Errorf("breach %q isn't found: %q", test.want, problems)
		}
	}
}

func TestFakeWithSoftState(t *testing.T) {
	Suite(t, func(*testing.T) gpu.Reader {
		f := New("Tesla T4", 1)
		uuid := f.inventory.Devices[0].UUID
		f.SetReadings(gpu.Reading{UUID: uuid, At: time.Now(), Values: map[gpu.Quantity]float64{gpu.Utilization: 0.5}})
		f.SetProcesses(gpu.Process{UUID: uuid, PID: 7, UsedMiB: 12})
		return f
	})
}

func TestFakeEmits(t *testing.T) {
	fake := New("Tesla T4", 1)
	if fake.Emit(gpu.Event{}) != 0 {
		t.Error("somebody listens")
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan gpu.Event, 1), make(chan error, 1)
	go func() { ended <- fake.Events(ctx, func(e gpu.Event) { events <- e }) }()
	want := gpu.Event{UUID: "GPU-1", Kind: gpu.EventXid, Code: 79}
	for fake.Emit(want) == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := <-events; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFakeStatus(t *testing.T) {
	fake := New("Tesla T4", 1)
	fake.Fail(fmt.Errorf("%w: it hangs", gpu.ErrUnresponsive))
	if _, err := fake.Readings(t.Context()); !errors.Is(err, gpu.ErrUnresponsive) {
		t.Error(err)
	}
	if s := fake.Status(); !s.Unresponsive || !strings.Contains(s.Message, "it hangs") || !s.LastSuccess.IsZero() {
		t.Errorf("%+v", s)
	}
	fake.Fail(nil)
	if _, err := fake.Processes(t.Context()); err != nil {
		t.Error(err)
	}
	if s := fake.Status(); s.Unresponsive || s.Message != "" || s.LastSuccess.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestReadingProblemsFindsEachBreach(t *testing.T) {
	now := time.Now()
	inventory, err := New("Tesla T4", 1).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	uuid := inventory.Devices[0].UUID
	for _, test := range []struct {
		want  string
		spoil func(*gpu.Reading)
	}{
		{"no device", func(r *gpu.Reading) { r.UUID = "GPU-x" }},
		{"measured at", func(r *gpu.Reading) { r.At = now.Add(time.Hour) }},
		{"measured at", func(r *gpu.Reading) { r.At = time.Time{} }},
		{"left out", func(r *gpu.Reading) { r.Values = nil }},
		{"temperature is -1", func(r *gpu.Reading) { r.Values[gpu.Temperature] = -1 }},
		{"power is NaN", func(r *gpu.Reading) { r.Values[gpu.Power] = math.NaN() }},
		{"at most 1", func(r *gpu.Reading) { r.Values[gpu.Utilization] = 75 }},
		{"neither 0 nor 1", func(r *gpu.Reading) { r.Values[gpu.RemapFailed] = 2 }},
		{"used and free", func(r *gpu.Reading) { r.Values[gpu.MemoryUsed] = 200 }},
	} {
		r := gpu.Reading{UUID: uuid, At: now, Values: map[gpu.Quantity]float64{gpu.MemoryTotal: 100, gpu.MemoryUsed: 40, gpu.MemoryFree: 50}}
		if problems := ReadingProblems(inventory, []gpu.Reading{r}, now); len(problems) > 0 {
			t.Fatalf("a good reading has problems: %q", problems)
		}
		if problems := strings.Join(ReadingProblems(inventory, []gpu.Reading{r, r}, now), "\n"); !strings.Contains(problems, "twice") {
			t.Errorf("twice isn't found: %q", problems)
		}
		test.spoil(&r)
		if problems := strings.Join(ReadingProblems(inventory, []gpu.Reading{r}, now), "\n"); !strings.Contains(problems, test.want) {
			t.Errorf("breach %q isn't found: %q", test.want, problems)
		}
	}
}

func TestProcessProblemsFindsEachBreach(t *testing.T) {
	inventory, err := New("Tesla T4", 1).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := gpu.Process{UUID: inventory.Devices[0].UUID, PID: 7}
	for want, list := range map[string][]gpu.Process{
		"":                                    {good},
		"no device":                           {{UUID: "GPU-x", PID: 7}},
		"no process":                          {{UUID: good.UUID}},
		"-1 MiB":                              {{UUID: good.UUID, PID: 7, UsedMiB: -1}},
		"7 on " + good.UUID + ": given twice": {good, good},
	} {
		problems := strings.Join(ProcessProblems(inventory, list), "\n")
		if want == "" && problems != "" || !strings.Contains(problems, want) {
			t.Errorf("breach %q: %q", want, problems)
		}
	}
}
