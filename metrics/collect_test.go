package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

// Whatever the state, the gauges are what it says, counted here in the plainest
// way from its rows.
func TestGaugesAreWhatTheStateSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		disturb(rt, w)
		m := metrics.New(config(w, "node-0", &reader{Fake: gputest.New("Tesla T4", 1)}))
		got := named(series(t, scrape(t, m)), "berth_devices", "berth_devices_held", "berth_devices_unhealthy", "berth_nodes", "berth_node_ready",
			"berth_node_not_ready_info", "berth_devices_unavailable", "berth_runs", "berth_runs_pending_reason",
			"berth_workspace_active_runs", "berth_workspace_pending_runs", "berth_node_cpu_assigned_cores",
			"berth_node_memory_assigned_bytes", "berth_node_storage_assigned_bytes", "berth_volumes", "berth_volumes_bytes",
			"berth_device_state", "berth_device_healthy", "berth_device_held_ratio")
		if diff := cmp.Diff(recomputed(w.store.View(), "node-0"), got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			rt.Fatalf("-state +gauges:\n%s", diff)
		}
	})
}

// disturb brings a few nodes, and runs that do this and that, into the state.
func disturb(rt *rapid.T, w *world) {
	nodes := rapid.IntRange(1, 3).Draw(rt, "nodes")
	types := []string{"T4", "A100-SXM4-80GB"}
	for n := range nodes {
		w.node(fmt.Sprintf("node-%d", n), types[n%2], device(n, 0), device(n, 1), device(n, 2))
	}
	w.admin(&state.CreateWorkspace{ID: "ws-2", Slug: "two", Plan: workspace.PlanEnterprise})
	for r := range rapid.IntRange(0, 9).Draw(rt, "runs") {
		run, n := fmt.Sprintf("run-%d", r), rapid.IntRange(0, nodes-1).Draw(rt, "node")
		in := rapid.SampledFrom([]string{"ws-1", "ws-2"}).Draw(rt, "workspace")
		w.create(run, in, on(fmt.Sprintf("node-%d", n), device(n, rapid.IntRange(0, 2).Draw(rt, "device"))), 1)
		if w.store.View().Run(run).Phase != workspace.PhaseAssigned {
			continue // the device was taken
		}
		w.reaches(run, "ok", rapid.SampledFrom([][]workspace.Phase{
			nil, {workspace.PhasePulling}, {workspace.PhaseRunning}, {workspace.PhaseRunning, workspace.PhaseFailed}, {workspace.PhaseSucceeded},
		}).Draw(rt, "phases")...)
		if rapid.Bool().Draw(rt, "delete") {
			w.admin(&state.DeleteInstance{ID: "i-" + run})
		}
	}
	if rapid.Bool().Draw(rt, "trouble") {
		w.report("node-0", workspace.Report{Ready: &workspace.Readiness{Reason: "gpu_unavailable", Message: "no"},
			Health: []workspace.DeviceHealth{{Device: device(0, 1), Health: gpu.Unhealthy, Reason: "lost"}}})
	}
}

func device(node, i int) string { return fmt.Sprintf("GPU-%d-%d", node, i) }

func recomputed(view state.View, own string) map[string]float64 {
	want := map[string]float64{}
	recomputeNodes(want, view, own)
	recomputeDevices(want, view, own)
	recomputeRuns(want, view, own)
	return want
}

func recomputeNodes(want map[string]float64, view state.View, own string) {
	for _, status := range []string{"ready", "not_ready", "unreachable"} {
		want[`berth_nodes{status="`+status+`"}`] = 0
	}
	for n := range view.Nodes() {
		at := `{node="` + n.ID + `"}`
		want["berth_node_ready"+at] = 0
		if n.Ready {
			want["berth_node_ready"+at] = 1
			want[`berth_nodes{status="ready"}`]++
		} else {
			want[`berth_node_not_ready_info{node="`+n.ID+`",reason="`+n.Reason+`"}`] = 1
			want[`berth_nodes{status="not_ready"}`]++
		}
	}
	for _, name := range []string{"cpu_assigned_cores", "memory_assigned_bytes", "storage_assigned_bytes"} {
		want["berth_node_"+name+`{node="`+own+`"}`] = 0
	}
}

