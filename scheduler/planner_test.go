package scheduler_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/gpu"
	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a state with one ready node of n devices, and a log that is
// applied at once.
type replica struct {
	t     *testing.T
	store *state.Store
	mu    sync.Mutex
	index uint64
	clock func() time.Time // of the log; nil: a second an entry
}

const node = "node-1"

func newReplica(t *testing.T, devices int) *replica {
	t.Helper()
	r := &replica{t: t, store: state.New()}
	r.apply(workspace.RoleSystem, "", &state.InitCluster{ID: "cluster", Name: "test", Workspace: "ws"})
	inv := &gpu.Inventory{Source: "simulated"}
	for i := range devices {
		inv.Devices = append(inv.Devices, gpu.Info{UUID: fmt.Sprintf("GPU-%d", i), Type: "T4", Model: "Tesla T4", MemoryMiB: 16000, Minor: int64(i)})
	}
	r.apply(workspace.RoleNode, node, &state.Report{Report: workspace.Report{
		Node: node, Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 1}, Devices: inv,
		Facts: &workspace.NodeFacts{Name: "host", BootID: "boot", CPUMilli: 64000, MemoryMiB: 64000, StorageMiB: 640000, GPUSource: "simulated"},
		Ready: &workspace.Readiness{Ready: true},
	}})
	return r
}

func (r *replica) apply(role workspace.Role, principal string, cmd state.Command) state.Result {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	at := time.Unix(int64(r.index), 0)
	if r.clock != nil {
		at = r.clock()
	}
	entry, err := state.Encode(cmd, state.Caller{Role: role, Principal: principal}, at)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := r.store.Apply(r.index, entry)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// start makes an instance named after its run, with a suggestion or none.
func (r *replica) start(run string, gpus int, s *state.Suggestion) {
	r.t.Helper()
	res := r.apply(workspace.RoleClusterAdmin, "root", &state.CreateInstance{
		ID: "i-" + run, Workspace: "ws", Name: run, Kind: workspace.KindInteractive, Resources: want(gpus),
		Spec: workspace.RunSpec{Image: "demo:latest"}, Start: true, Run: run, Suggestion: s,
	})
	if res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

func want(gpus int) workspace.Resources {
	return workspace.Resources{GPUCount: gpus, CPUMilli: 100, MemoryMiB: 100}
}

// View and Place make a replica the loop's cluster.
func (r *replica) View() state.View { return r.store.View() }

func (r *replica) Place(_ context.Context, p []state.Placement) error {
	r.apply(workspace.RoleSystem, "", &state.PlaceRuns{Placements: p})
	return nil
}

func TestSuggestionsInFlightAreNotOfferedTwice(t *testing.T) {
	r := newReplica(t, 2)
	p := scheduler.NewPlanner()
	first, done := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "a", Resources: want(1)})
	second, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "b", Resources: want(1)})
	if first.Devices[0].UUID == second.Devices[0].UUID {
		t.Fatalf("both were offered %s", first.Devices[0].UUID)
	}
	third, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "c", Resources: want(1)})
	if third.Node != "" || third.Reason != string(scheduler.CodeWaitingForGPU) {
		t.Fatalf("a third was offered a place: %+v", third)
	}
	done() // the first never made it into the log
	again, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "d", Resources: want(1)})
	if len(again.Devices) != 1 || again.Devices[0].UUID != first.Devices[0].UUID {
		t.Fatalf("a device given back isn't offered again: %+v", again)
	}
}

func TestAppliedSuggestionsCountOnce(t *testing.T) {
	r := newReplica(t, 2)
	p := scheduler.NewPlanner()
	s, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "a", Resources: want(1)})
	r.start("a", 1, &s)
	r.apply(workspace.RoleClusterAdmin, "root", &state.DeleteInstance{ID: "i-a"})
	epoch := r.View().Run("a").Epoch
	r.apply(workspace.RoleNode, node, &state.Report{Report: workspace.Report{
		Node: node, Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 2},
		Runs:     []workspace.RunReport{{Run: "a", Epoch: epoch, Phase: workspace.PhaseStopped}},
		Released: []workspace.Release{{Device: s.Devices[0].UUID, Run: "a", Epoch: epoch}},
	}})
	// a is applied and over, and its proposer hasn't said so: it keeps nothing.
	if s, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "b", Resources: want(2)}); s.Node == "" {
		t.Fatalf("nothing offered although both GPUs are free: %s", s.Message)
	}
}

func TestNewcomersStandBehindThoseThatWait(t *testing.T) {
	r := newReplica(t, 1)
	r.start("waits", 1, nil) // pending, and the GPU is free
	s, _ := scheduler.NewPlanner().SuggestNewcomer(r.View(), scheduler.Request{Run: "new", Resources: want(1)})
	if s.Node != "" {
		t.Fatalf("a newcomer was offered what an older run could have: %+v", s)
	}
}

func TestLoopPlacesWhatWaits(t *testing.T) {
	r := newReplica(t, 2)
	l := newLoop(r)
	for _, run := range []string{"a", "b", "c"} {
		r.start(run, 1, nil)
	}
	runOnce(t, l, r)
	for run, phase := range map[string]workspace.Phase{"a": "assigned", "b": "assigned", "c": "pending"} {
		if got := r.View().Run(run).Phase; got != phase {
			t.Errorf("run %s is %s, not %s", run, got, phase)
		}
	}
	if got := r.View().Run("c").Reason; got != string(scheduler.CodeWaitingForGPU) {
		t.Errorf("c waits for %q", got)
	}
	index := r.View().Index()
	runOnce(t, l, r)
	if r.View().Index() != index {
		t.Error("a second look proposed something although nothing had changed")
	}
}

func TestLoopFailsWhatCanNeverRun(t *testing.T) {
	r := newReplica(t, 2)
	r.start("a", 3, nil)
	runOnce(t, newLoop(r), r)
	if run := r.View().Run("a"); run.Phase != workspace.PhaseFailed || run.Reason != string(scheduler.CodeCountImpossible) {
		t.Fatalf("run is %s (%s)", run.Phase, run.Reason)
	}
}

func TestLoopIsWokenByWhatGetsFree(t *testing.T) {
	r := newReplica(t, 1)
	l := newLoop(r)
	s, done := l.Planner.SuggestNewcomer(r.View(), scheduler.Request{Run: "a", Resources: want(1)})
	r.start("a", 1, &s)
	done()
	r.start("b", 1, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	epoch := r.View().Run("a").Epoch
	r.apply(workspace.RoleClusterAdmin, "root", &state.DeleteInstance{ID: "i-a"})
	r.apply(workspace.RoleNode, node, &state.Report{Report: workspace.Report{
		Node: node, Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 2},
		Runs:     []workspace.RunReport{{Run: "a", Epoch: epoch, Phase: workspace.PhaseStopped}},
		Released: []workspace.Release{{Device: "GPU-0", Run: "a", Epoch: epoch}},
	}})
	for view := r.View(); view.Run("b").Phase != workspace.PhaseAssigned; view = r.View() {
		if err := view.Wait(t.Context(), state.TopicRuns); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
