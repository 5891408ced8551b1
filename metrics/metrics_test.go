package metrics_test

import (
	"flag"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

var rewrite = flag.Bool("rewrite", false, "write the golden scrape anew")

// sample is a state with one node, two GPUs, one of them held by a run, and a
// second run that waits.
func sample(t *testing.T) *state.Store {
	t.Helper()
	s := state.New()
	node := workspace.RoleNode
	for i, step := range []struct {
		role workspace.Role
		cmd  state.Command
	}{
		{workspace.RoleSystem, &state.InitCluster{ID: "c", Name: "test", Workspace: "ws-1"}},
		{node, &state.Report{Report: workspace.Report{
			Node: "node-1", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 1},
			Facts: &workspace.NodeFacts{Name: "host", CPUMilli: 8000, MemoryMiB: 1024, StorageMiB: 1024, GPUSource: "simulated"},
			Devices: &gpu.Inventory{Source: "simulated", Devices: []gpu.Info{
				{UUID: "GPU-a", Type: "T4", MemoryMiB: 15360}, {UUID: "GPU-b", Type: "T4", MemoryMiB: 15360},
			}},
			Ready: &workspace.Readiness{Ready: true},
		}}},
		{workspace.RoleClusterAdmin, create("run-1", &state.Suggestion{
			Node: "node-1", Devices: []workspace.Allotment{{UUID: "GPU-a", Milli: 1000}}})},
		{workspace.RoleClusterAdmin, create("run-2", nil)},
	} {
		entry, err := state.Encode(step.cmd, state.Caller{Role: step.role, Principal: "node-1"}, time.Unix(int64(i), 0))
		if err != nil {
			t.Fatal(err)
		}
		if res, err := s.Apply(uint64(i+1), entry); err != nil || res.Err != nil {
			t.Fatal(err, res.Err)
		}
	}
	return s
}

func create(run string, s *state.Suggestion) *state.CreateInstance {
	return &state.CreateInstance{
		ID: "i-" + run, Workspace: "ws-1", Name: run, Kind: workspace.KindInteractive, Start: true, Run: run, Suggestion: s,
		Resources: workspace.Resources{GPUCount: 1, CPUMilli: 1500, MemoryMiB: 512}, Spec: workspace.RunSpec{Image: "i"},
	}
}

// TestScrape compares berth's own families with a golden scrape.
func TestScrape(t *testing.T) {
	s := sample(t)
	h := metrics.Handler(metrics.Config{
		Version: "1.2.3", View: s.View,
		Raft: func() metrics.Raft {
			return metrics.Raft{Leader: true, HasLeader: true, Term: 2, CommitIndex: 9, AppliedIndex: 8}
		},
		Agent: func() metrics.Agent {
			return metrics.Agent{Starts: 1, Adoptions: 2, Ends: 3, Kills: 4, Reaped: 5, Reports: 6, ReportFailures: 7, Orphans: 8}
		},
	})
	got := httptest.NewRecorder()
	h.ServeHTTP(got, httptest.NewRequest("GET", "/metrics", nil))
	own := slices.DeleteFunc(strings.SplitAfter(got.Body.String(), "\n"), func(line string) bool { return !strings.Contains(line, "berth_") })
	text := strings.Join(own, "")
	const golden = "testdata/scrape.txt"
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
}