func recomputeDevices(want map[string]float64, view state.View, own string) {
	for d := range view.Devices() {
		held := 0.0
		for _, h := range d.Holders {
			held += float64(h.Milli) / 1000
		}
		kind, own, here := `{type="`+d.Type+`"}`, d.Node == own, `{device="`+d.UUID+`"}`
		want["berth_devices_held"+kind] += held
		want["berth_devices_unhealthy"+kind] += 0
		want["berth_devices_unavailable"+kind] += 0
		if n := view.Node(d.Node); d.Health != gpu.Healthy || !n.Ready {
			want["berth_devices_unavailable"+kind]++
		}
		for _, s := range []gpu.State{gpu.Free, gpu.Held, gpu.Releasing, gpu.Stuck} {
			is := 0.0
			if s == d.State {
				is = 1
			}
			want[`berth_devices{state="`+string(s)+`",type="`+d.Type+`"}`] += is
			if own {
				want[`berth_device_state{device="`+d.UUID+`",state="`+string(s)+`"}`] = is
			}
		}
		ok := 1.0
		if d.Health != gpu.Healthy {
			ok = 0
			want["berth_devices_unhealthy"+kind]++
		}
		if own {
			want["berth_device_healthy"+here], want["berth_device_held_ratio"+here] = ok, held
		}
	}
}

func recomputeRuns(want map[string]float64, view state.View, own string) {
	at := `{node="` + own + `"}`
	for _, kind := range []string{"interactive", "job", "external"} {
		for _, p := range []string{"pending", "assigned", "pulling", "starting", "running", "stopping", "succeeded", "failed", "stopped", "lost"} {
			want[`berth_runs{kind="`+kind+`",phase="`+p+`"}`] = 0
		}
	}
	for _, is := range []string{"attached", "detached", "lost"} {
		want[`berth_volumes{node="`+own+`",state="`+is+`"}`], want[`berth_volumes_bytes{node="`+own+`",state="`+is+`"}`] = 0, 0
	}
	for w := range view.Workspaces("") {
		in := `{workspace="` + w.ID + `"}`
		want["berth_workspace_active_runs"+in], want["berth_workspace_pending_runs"+in] = 0, 0
		for v := range view.Volumes(w.ID, "") {
			is := "attached"
			if v.Detached {
				is = "detached"
			}
			if v.Node == own {
				want[`berth_volumes{node="`+own+`",state="`+is+`"}`]++
				want[`berth_volumes_bytes{node="`+own+`",state="`+is+`"}`] += float64(v.SizeMiB) * 1024 * 1024
				want["berth_node_storage_assigned_bytes"+at] += float64(v.SizeMiB) * 1024 * 1024
			}
		}
	}
	for r := range view.AllRuns() {
		want[`berth_runs{kind="`+string(r.Kind)+`",phase="`+string(r.Phase)+`"}`]++
		switch {
		case r.Phase == workspace.PhasePending:
			want[`berth_runs_pending_reason{reason="`+r.Reason+`"}`]++
			want[`berth_workspace_pending_runs{workspace="`+r.Workspace+`"}`]++
		case !r.Phase.Terminal():
			want[`berth_workspace_active_runs{workspace="`+r.Workspace+`"}`]++
			if r.Node == own {
				want["berth_node_cpu_assigned_cores"+at] += float64(r.Resources.CPUMilli) / 1000
				want["berth_node_memory_assigned_bytes"+at] += float64(r.Resources.MemoryMiB) * 1024 * 1024
			}
		}
	}
}

