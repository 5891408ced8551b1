package state

import (
	"fmt"
	goruntime "runtime"
	"slices"
	"testing"
	"time"

	"berth/workspace"
)

const (
	crowdNodes = 100
	crowdRuns  = 10_000
	endedRuns  = 100_000
)

// crowd is a cluster with prices in which 10 000 runs of 20 workspaces are active,
// and node n1 with 8 GPUs, 7 of them held.
func crowd(b *testing.B) *world {
	w := newWorld(b)
	w.quietly("init")
	for _, price := range []string{"gpu:*=1", "gpu:A100=2", "gpu:A100-SXM4=2.50", "gpu:H100=4", "gpu:L4=0.50", "cpu=0.02", "memory=0.005"} {
		w.quietly("price " + price)
	}
	for n := range crowdNodes {
		w.quietly(fmt.Sprintf("report n%d facts ready cpu=1000000 memory=1000000 gpus=GPU-%d.0,GPU-%d.1,GPU-%d.2,GPU-%d.3,GPU-%d.4,GPU-%d.5,GPU-%d.6,GPU-%d.7", n, n, n, n, n, n, n, n, n))
	}
	for n := range 20 {
		w.quietly(fmt.Sprintf("workspace w%d slug=team-%d plan=scale", n+1, n+1))
		w.quietly(fmt.Sprintf("update w%d max=20000", n+1))
	}
	for n := range crowdRuns {
		on := fmt.Sprintf("n%d", n%crowdNodes)
		if n < 7*crowdNodes {
			on = fmt.Sprintf("gpus=1 on=%s/GPU-%d.%d", on, n%crowdNodes, n/crowdNodes)
		} else {
			on = "on=" + on
		}
		w.quietly(fmt.Sprintf("create i%d in=w%d storage=1 by=system run=r%05d %s", n, 1+n%20, n, on))
	}
	return w
}

// quietly applies a command without checking the invariants.
func (w *world) quietly(text string) {
	l := parseLine(w.t, text)
	by, cmd := l.caller(), w.build(l)
	w.stampPlaces(cmd, l)
	if res := w.applied(cmd, by); res.Err != nil {
		w.t.Fatalf("%s: %v", text, res.Err)
	}
}

