package state

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"berth/gpu"
	"berth/workspace"
)

// TestModel sends random commands, sensible and junk, to two replicas, one of
// which is now and then restored from a snapshot. After every command the
// invariants must hold and the answers be equal, at the end the bytes.
// BERTH_TORTURE=1 makes it longer.
func TestModel(t *testing.T) {
	steps, atLeast := "250", 20_000
	if os.Getenv("BERTH_TORTURE") != "" {
		steps, atLeast = "5000", 400_000
	}
	if err := flag.Set("rapid.steps", steps); err != nil {
		t.Fatal(err)
	}
	for commands := 0; commands < atLeast && !t.Failed(); {
		rapid.Check(t, func(rt *rapid.T) {
			m := newModel(rt)
			rt.Repeat(m.actions())
			m.sameBytes(rt)
			commands += int(m.index)
		})
	}
}

// TestModelCatchesFreeDevice plants a bug, a held device that counts as free,
// and requires that TestModel names the invariant it breaks.
func TestModelCatchesFreeDevice(t *testing.T) {
	if planted != "" {
		t.Skip("the bug is planted already")
	}
	out, err := exec.Command("go", "test", "-count=1", "-tags=mutant_free_device", "-run=^TestModel$", ".",
		"-rapid.nofailfile", "-rapid.shrinktime=1s").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "I1: ") {
		t.Errorf("TestModel with a planted bug gave %v, want a failure that names I1:\n%s", err, out)
	}
}

// model is two replicas and what the generators know of the world.
type model struct {
	replicas [2]*Store
	index    uint64
	clock    int64 // µs; goes back at times
	ids      int
	boots    map[string]*workspace.Stamp
}

func newModel(t *rapid.T) *model {
	m := &model{replicas: [2]*Store{New(), New()}, clock: 1_767_225_600_000_000,
		boots: map[string]*workspace.Stamp{"n1": {BootID: "boot1"}, "n2": {BootID: "boot1"}}}
	m.do(t, &InitCluster{ID: "c1", Workspace: "w1"}, Caller{Role: workspace.RoleSystem, Principal: "root"})
	for _, node := range nodeNames {
		m.report(t, node, func(r *workspace.Report) {
			r.Facts = &workspace.NodeFacts{Name: node, CPUMilli: 16000, MemoryMiB: 16000, StorageMiB: 8000, Sharing: sharing[node]}
			r.Ready = &workspace.Readiness{Ready: true}
			r.Devices = &gpu.Inventory{Devices: hardware[node]}
		})
	}
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
	entry, err := Encode(cmd, by, unixMicro(m.clock))
	if err != nil {
		t.Fatal(err)
	}
	before := m.replicas[0].View()
	var answers [2][]byte
	var res Result
	for i, s := range m.replicas {
		if res, err = s.Apply(m.index, entry); err != nil {
			t.Fatal(err)
		}
		answers[i] = must(encoder.Marshal(res))
	}
	if !bytes.Equal(answers[0], answers[1]) {
		t.Fatalf("%T: one replica answers %x, the other %x", cmd, answers[0], answers[1])
	}
	if err := invariants(before, m.replicas[0].View(), cmd); err != nil {
		t.Fatalf("entry %d, %T %+v: %v", m.index, cmd, cmd, err)
	}
	return res
}

// report proposes a node's report, a second after its last.
func (m *model) report(t *rapid.T, node string, fill func(*workspace.Report)) {
	m.boots[node].BoottimeMS += 1000
	r := &Report{workspace.Report{Node: node, Stamp: *m.boots[node]}}
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
	if rapid.IntRange(0, 3).Draw(t, "restore") > 0 {
		m.report(t, "n1", func(*workspace.Report) {})
		return
	}
	from := rapid.IntRange(0, 1).Draw(t, "from")
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
}