// A driver that hangs or fails holds up no scrape; what it said before is shown
// for a while, then no more.
func TestDriverThatHangsHoldsUpNoScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("node-1", "T4", "GPU-a")
		var calls atomic.Int32
		r := &reader{Fake: gputest.New("Tesla T4", 1), readings: func(ctx context.Context) ([]gpu.Reading, error) {
			switch calls.Add(1) {
			case 1:
				return []gpu.Reading{everything("GPU-a")}, nil
			case 2:
				return nil, errors.New("the driver is ill")
			}
			<-ctx.Done()
			return nil, gpu.ErrUnresponsive
		}}
		m := metrics.New(config(w, "node-1", r))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		shown := func() bool {
			synctest.Wait()
			began := time.Now()
			_, ok := series(t, scrape(t, m))[`berth_device_power_watts{device="GPU-a"}`]
			if waited := time.Since(began); waited > 0 {
				t.Fatalf("the scrape waited %s", waited)
			}
			return ok
		}
		if !shown() {
			t.Fatal("the first reading isn't shown")
		}
		time.Sleep(25 * time.Second)
		if !shown() || calls.Load() != 3 {
			t.Fatalf("the last good reading isn't shown any more after %d calls", calls.Load())
		}
		time.Sleep(6 * time.Second)
		if shown() {
			t.Fatal("a reading of half a minute ago is shown as if it were of now")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// What is read back from the log at a start happened before, so it isn't counted.
func TestOldEventsAreNotCounted(t *testing.T) {
	w := newWorld(t)
	w.node("node-1", "T4", "GPU-a", "GPU-b", "GPU-c")
	ready := make(chan struct{})
	c := config(w, "node-1", &reader{Fake: gputest.New("Tesla T4", 1)})
	c.Ready = ready
	m := metrics.New(c)
	begins := func(run, device string) {
		w.create(run, "ws-1", on("node-1", device), 1)
		w.reaches(run, "ok", workspace.PhaseRunning)
	}
	started := func() float64 {
		return series(t, scrape(t, m))[`berth_run_starts_total{kind="interactive"}`]
	}
	started()
	begins("run-1", "GPU-a")
	if n := started(); n != 0 {
		t.Errorf("%v starts counted before the state has caught up", n)
	}
	close(ready)
	if n := started(); n != 0 {
		t.Errorf("%v starts counted that were before", n)
	}
	begins("run-2", "GPU-b")
	if n := started(); n != 1 {
		t.Errorf("%v starts counted of 1", n)
	}
	w.store, w.index = state.New(), 0 // a restore puts an older state in its place
	w.do(workspace.RoleSystem, "", &state.InitCluster{ID: "c", Name: "test", Workspace: "ws-1"})
	w.node("node-1", "T4", "GPU-c")
	if n := started(); n != 1 {
		t.Errorf("%v starts counted of 1, after a restore", n)
	}
	begins("run-3", "GPU-c")
	if n := started(); n != 2 {
		t.Errorf("%v starts counted of 2: none since the restore", n)
	}
}

// No reason that might be someone's words becomes a label.
func TestReasonsThatAreWordsOfUsersAreNotShown(t *testing.T) {
	w := newWorld(t)
	w.node("node-1", "T4", "GPU-a")
	m := metrics.New(config(w, "node-1", &reader{Fake: gputest.New("Tesla T4", 1)}))
	scrape(t, m)
	w.create("run-1", "ws-1", on("node-1", "GPU-a"), 1)
	w.reaches("run-1", "my secret project", workspace.PhaseFailed)
	if got := series(t, scrape(t, m)); got[`berth_run_ends_total{phase="failed",reason="other"}`] != 1 {
		t.Errorf("%v", named(got, "berth_run_ends_total"))
	}
}

func TestRequests(t *testing.T) {
	m := metrics.New(config(newWorld(t), "node-1", &reader{Fake: gputest.New("Tesla T4", 1)}))
	stream := m.Observe("/berth/v1/events/stream", "GET", true)
	request := m.Observe("/berth/v1/runs", "GET", false)
	got := series(t, scrape(t, m))
	if got["berth_api_open_streams"] != 1 || got["berth_api_requests_in_flight"] != 1 {
		t.Errorf("while they last: %v streams, %v requests", got["berth_api_open_streams"], got["berth_api_requests_in_flight"])
	}
	stream(200)
	request(0)
	m.Observe("", "BREW", false)(404)
	want := map[string]float64{
		`berth_api_requests_total{code="2xx",method="GET",route="/berth/v1/events/stream"}`: 1,
		`berth_api_requests_total{code="2xx",method="GET",route="/berth/v1/runs"}`:          1,
		`berth_api_requests_total{code="4xx",method="other",route="unknown"}`:               1,
		`berth_api_request_duration_seconds_count{method="GET"}`:                            1, // the stream has no time
		`berth_api_request_duration_seconds_count{method="other"}`:                          1,
		`berth_api_open_streams`: 0, `berth_api_requests_in_flight`: 0,
	}
	got = named(series(t, scrape(t, m)), "berth_api_requests_total", "berth_api_request_duration_seconds_count", "berth_api_open_streams", "berth_api_requests_in_flight")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The names of dcgm-exporter are told only where it is wanted: beside the real
// one they would count everything twice.
func TestNamesOfDCGMAreOffByDefault(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.node("node-1", "T4", "GPU-a")
			c := config(w, "node-1", &reader{Fake: gputest.New("Tesla T4", 1), readings: func(context.Context) ([]gpu.Reading, error) {
				return []gpu.Reading{everything("GPU-a")}, nil
			}})
			c.DCGM = wanted
			m := metrics.New(c)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = m.Run(ctx) }()
			synctest.Wait()
			if told := strings.Contains(scrape(t, m), "DCGM_FI_DEV_GPU_TEMP{"); told != wanted {
				t.Errorf("wanted: %v, told: %v", wanted, told)
			}
		})
	}
}

