package metrics_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

// large makes a cluster of nodes with eight GPUs each, and runs on them. Ids
// are as long as real ones.
func large(t testing.TB, nodes, runs int) *world {
	w := newWorld(t)
	many := 2 * runs
	w.admin(&state.UpdateWorkspace{ID: "ws-1", MaxConcurrentRuns: &many})
	for n := range nodes {
		uuids := make([]string, 8)
		for i := range uuids {
			uuids[i] = longDevice(n, i)
		}
		w.node(longNode(n), "H100-SXM5-80GB", uuids...)
		if n%3 == 1 {
			w.report(longNode(n), workspace.Report{Ready: &workspace.Readiness{Reason: "runtime_unavailable", Message: "it doesn't answer"}})
		}
	}
	for r := range runs {
		n := r / 8 % nodes
		w.create(fmt.Sprintf("run-%d", r), "ws-1", on(longNode(n), longDevice(n, r%8)), 1)
	}
	return w
}

func longNode(n int) string { return fmt.Sprintf("0199b6a4-7c1d-7000-8000-%012d", n) }

func longDevice(n, i int) string { return fmt.Sprintf("GPU-85ee7a79-0d2c-4f14-%04d-%012d", i, n) }

const (
	routes  = 80 // of the API
	largest = 104 << 10
)

// eight is the driver of the first node, which measures all there is.
func eight() *reader {
	var readings []gpu.Reading
	for i := range 8 {
		readings = append(readings, everything(longDevice(0, i)))
	}
	return &reader{Fake: gputest.New("Tesla T4", 1), readings: func(context.Context) ([]gpu.Reading, error) { return readings, nil }}
}

// busy is the leader's metrics after all sorts of requests, with all readings.
func busy(ctx context.Context, w *world) *metrics.Metrics {
	m := metrics.New(config(w, longNode(0), eight()))
	go func() { _ = m.Run(ctx) }()
	synctest.Wait()
	for r := range routes {
		for _, status := range []int{200, 404} {
			m.Observe(fmt.Sprintf("/berth/v1/instances/{id}/action-%d", r), []string{"GET", "POST", "PATCH", "DELETE"}[r%4], false)(status)
		}
	}
	return m
}

// The scrape of the leader of 126 nodes with 1008 GPUs stays small, with a third
// of the nodes not ready, budgets in five of 21 workspaces and everything that its
// own devices measure.
func TestScrapeOf126NodesIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := large(t, 126, 500)
		for i := range 20 {
			w.admin(&state.CreateWorkspace{ID: fmt.Sprintf("0199b6a4-7c1d-7000-9000-%012d", i), Slug: fmt.Sprintf("w%d", i), Plan: workspace.PlanBasic})
		}
		w.admin(&state.SetPrice{Resource: "cpu", Amount: 1_234_567})
		for i := range 5 {
			id := fmt.Sprintf("0199b6a4-7c1d-7000-9000-%012d", i)
			w.admin(&state.UpdateWorkspace{ID: id, DailyBudget: amount(123_456_789), SpendingLimit: amount(1_234_567_890)})
			if refused := w.rent(fmt.Sprintf("rent-%d", i), id, "alice", longNode(0)); refused != nil {
				t.Fatal(refused)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		m := busy(ctx, w)
		size := len(scrape(t, m))
		t.Logf("%d bytes", size)
		if size > largest {
			t.Errorf("the scrape has %d bytes, more than %d", size, largest)
		}
	})
}

// Median and 10th percentile: the mean holds what other processes took.
func benchmarkScrape(b *testing.B, nodes, runs int) {
	w := large(b, nodes, runs)
	m := metrics.New(config(w, longNode(0), eight()))
	go func() { _ = m.Run(b.Context()) }()
	for !strings.Contains(scrape(b, m), "berth_device_power_watts") {
		time.Sleep(time.Millisecond)
	}
	size := 0
	var took []time.Duration
	for b.Loop() {
		begun := time.Now()
		size = len(scrape(b, m))
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/scrape")
	b.ReportMetric(float64(took[len(took)/10].Microseconds())/1000, "ms/p10")
	b.ReportMetric(float64(size), "bytes")
	b.ReportMetric(0, "ns/op")
}

// Goal: ≤ 3 ms.
func BenchmarkScrape126Nodes(b *testing.B) { benchmarkScrape(b, 126, 500) }

// Goal: ≤ 250 ms.
func BenchmarkScrape10000Devices(b *testing.B) { benchmarkScrape(b, 1250, 5000) }
