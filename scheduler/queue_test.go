package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"

	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

func newLoop(r *replica) *scheduler.Loop {
	return &scheduler.Loop{Cluster: r, Planner: scheduler.NewPlanner(), Log: slog.New(slog.DiscardHandler)}
}

// jobs makes a workspace whose limit is one, with one job running and n queued.
func (r *replica) jobs(n int) {
	r.t.Helper()
	r.apply(workspace.RoleClusterAdmin, "root", &state.CreateWorkspace{ID: "busy", Slug: "busy", Plan: workspace.PlanScale})
	one := 1
	r.apply(workspace.RoleClusterAdmin, "root", &state.UpdateWorkspace{ID: "busy", MaxConcurrentRuns: &one})
	for i := range n + 1 {
		res := r.apply(workspace.RoleClusterAdmin, "root", &state.CreateInstance{
			ID: fmt.Sprintf("i-job-%03d", i), Workspace: "busy", Name: fmt.Sprintf("job-%d", i), Kind: workspace.KindJob,
			Resources: want(1), Spec: workspace.RunSpec{Image: "demo:latest"}, Start: true, Run: fmt.Sprintf("job-%03d", i),
		})
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
	}
}

func runOnce(t *testing.T, l *scheduler.Loop, r *replica) {
	t.Helper()
	if err := l.RunOnce(t.Context(), r.View(), r.View().At()); err != nil {
		t.Fatal(err)
	}
}

// Jobs that their workspace's limit denies hold nothing back: not in the loop,
// not for newcomers, however many they are.
func TestDeniedRunsHoldNothingBack(t *testing.T) {
	r := newReplica(t, 8)
	l := newLoop(r)
	r.jobs(300)
	for range 4 {
		runOnce(t, l, r)
	}
	if run := r.View().Run("job-000"); run.Phase != workspace.PhaseAssigned {
		t.Fatalf("the first job is %s (%s)", run.Phase, run.Message)
	}
	if run := r.View().Run("job-299"); run.Reason != string(workspace.CodeConcurrency) {
		t.Errorf("the last job waits for %q", run.Reason)
	}
	s, done := l.Planner.SuggestNewcomer(r.View(), scheduler.Request{Run: "new", Resources: want(1)})
	done()
	if s.Node == "" {
		t.Errorf("a newcomer gets none of 7 free GPUs: %s", s.Message)
	}
	r.start("late", 1, nil)
	runOnce(t, l, r)
	if run := r.View().Run("late"); run.Phase != workspace.PhaseAssigned {
		t.Errorf("a run behind the denied ones is %s (%s)", run.Phase, run.Message)
	}
	index := r.View().Index()
	runOnce(t, l, r)
	if got := r.View().Index(); got != index {
		t.Errorf("%d entries were proposed although nothing had changed", got-index)
	}
}

// A refused newcomer gives back what was kept for it without a change of the
// state; who waited for that is placed all the same.
func TestRefusedNewcomerWakesTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, 1)
		l := newLoop(r)
		_, refused := l.Planner.SuggestNewcomer(r.View(), scheduler.Request{Run: "refused", Resources: want(1)})
		s, done := l.Planner.SuggestNewcomer(r.View(), scheduler.Request{Run: "waits", Resources: want(1)})
		r.start("waits", 1, &s)
		done()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if run := r.View().Run("waits"); run.Phase != workspace.PhasePending {
			t.Fatalf("it is %s while the GPU is kept for another", run.Phase)
		}
		refused()
		synctest.Wait()
		if run := r.View().Run("waits"); run.Phase != workspace.PhaseAssigned {
			t.Errorf("it is %s (%s) beside a free GPU", run.Phase, run.Message)
		}
		cancel()
		synctest.Wait()
	})
}

// What a quarantined container holds isn't offered.
func TestBlockedDevicesAreNotOffered(t *testing.T) {
	r := newReplica(t, 2)
	r.apply(workspace.RoleNode, node, &state.Report{Report: workspace.Report{
		Node: node, Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 2},
		Orphans: &[]workspace.Orphan{{Container: "stray", Devices: []string{"GPU-0"}}},
	}})
	s, _ := scheduler.NewPlanner().SuggestNewcomer(r.View(), scheduler.Request{Run: "a", Resources: want(1)})
	if s.Node == "" || s.Devices[0].UUID != "GPU-1" {
		t.Errorf("suggested %+v", s)
	}
}

func TestExplainKnowsLimitsAndTheQueue(t *testing.T) {
	r := newReplica(t, 2)
	r.jobs(2)
	l := newLoop(r)
	runOnce(t, l, r)
	view := r.View()
	if d := scheduler.Explain(view, view.Run("job-002")); d.Reason == nil || string(d.Reason.Code) != string(workspace.CodeConcurrency) {
		t.Errorf("a denied run: %+v", d)
	}
	r.start("first", 1, nil)
	r.start("second", 1, nil)
	view = r.View()
	if d := scheduler.Explain(view, view.Run("first")); d.Node == "" {
		t.Errorf("the next in the queue: %+v", d.Reason)
	}
	if d := scheduler.Explain(view, view.Run("second")); d.Reason == nil || d.Reason.Code != scheduler.CodeWaitingForGPU {
		t.Errorf("the one behind it: %+v", d)
	}
	if d := scheduler.Explain(view, &workspace.Run{Resources: want(1)}); d.Reason == nil {
		t.Errorf("a newcomer: %+v", d)
	}
}
