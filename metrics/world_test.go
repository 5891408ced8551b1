package metrics_test

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

// world is a state that tests write as the daemon does: by commands.
type world struct {
	t     testing.TB
	store *state.Store
	index uint64
	clock time.Time
	boots map[string]int64
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, store: state.New(), clock: time.Now(), boots: map[string]int64{}}
	w.do(workspace.RoleSystem, "", &state.InitCluster{ID: "c", Name: "test", Workspace: "ws-1"})
	return w
}

// do applies a command, a second after the one before.
func (w *world) do(role workspace.Role, by string, cmd state.Command) {
	w.t.Helper()
	if refused := w.try(role, by, cmd); refused != nil {
		w.t.Fatal(refused)
	}
}

// try gives the refusal of a command.
func (w *world) try(role workspace.Role, by string, cmd state.Command) *workspace.Error {
	w.t.Helper()
	w.index++
	w.clock = w.clock.Add(time.Second)
	entry, err := state.Encode(cmd, state.Caller{Role: role, Principal: by}, w.clock)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.store.Apply(w.index, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.Err
}

func (w *world) admin(cmd state.Command) {
	w.t.Helper()
	w.do(workspace.RoleClusterAdmin, "admin", cmd)
}

func (w *world) report(node string, r workspace.Report) {
	w.t.Helper()
	w.boots[node]++
	r.Node, r.Stamp = node, workspace.Stamp{BootID: "boot", BoottimeMS: w.boots[node]}
	w.do(workspace.RoleNode, node, &state.Report{Report: r})
}

// node reports a host with GPUs for the first time.
func (w *world) node(id, gpuType string, uuids ...string) {
	w.t.Helper()
	inventory := gpu.Inventory{Source: "nvml", DriverVersion: "550.54.15", CUDAVersion: "12.4", Devices: []gpu.Info{}}
	for i, uuid := range uuids {
		inventory.Devices = append(inventory.Devices, gpu.Info{UUID: uuid, Index: i, Type: gpuType, Model: "NVIDIA " + gpuType,
			Vendor: "NVIDIA", MemoryMiB: 15360, PCIBusID: fmt.Sprintf("00000000:%02X:00.0", i+1)})
	}
	w.report(id, workspace.Report{
		Facts: &workspace.NodeFacts{Name: "host", Arch: "amd64", Kernel: "6.1.0", Runtime: "containerd 1.6.20",
			CPUMilli: 64000, MemoryMiB: 262144, StorageMiB: 1048576, GPUSource: "nvml", DriverVersion: "550.54.15", CUDAVersion: "12.4"},
		Devices: &inventory, Ready: &workspace.Readiness{Ready: true},
	})
}

// create makes an instance with a run of the same name, on devices or pending.
func (w *world) create(run, in string, on *state.Suggestion, gpus int) {
	w.t.Helper()
	w.admin(&state.CreateInstance{
		ID: "i-" + run, Workspace: in, Name: run, Kind: workspace.KindInteractive, Start: true, Run: run, Suggestion: on,
		Resources: workspace.Resources{GPUCount: gpus, CPUMilli: 1500, MemoryMiB: 512, StorageMiB: 1024},
		Spec:      workspace.RunSpec{Image: "i", VolumePath: "/home"},
	})
}

func on(node string, uuids ...string) *state.Suggestion {
	s := &state.Suggestion{Node: node}
	for _, uuid := range uuids {
		s.Devices = append(s.Devices, workspace.Allotment{UUID: uuid, Milli: gpu.MilliPerDevice})
	}
	return s
}

// reaches reports phases of a run.
func (w *world) reaches(run, reason string, phases ...workspace.Phase) {
	w.t.Helper()
	r := w.store.View().Run(run)
	for _, p := range phases {
		w.report(r.Node, workspace.Report{Runs: []workspace.RunReport{{Run: run, Epoch: r.Epoch, Phase: p, Reason: reason}}})
	}
}

// reader is a driver whose readings the test decides.
type reader struct {
	*gputest.Fake
	status   gpu.ReaderStatus
	readings func(context.Context) ([]gpu.Reading, error)
	events   []gpu.Event
}

func (r *reader) Status() gpu.ReaderStatus { return r.status }

func (r *reader) Readings(ctx context.Context) ([]gpu.Reading, error) {
	if r.readings == nil {
		return nil, ctx.Err()
	}
	return r.readings(ctx)
}

func (r *reader) Events(_ context.Context, handle func(gpu.Event)) error {
	for _, e := range r.events {
		handle(e)
	}
	return nil
}

// everything is a reading with all quantities, each with a value of its own.
func everything(uuid string) gpu.Reading {
	values := map[gpu.Quantity]float64{
		gpu.Utilization: .97, gpu.MemoryUtilization: .41, gpu.MemoryUsed: 1 << 33, gpu.MemoryFree: 1 << 32, gpu.MemoryTotal: 3 << 32,
		gpu.Temperature: 64, gpu.MemoryTemperature: 71, gpu.Power: 251.5, gpu.PowerLimit: 400, gpu.Energy: 123456789.25,
		gpu.SMClock: 1.41e9, gpu.MemoryClock: 1.593e9, gpu.FanSpeed: .3, gpu.ECCCorrected: 2, gpu.ECCUncorrected: 1,
		gpu.RemappedRows: 3, gpu.RemapPending: 1, gpu.RemapFailed: 0, gpu.PCIeReplays: 4, gpu.PCIeTX: 1.5e9, gpu.PCIeRX: 2.5e9,
		gpu.ThrottleReasons: 0x24, "recovery_action": 1,
	}
	return gpu.Reading{UUID: uuid, Values: values}
}

// config is that of a leader whose node is n.
func config(w *world, n string, r gpu.Reader) metrics.Config {
	return metrics.Config{
		Version: "1.2.3", Node: n, View: func() state.View { return w.store.View() }, GPU: r, Host: "host",
		Raft: func() metrics.Raft {
			return metrics.Raft{Leader: true, HasLeader: true, Term: 2, TermsLed: 1, CommitIndex: 9, AppliedIndex: 8, SnapshotIndex: 5}
		},
		Agent: func() metrics.Agent {
			return metrics.Agent{Starts: 1, Adoptions: 2, Ends: 3, Kills: 4, Reaped: 5, GoAheads: 9, Reports: 6, ReportFailures: 7, Runs: 10, Orphans: 8}
		},
		Disks: func(context.Context) ([]metrics.Disk, error) {
			return []metrics.Disk{{Name: "data", Size: 1000, Free: 600}, {Name: "images", Size: 2000, Free: 300}}, nil
		},
		Guard:   func(context.Context) (metrics.Guard, error) { return metrics.Guard{Entries: 3, Erred: true}, nil },
		History: func() metrics.History { return metrics.History{Keep: 90 * 24 * time.Hour, Failed: true} },
	}
}

// scrape reads /metrics as Prometheus does.
func scrape(t testing.TB, m *metrics.Metrics) string {
	t.Helper()
	got := httptest.NewRecorder()
	m.Handler().ServeHTTP(got, httptest.NewRequest("GET", "/metrics", nil))
	if got.Code != 200 {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	return got.Body.String()
}

// series are the readings of a scrape by their names with labels.
func series(t testing.TB, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:cut]] = value
	}
	return all
}

// named are the readings of some families.
func named(all map[string]float64, families ...string) map[string]float64 {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name string, _ float64) bool { return !slices.Contains(families, family(name)) })
	return out
}

func family(series string) string {
	name, _, _ := strings.Cut(series, "{")
	return name
}