// A tap counts events and hands all of them on.
func TestTap(t *testing.T) {
	r := &reader{Fake: gputest.New("Tesla T4", 1), events: []gpu.Event{{UUID: "GPU-a", Kind: gpu.EventXid, Code: 31}, {UUID: "GPU-a", Kind: gpu.EventXid, Code: 79}}}
	m := metrics.New(config(newWorld(t), "node-1", r))
	var got []gpu.Event
	if err := m.Tap(r).Events(t.Context(), func(e gpu.Event) { got = append(got, e) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.events, got); diff != "" {
		t.Errorf("-sent +handled:\n%s", diff)
	}
	want := map[string]float64{`berth_device_events_total{device="GPU-a",kind="xid"}`: 2, `berth_device_last_xid{device="GPU-a"}`: 79}
	if diff := cmp.Diff(want, named(series(t, scrape(t, m)), "berth_device_events_total", "berth_device_last_xid")); diff != "" {
		t.Errorf("-want +told:\n%s", diff)
	}
}

// The driver isn't asked again for what the agent has just read through the tap.
func TestTapSparesTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("node-1", "T4", "GPU-a")
		var calls atomic.Int32
		r := &reader{Fake: gputest.New("Tesla T4", 1), readings: func(context.Context) ([]gpu.Reading, error) {
			time.Sleep(100 * time.Millisecond) // a driver takes its time
			return []gpu.Reading{{UUID: "GPU-a", Values: map[gpu.Quantity]float64{gpu.Power: float64(calls.Add(1))}}}, nil
		}}
		m := metrics.New(config(w, "node-1", r))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.Run(ctx) }()
		time.Sleep(7 * time.Second)
		if _, err := m.Tap(r).Readings(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // a poll was due in between
		synctest.Wait()
		if shown := series(t, scrape(t, m))[`berth_device_power_watts{device="GPU-a"}`]; shown != 2 || calls.Load() != 2 {
			t.Errorf("%d calls of the driver, reading %v shown; want the 2nd", calls.Load(), shown)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if calls.Load() != 3 {
			t.Errorf("%d calls of the driver: it isn't asked again", calls.Load())
		}
	})
}
