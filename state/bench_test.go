package state

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"berth/workspace"
)

// BenchmarkStart is the entry of a start that is admitted and placed on a node
// with 8 GPUs, 7 of them held, in a cluster with 40 active runs. Median and
// 10th percentile: the mean holds what other processes took. Goal: ≤ 50 µs.
func BenchmarkStart(b *testing.B) {
	w := newWorld(b)
	w.play("init\nreport n1 facts ready cpu=1000000 memory=1000000 gpus=GPU-0,GPU-1,GPU-2,GPU-3,GPU-4,GPU-5,GPU-6,GPU-7")
	w.play("report n2 facts ready cpu=1000000 memory=1000000\nupdate w0 max=1000")
	for n := range 40 {
		on := fmt.Sprintf("gpus=1 on=n1/GPU-%d", n)
		if n >= 7 {
			on = "on=n2"
		}
		w.play(fmt.Sprintf("create i%d storage=1 run=r%d %s", n, n, on))
	}
	w.play("create bench gpus=1")
	place := &Suggestion{Node: "n1", Devices: []workspace.Allotment{{UUID: "GPU-7", Milli: 1000}}}
	n := 0
	encode := func() (string, []byte) {
		n++
		run := fmt.Sprintf("b%08d", n)
		entry, err := Encode(&StartInstance{ID: "bench", Run: run, Suggestion: place},
			Caller{RequestID: run, Principal: "alice", Role: workspace.RoleClusterAdmin}, w.clock)
		if err != nil {
			b.Fatal(err)
		}
		return run, entry
	}
	var took []time.Duration
	for b.Loop() {
		run, entry := encode()
		w.index++
		begun := time.Now()
		res, err := w.store.Apply(w.index, entry)
		took = append(took, time.Since(begun))
		if got := w.store.View().Run(run); err != nil || res.Err != nil || got.Phase != workspace.PhaseAssigned {
			b.Fatal(err, res.Err, got)
		}
		w.end(run)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "µs/start")
	b.ReportMetric(float64(took[len(took)/10].Nanoseconds())/1000, "µs/p10")
	b.ReportMetric(0, "ns/op")
}

// end is the report that a run is over and its device free.
func (w *world) end(run string) { w.endOn(run, "GPU-7") }

func (w *world) endOn(run, device string) {
	w.index++
	epoch := w.store.View().Run(run).Epoch
	entry, err := Encode(&Report{workspace.Report{Node: "n1", Stamp: w.boots["n1"],
		Runs:     []workspace.RunReport{{Run: run, Epoch: epoch, Phase: workspace.PhaseStopped, Reason: "stopped"}},
		Released: []workspace.Release{{Device: device, Run: run, Epoch: epoch}},
	}}, Caller{Role: workspace.RoleNode, Principal: "n1"}, w.clock)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Apply(w.index, entry); err != nil {
		w.t.Fatal(err)
	}
}

// BenchmarkSnapshot writes a state of 100 000 runs, and takes it, which is what
// Apply waits for.
func BenchmarkSnapshot(b *testing.B) {
	w := newWorld(b)
	w.play("init")
	txn := w.store.db.Load().mem.Txn(true)
	for n := range 100_000 {
		runs.put(txn, &workspace.Run{ID: fmt.Sprintf("r%08d", n), Instance: "i", Workspace: "w0", User: "alice", Kind: workspace.KindJob,
			Phase: workspace.PhaseSucceeded, Desired: workspace.RunStopping, Reason: "succeeded", Message: "it ended with exit code 0", Node: "n1",
			Devices: []workspace.Allotment{{UUID: "GPU-0", Milli: 1000}}, Resources: workspace.Resources{GPUCount: 1, CPUMilli: 1000},
			Spec: workspace.RunSpec{Image: "demo:latest", Command: []string{"train"}}, Since: w.clock})
	}
	txn.Commit()
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			w.store.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if err := w.store.Snapshot().Write(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
