package scheduler_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// putOff makes an instance whose run has just failed and gives the run that
// follows it, which waits.
func (r *replica) putOff(volume string) *workspace.Run {
	r.t.Helper()
	res := r.apply(workspace.RoleClusterAdmin, "root", &state.CreateInstance{
		ID: "i-again", Workspace: "ws", Name: "again", Kind: workspace.KindInteractive,
		Resources: workspace.Resources{GPUCount: 1, CPUMilli: 100, MemoryMiB: 100, StorageMiB: 1000},
		Spec:      workspace.RunSpec{Image: "demo:latest", VolumePath: volume}, Start: true, Run: "again",
		RestartPolicy: workspace.RestartPolicy{Mode: workspace.RestartAlways},
		Suggestion:    &state.Suggestion{Node: node, Devices: []workspace.Allotment{{UUID: "GPU-0", Milli: 1000}}},
	})
	if res.Err != nil {
		r.t.Fatal(res.Err)
	}
	r.report(workspace.Report{
		Runs:     []workspace.RunReport{{Run: "again", Epoch: r.View().Run("again").Epoch, Phase: workspace.PhaseFailed}},
		Released: []workspace.Release{{Device: "GPU-0", Run: "again", Epoch: r.View().Run("again").Epoch}},
	})
	next := r.View().Run(r.View().Instance("i-again").Run)
	if next.Reason != workspace.ReasonRestartBackoff {
		r.t.Fatalf("the run that follows: %+v", next)
	}
	return next
}

func (r *replica) report(report workspace.Report) {
	r.t.Helper()
	report.Node, report.Stamp = node, workspace.Stamp{BootID: "boot", BoottimeMS: int64(r.index + 10)}
	if res := r.apply(workspace.RoleNode, node, &state.Report{Report: report}); res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

// A restart that is put off is placed when its time has come, without anything
// else happening, also where the log's clock is a little behind.
func TestLoopPlacesARestartInTime(t *testing.T) {
	for name, behind := range map[string]time.Duration{"in step": 0, "behind": 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t, 1)
			began := time.Now()
			r.clock = func() time.Time { return time.Now().Add(-behind) }
			next := r.putOff("")
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				if err := newLoop(r).Run(ctx); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(workspace.FirstRestartDelay - behind - time.Millisecond)
			synctest.Wait()
			index := r.View().Index()
			if run := r.View().Run(next.ID); run.Phase != workspace.PhasePending {
				t.Fatalf("%s: it is %s before its time", name, run.Phase)
			}
			for r.View().Run(next.ID).Phase == workspace.PhasePending {
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			if late := time.Since(began) - workspace.FirstRestartDelay; late > behind+time.Second {
				t.Errorf("%s: it was placed %s late", name, late)
			}
			if entries := r.View().Index() - index; entries > 3 {
				t.Errorf("%s: that took %d entries", name, entries)
			}
			cancel()
			synctest.Wait()
		})
	}
}

// A restart that is put off keeps nothing from others, and is explained.
func TestARestartPutOffHoldsNothingBack(t *testing.T) {
	r := newReplica(t, 1)
	next := r.putOff("")
	if d := scheduler.Explain(r.View(), next); d.Reason == nil || d.Reason.Code != workspace.ReasonRestartBackoff || d.Reason.Message != next.Message {
		t.Errorf("explained as %+v", d)
	}
	index := r.View().Index()
	runOnce(t, newLoop(r), r)
	if r.View().Index() != index {
		t.Error("the loop proposed something for it")
	}
	s, _ := scheduler.NewPlanner().SuggestNewcomer(r.View(), scheduler.Request{Run: "new", Resources: want(1)})
	if s.Node == "" {
		t.Errorf("a newcomer doesn't get the free GPU: %s", s.Message)
	}
}

// A run is tied to its volume's node, its volume's size is there already, and a
// lost volume keeps it, but none behind it.
func TestLoopKnowsVolumes(t *testing.T) {
	r := newReplica(t, 1)
	next := r.putOff("/home")
	request := scheduler.RequestFor(r.View(), next)
	if request.Node != node || request.VolumeMiB != 1000 {
		t.Errorf("its request: %+v", request)
	}
	r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: "again", Made: true}}})
	r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: "again", Gone: true}}})
	r.apply(workspace.RoleClusterAdmin, "root", &state.StartInstance{ID: "i-again", Run: "x"}) // ends the wait
	r.start("behind", 1, nil)
	l := newLoop(r)
	runOnce(t, l, r)
	run := r.View().Run(next.ID)
	if run.Reason != workspace.ReasonVolumeLost {
		t.Errorf("it waits for %s: %s", run.Reason, run.Message)
	}
	if d := scheduler.Explain(r.View(), run); d.Reason == nil || string(d.Reason.Code) != workspace.ReasonVolumeLost {
		t.Errorf("explained as %+v", d)
	}
	if run := r.View().Run("behind"); run.Phase != workspace.PhaseAssigned {
		t.Errorf("the run behind it is %s (%s)", run.Phase, run.Message)
	}
	index := r.View().Index()
	runOnce(t, l, r)
	if r.View().Index() != index {
		t.Error("a second look proposed something although nothing had changed")
	}
}

// What placement sees of a node's storage: all its volumes, and what is in
// flight.
func TestStorageInView(t *testing.T) {
	r := newReplica(t, 1)
	r.putOff("/home")
	r.apply(workspace.RoleClusterAdmin, "root", &state.DeleteInstance{ID: "i-again"})
	p := scheduler.NewPlanner()
	large := workspace.Resources{CPUMilli: 100, MemoryMiB: 100, StorageMiB: 639_000}
	if _, done := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "a", Resources: large}); done == nil {
		t.Fatal("no release")
	}
	large.StorageMiB = 1
	s, _ := p.SuggestNewcomer(r.View(), scheduler.Request{Run: "b", Resources: large})
	if s.Reason != string(scheduler.CodeWaitingForStorage) {
		t.Errorf("suggested %+v", s)
	}
	if view := scheduler.ViewOf(r.View(), nil); view.Nodes[0].Used.StorageMiB != 1000 || view.Nodes[0].DetachedMiB != 1000 {
		t.Errorf("the node: %+v", view.Nodes[0])
	}
}

// A fresh volume in place of a lost one, which changes no run, wakes the loop.
func TestLoopIsWokenByVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, 1)
		next := r.putOff("/home")
		r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: "again", Made: true}}})
		r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: "again", Gone: true}}})
		r.apply(workspace.RoleClusterAdmin, "root", &state.StartInstance{ID: "i-again", Run: "x"})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := newLoop(r).Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		// It changes the volume and the instance, and no run, node or device.
		r.apply(workspace.RoleClusterAdmin, "root", &state.StartInstance{ID: "i-again", Run: "x", FreshVolume: true})
		synctest.Wait()
		if run := r.View().Run(next.ID); run.Phase != workspace.PhaseAssigned || run.Volume != next.ID {
			t.Errorf("it is %s on volume %q: %s", run.Phase, run.Volume, run.Message)
		}
		cancel()
		synctest.Wait()
	})
}