func (w *world) applied(cmd Command, by Caller) Result {
	w.index++
	w.clock = w.clock.Add(time.Millisecond)
	entry, err := Encode(cmd, by, w.clock)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.store.Apply(w.index, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// inForce sets all four kinds of budgets that apply to workspace w1.
func (w *world) inForce() {
	w.quietly("update w1 daily=9000000 user-daily=9000000 spending=9000000")
	w.quietly("cluster-set daily=900000000")
}

// report gives median and 10th percentile; a mean holds what other processes took.
func reportTimes(b *testing.B, took []time.Duration, unit string, per time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/float64(per), unit)
	b.ReportMetric(float64(took[len(took)/10])/float64(per), unit+"-p10")
	b.ReportMetric(float64(took[0])/float64(per), unit+"-min")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStartAmongMany is a start on the last free GPU of n1 among 10 000 active
// runs: without and with budgets, and what admission and the reservation are of it,
// with the writes that they add to the entry. Goal for those: ≤ 20 µs.
func BenchmarkStartAmongMany(b *testing.B) {
	w := crowd(b)
	w.quietly("create bench in=w1 gpus=1")
	b.Run("free", func(b *testing.B) { w.benchStarts(b) })
	w.inForce()
	b.Run("budgets", func(b *testing.B) { w.benchStarts(b) })
	b.Run("money", func(b *testing.B) { w.benchMoney(b) })
}

func (w *world) benchStarts(b *testing.B) {
	var took []time.Duration
	stamp := w.boots["n1"]
	for b.Loop() {
		w.index++
		w.clock = w.clock.Add(time.Millisecond)
		run := fmt.Sprintf("b%08d", w.index)
		entry, err := Encode(&StartInstance{ID: "bench", Run: run, Suggestion: &Suggestion{Node: "n1", Stamp: &stamp,
			Devices: []workspace.Allotment{{UUID: "GPU-1.7", Milli: 1000}}}},
			Caller{RequestID: run, Principal: "alice", Role: workspace.RoleClusterAdmin}, w.clock)
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		res, err := w.store.Apply(w.index, entry)
		took = append(took, time.Since(begun))
		if got := w.store.View().Run(run); err != nil || res.Err != nil || got.Phase != workspace.PhaseAssigned {
			b.Fatal(err, res.Err, got)
		}
		w.endOn(run, "GPU-1.7")
	}
	reportTimes(b, took, "µs/start", time.Microsecond)
}

func (w *world) benchMoney(b *testing.B) {
	inst := w.store.View().Instance("bench")
	s := &Suggestion{Node: "n1", Devices: []workspace.Allotment{{UUID: "GPU-1.7", Milli: 1000}}}
	stamp := w.boots["n1"]
	var took []time.Duration
	for b.Loop() {
		txn := w.store.db.Load().mem.Txn(true)
		t := &tx{Txn: txn, env: Envelope{Principal: "alice", Role: workspace.RoleClusterAdmin}, index: w.index + 1, at: w.clock}
		run := t.newRun(inst, "new")
		begun := time.Now()
		ask := questionOf(t, run, s, t.at)
		ask.atSubmit = true
		if denial := t.admit(ask); denial != nil {
			b.Fatal(denial)
		}
		t.countRun(run)
		t.grantFirst(meterOf(run, inst, ask.quote), &stamp, stamp.BootID)
		t.keepBooks()
		if err := t.flush(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
		txn.Abort()
	}
	reportTimes(b, took, "µs/admission", time.Microsecond)
}

// BenchmarkRenewLeases renews 10 000 due leases under four budgets in one entry.
// Goal: ≤ 20 ms.
func BenchmarkRenewLeases(b *testing.B) {
	w := crowd(b)
	w.inForce()
	w.gather("n1")
	c := &RenewLeases{Node: "n1", Stamp: w.boots["n1"]}
	for m := range meters.each(w.store.View().txn, "id") {
		c.Runs = append(c.Runs, workspace.Livedness{Run: m.Run})
	}
	if len(c.Runs) != crowdRuns {
		b.Fatalf("%d runs", len(c.Runs))
	}
	b.Run("renew", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			c.Stamp.BoottimeMS += 16 * 60_000
			for i := range c.Runs {
				c.Runs[i].LivedMS += 16 * 60_000
			}
			w.clock = w.clock.Add(16 * time.Minute)
			entry, err := Encode(c, Caller{Role: workspace.RoleSystem}, w.clock)
			if err != nil {
				b.Fatal(err)
			}
			w.index++
			begun := time.Now()
			if _, err := w.store.Apply(w.index, entry); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(begun))
			if m := w.store.View().Metered("r00000"); m.Lease.Grant < uint64(len(took)) {
				b.Fatal("it wasn't renewed: ", m)
			}
		}
		reportTimes(b, took, "ms/10000-renewals", time.Millisecond)
	})
	b.Run("plan", func(b *testing.B) {
		beat := workspace.Beat{Node: "n1", Stamp: c.Stamp, Runs: c.Runs}
		var took []time.Duration
		for b.Loop() {
			begun := time.Now()
			w.store.View().Leases(beat, w.clock)
			took = append(took, time.Since(begun))
		}
		reportTimes(b, took, "ms/10000-leases", time.Millisecond)
	})
}

// gather puts all meters on one node, and has each cost something in w1.
func (w *world) gather(node string) {
	txn := w.store.db.Load().mem.Txn(true)
	for _, m := range collect(meters.each(txn, "id")) {
		n := *m
		n.Node, n.Rate = node, 1_234_567
		n.Lease.End.BootID = w.boots[node].BootID
		n.Slices, n.Granted = nil, 0
		meters.put(txn, &n)
	}
	txn.Commit()
}

