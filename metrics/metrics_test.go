package metrics_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/metrics"
	"berth/workspace"
)

var rewrite = flag.Bool("rewrite", false, "write the golden scrape anew")

const golden = "testdata/scrape.txt"

// sample is a leader's scrape in which every family of berth has a reading.
func sample(t *testing.T) string {
	w := newWorld(t)
	w.node("node-1", "T4", "GPU-a", "GPU-b", "GPU-c")
	w.node("node-2", "A100-SXM4-80GB", "GPU-d")
	r := &reader{Fake: gputest.New("Tesla T4", 1), status: gpu.ReaderStatus{LastSuccess: time.UnixMilli(1767225600500), Restarts: 2},
		readings: func(context.Context) ([]gpu.Reading, error) {
			return []gpu.Reading{everything("GPU-a"), {UUID: "GPU-b", Values: map[gpu.Quantity]float64{gpu.Temperature: 30}}}, nil
		},
		events: []gpu.Event{{UUID: "GPU-c", Kind: gpu.EventXid, Code: 79}, {UUID: "GPU-c", Kind: gpu.EventLost}},
	}
	c := config(w, "node-1", r)
	c.DCGM = true
	m := metrics.New(c)
	if err := m.Tap(r).Events(t.Context(), func(gpu.Event) {}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = m.Run(ctx) }()
	synctest.Wait()
	w.create("run-1", "ws-1", on("node-1", "GPU-a"), 1)
	w.reaches("run-1", "ok", workspace.PhasePulling, workspace.PhaseStarting, workspace.PhaseRunning)
	w.create("run-2", "ws-1", nil, 1)
	w.create("run-3", "ws-1", on("node-1", "GPU-b"), 1)
	w.reaches("run-3", "ok", workspace.PhaseStarting, workspace.PhaseRunning)
	w.reaches("run-3", "exited", workspace.PhaseSucceeded)
	w.report("node-1", workspace.Report{
		Health: []workspace.DeviceHealth{{Device: "GPU-c", Health: gpu.Unhealthy, Reason: "xid_79", Message: "gone"}},
		Images: &[]workspace.NodeImage{{Reference: "a", Digest: "sha256:1", Size: 1000}, {Reference: "b", Digest: "sha256:1", Size: 1000}},
	})
	w.report("node-2", workspace.Report{Ready: &workspace.Readiness{Reason: "runtime_unavailable", Message: "containerd at /run/x doesn't answer"}})
	w.poor("ws-2", "run-4", "node-1")
	for _, request := range []struct {
		route, method string
		lasting       bool
		status        int
	}{{"/berth/v1/instances/{id}", "GET", false, 200}, {"/berth/v1/instances", "POST", false, 201}, {"", "BREW", false, 404}} {
		m.Observe(request.route, request.method, request.lasting)(request.status)
	}
	m.Observe("/berth/v1/events/stream", "GET", true)
	m.Observe("/berth/v1/instances", "GET", false)
	synctest.Wait()
	return scrape(t, m)
}

// TestScrape compares berth's own families with a golden scrape.
func TestScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := slices.DeleteFunc(strings.SplitAfter(sample(t), "\n"), func(line string) bool {
			return !strings.Contains(line, "berth_") && !strings.Contains(line, "DCGM_")
		})
		text := strings.Join(own, "")
		if *rewrite {
			if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("-want +got (-rewrite takes what it got):\n%s", diff)
		}
	})
}

// Names, units, types and help are as Prometheus wants them, but for those that
// are dcgm-exporter's.
func TestGoldenIsClean(t *testing.T) {
	raw, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	own := slices.DeleteFunc(strings.SplitAfter(string(raw), "\n"), func(line string) bool { return strings.Contains(line, "DCGM_") })
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(strings.Join(own, ""))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// A follower tells of its own host only: the leader's sums would count twice.
func TestFollowerTellsOnlyOfItsHost(t *testing.T) {
	w := newWorld(t)
	w.node("node-1", "T4", "GPU-a")
	w.node("node-2", "T4", "GPU-b")
	c := config(w, "node-2", &reader{Fake: gputest.New("Tesla T4", 1)})
	leads := false
	c.Raft = func() metrics.Raft { return metrics.Raft{Leader: leads, HasLeader: true} }
	m := metrics.New(c)
	scrape(t, m) // from here on it counts
	w.create("run-1", "ws-1", on("node-1", "GPU-a"), 1)
	got := series(t, scrape(t, m))
	for name := range got {
		if strings.Contains(name, "node-1") || strings.Contains(name, "GPU-a") || strings.HasPrefix(name, "berth_runs") {
			t.Errorf("a follower tells %s", name)
		}
	}
	if got["berth_run_pending_seconds_count"] != 0 {
		t.Error("a follower counts what the leader counts")
	}
	if got[`berth_device_state{device="GPU-b",state="free"}`] != 1 {
		t.Error("it doesn't tell of its own device")
	}
	leads = true
	got = series(t, scrape(t, m))
	if got[`berth_runs{kind="interactive",phase="assigned"}`] != 1 || got["berth_run_pending_seconds_count"] != 0 {
		t.Error("the new leader doesn't tell what it should, or counts what the one before has counted")
	}
}
