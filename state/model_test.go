package state

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/gpu"
	"berth/workspace"
)

var commandsWanted = flag.Int64("model.commands", 0, "how many commands TestModel sends at least; 0: as many as befits")

// TestModel sends random commands, sensible and junk, to two replicas, one of
// which is now and then restored from a snapshot. After every command the
// invariants must hold and the answers be equal, at the end the bytes. All paths
// of paths_test.go must have been gone. BERTH_TORTURE=1 makes it longer.
func TestModel(t *testing.T) {
	steps, atLeast := "250", int64(105_000)
	switch {
	case os.Getenv("BERTH_TORTURE") != "":
		steps, atLeast = "1000", 1_050_000
	case raced:
		atLeast = 25_000
	}
	if *commandsWanted > 0 {
		atLeast = *commandsWanted
	}
	for name, value := range map[string]string{"rapid.steps": steps, "rapid.checks": "10"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var commands atomic.Int64
	began, gone := time.Now(), newPaths()
	// Each half on a core of its own.
	t.Run("seeds", func(t *testing.T) {
		for half := range 2 {
			t.Run(fmt.Sprint(half), func(t *testing.T) {
				t.Parallel()
				for commands.Load() < atLeast && !t.Failed() {
					rapid.Check(t, func(rt *rapid.T) {
						m := newModel(rt)
						rt.Repeat(m.actions())
						m.sameBytes(rt)
						commands.Add(int64(m.index))
						gone.merge(m.gone)
					})
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d commands, %.0f a second", commands.Load(), float64(commands.Load())/time.Since(began).Seconds())
	gone.report(t, commands.Load() >= 100_000)
}

// model is two replicas and what the generators know of the world.
type model struct {
	replicas [2]*Store
	index    uint64
	term     uint64
	now      int64 // µs since 1970, as it is
	skew     int64 // µs that the leader's clock is off
	ids      int
	boots    map[string]*boot
	lives    map[string]int64 // when the process of a run began, µs
	asked    answers
	gone     paths
}

// boot of a node's host.
type boot struct {
	id string
	at int64 // µs since 1970
}

func newModel(t *rapid.T) *model {
	m := &model{replicas: [2]*Store{New(), New()}, now: 1_767_225_600_000_000, term: 1,
		boots: map[string]*boot{}, lives: map[string]int64{}, asked: newAnswers(), gone: newPaths()}
	for _, node := range nodeNames {
		m.boots[node] = &boot{id: "boot1", at: m.now - 5e6}
	}
	m.do(t, &InitCluster{ID: "c1", Workspace: "w1"}, Caller{Role: workspace.RoleSystem, Principal: "root"})
	for _, node := range nodeNames {
		m.report(t, node, func(r *workspace.Report) {
			r.Facts = &workspace.NodeFacts{Name: node, CPUMilli: 16000, MemoryMiB: 16000, StorageMiB: 8000, Sharing: sharing[node]}
			r.Ready = &workspace.Readiness{Ready: true}
			r.Devices = &gpu.Inventory{Devices: hardware[node]}
		})
	}
	root := Caller{Role: workspace.RoleClusterAdmin, Principal: "root"}
	m.do(t, &SetPrice{Resource: priceGPU, GPUType: anyType, Amount: 2_500_000}, root)
	m.do(t, &SetPrice{Resource: priceCPU, Amount: 33_333}, root)
	return m
}

var nodeNames = []string{"n1", "n2"}

// hardware of the model: one device is cut into slices, one may turn up in
// either host.
var hardware = map[string][]gpu.Info{
	"n1": {info("a", ""), info("b", ""), info("c", ""), info("p", ""), info("m1", "p"), info("m2", "p"), info("wanders", "")},
	"n2": {info("d", ""), info("e", ""), info("wanders", "")},
}

func info(uuid, parent string) gpu.Info {
	i := gpu.Info{UUID: uuid, Type: "A100", MemoryMiB: 40960, Parent: parent}
	if parent != "" {
		i.Type = "A100-MIG-1G"
	}
	return i
}

// sharing of the hosts: only one lets runs share a GPU.
var sharing = map[string]string{"n1": "timeslice"}

// do proposes a command to both replicas and checks what became of it.
func (m *model) do(t *rapid.T, cmd Command, by Caller) Result {
	m.index++
	at := unixMicro(m.now + m.skew)
	entry, err := Encode(cmd, by, at)
	if err != nil {
		t.Fatal(err)
	}
	before := m.replicas[0].View()
	var answers [2][]byte
	var res Result
	for i, s := range m.replicas {
		if res, err = s.ApplyInTerm(m.index, m.term, entry); err != nil {
			t.Fatal(err)
		}
		if err := m.asked.check(by, res, s.View().At()); err != nil {
			t.Fatalf("entry %d, %T %+v: replica %d: %v", m.index, cmd, cmd, i, err)
		}
		answers[i] = must(encoder.Marshal(res))
	}
	if !bytes.Equal(answers[0], answers[1]) {
		t.Fatalf("%T: one replica answers %x, the other %x", cmd, answers[0], answers[1])
	}
	after := m.replicas[0].View()
	_, external := cmd.(*StartExternal)
	run := after.Run(res.Run)
	m.asked.keep(cmd, by, res, after.At(), external && run != nil && run.Phase.Terminal())
	for _, err := range []error{
		invariants(before, after, cmd), nothingChanged(before, after, res), authorityHolds(before, cmd, by, res), leasesExpire(before, after, cmd, m.term),
		sweepDone(after, cmd, res),
	} {
		if err != nil {
			t.Fatalf("entry %d at %s, %T %+v by %+v, which gave %+v: %v", m.index, at.Format(time.RFC3339Nano), cmd, cmd, by, res, err)
		}
	}
	m.gone.note(before, after, cmd, res)
	return res
}

// stamp of a node's boot clock now.
func (m *model) stamp(node string) workspace.Stamp {
	b := m.boots[node]
	return workspace.Stamp{BootID: b.id, BoottimeMS: (m.now - b.at) / 1000}
}

// report proposes a node's report.
func (m *model) report(t *rapid.T, node string, fill func(*workspace.Report)) {
	m.now += 1000
	r := &Report{workspace.Report{Node: node, Stamp: m.stamp(node)}}
	fill(&r.Report)
	m.do(t, r, Caller{Role: workspace.RoleNode, Principal: node})
}

func (m *model) sameBytes(t *rapid.T) {
	var out [2]bytes.Buffer
	for i, s := range m.replicas {
		if err := s.Snapshot().Write(&out[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out[0].Bytes(), out[1].Bytes()) {
		t.Fatalf("I11: after %d entries the replicas' snapshots differ (%d and %d bytes)", m.index, out[0].Len(), out[1].Len())
	}
}

// restore puts, at times, a snapshot of one replica in place of the other.
func (m *model) restore(t *rapid.T) {
	if upTo(t, 3, "restore") > 0 {
		m.report(t, "n1", func(*workspace.Report) {})
		return
	}
	from := upTo(t, 1, "from")
	var b bytes.Buffer
	if err := m.replicas[from].Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := m.replicas[1-from].Restore(&b); err != nil {
		t.Fatal(err)
	}
	if rarely(t, "compare") {
		m.sameBytes(t)
	}
	m.again(t)
}