// BenchmarkUsage asks for the usage of a workspace with 100 000 ended runs, 30 days
// of 10 users. Goal: ≤ 5 ms. The states's bytes per ended run are its snapshot's and
// the heap's, before and after folding.
func BenchmarkUsage(b *testing.B) {
	heap := heapInUse()
	w := newWorld(b)
	w.quietly("init")
	w.quietly("workspace w1 slug=team plan=scale")
	empty := len(snapshotOf(b, w.store))
	w.fillEnded()
	b.Run("workspace", func(b *testing.B) {
		for b.Loop() {
			w.store.View().WorkspaceUsage("w1", w.clock)
		}
	})
	b.Run("query", func(b *testing.B) {
		for b.Loop() {
			w.store.View().Usage(workspace.UsageQuery{Workspace: "w1", By: []string{"user", "day"}})
		}
	})
	b.Run("ended", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(len(snapshotOf(b, w.store))-empty)/endedRuns, "snapshot-B/run")
			b.ReportMetric(float64(heapInUse()-heap)/endedRuns, "heap-B/run")
		}
	})
	w.foldAll()
	b.Run("folded", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(len(snapshotOf(b, w.store))-empty)/endedRuns, "snapshot-B/run")
			b.ReportMetric(float64(heapInUse()-heap)/endedRuns, "heap-B/run")
		}
	})
}

func heapInUse() int64 {
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillEnded has external and other runs end, each by the commands that end it.
func (w *world) fillEnded() {
	w.quietly("report n1 facts ready cpu=1000000 memory=1000000")
	w.quietly("price cpu=0.10")
	for n := range endedRuns {
		w.clock = w.clock.Add(26 * time.Second) // 30 days
		run := fmt.Sprintf("01980000-0000-7000-9000-%012d", n)
		user := fmt.Sprintf("user%d", n%10)
		by := Caller{Principal: user, Role: workspace.RoleClusterAdmin}
		c := &CreateInstance{ID: "i" + run, Workspace: "w1", Name: fmt.Sprintf("job-%d", n), Template: workspace.TemplateRef{Name: "shell"}, Kind: workspace.KindJob,
			Resources: workspace.Resources{CPUMilli: 1000, MemoryMiB: 64, StorageMiB: 1},
			Spec:      workspace.RunSpec{Image: "demo:latest", ImageDigest: "sha256:1", Command: []string{"train", "--epochs", "3"}, Stoppable: true},
			Start:     true, Run: run, Suggestion: &Suggestion{Node: "n1"}}
		if res := w.applied(c, by); res.Err != nil {
			w.t.Fatal(res.Err)
		}
		w.ended(run, n)
		w.applied(&DeleteInstance{ID: c.ID}, by)
	}
}

func (w *world) ended(run string, n int) {
	r := w.store.View().Run(run)
	w.applied(&Report{workspace.Report{Node: "n1", Stamp: w.boots["n1"],
		Runs: []workspace.RunReport{{Run: run, Epoch: r.Epoch, Phase: workspace.PhaseSucceeded, LivedMS: int64(1000 + n%3_000_000), Reason: "succeeded",
			Message: "it ended with exit code 0", ExitCode: ptr(0)}}}}, Caller{Role: workspace.RoleNode, Principal: "n1"})
}

func (w *world) foldAll() {
	w.clock = w.clock.Add(30 * 24 * time.Hour)
	for range endedRuns / sweptMost {
		w.quietly("sweep")
	}
	for _, gone := range []func(chunk []string) (Command, Caller){
		func(chunk []string) (Command, Caller) {
			return &Report{workspace.Report{Node: "n1", Stamp: w.boots["n1"], Expired: chunk}}, Caller{Role: workspace.RoleNode, Principal: "n1"}
		},
		func(chunk []string) (Command, Caller) {
			return &FoldHistory{Before: w.clock.Add(-48 * time.Hour).UnixMicro(), Runs: chunk}, Caller{Role: workspace.RoleSystem}
		},
	} {
		var all []string
		for r := range w.store.View().AllRuns() {
			all = append(all, r.ID)
		}
		for chunk := range slices.Chunk(all, 1000) {
			cmd, by := gone(chunk)
			w.applied(cmd, by)
		}
	}
	for range w.store.View().AllRuns() {
		w.t.Fatal("a run is left")
	}
}
