package state

import (
	"fmt"
	"slices"

	"berth/gpu"
	"berth/workspace"
)

var runs = table[workspace.Run]{name: "runs", indexes: []index[workspace.Run]{
	{name: "id", key: func(r *workspace.Run) []byte { return key(r.ID) }},
	{name: "workspace", key: func(r *workspace.Run) []byte { return key(r.Workspace, r.ID) }},
	{name: "pending", key: func(r *workspace.Run) []byte {
		return keyIf(r.Phase == workspace.PhasePending, r.ID)
	}},
	// live has a workspace's active runs, the set that concurrency counts, and
	// those that wait.
	{name: "live", key: func(r *workspace.Run) []byte {
		if r.Phase == workspace.PhasePending {
			return key(r.Workspace, waiting, r.ID)
		}
		return keyIf(r.Phase.Active(), r.Workspace, active, r.ID)
	}},
	// node is what a node's agent has to know of: its live runs, and those whose
	// devices it hasn't released.
	{name: "node", key: func(r *workspace.Run) []byte {
		return keyIf(r.Node != "" && (r.Phase.Active() || r.Unreleased), r.Node, r.ID)
	}},
}}

// What a run is in the index live.
const (
	active  = "active"
	waiting = "waiting"
)

func keyIf(in bool, parts ...any) []byte {
	if !in {
		return nil
	}
	return key(parts...)
}

// Suggestion is where the scheduler would put a run, or why it can't. Apply
// decides: a suggestion it can't honour leaves the run pending.
type Suggestion struct {
	Node       string                `cbor:"1,keyasint,omitempty"`
	Devices    []workspace.Allotment `cbor:"2,keyasint,omitempty"`
	Reason     string                `cbor:"3,keyasint,omitempty"` // when Node is empty
	Message    string                `cbor:"4,keyasint,omitempty"`
	Impossible bool                  `cbor:"5,keyasint,omitempty"` // no node could ever hold it: the run fails
}

// start admits an instance's next run and places it, in this entry.
func (t *tx) start(w *workspace.Workspace, inst *workspace.Instance, id string, s *Suggestion) error {
	denial := t.admit(w, true)
	if denial != nil && (inst.Kind != workspace.KindJob || denial.Code == workspace.CodeWorkspaceArchived) {
		return denial
	}
	if err := t.freshRun(id); err != nil {
		return err
	}
	run := t.makeRun(inst, id)
	t.result.Run = run.ID
	if denial != nil {
		t.wait(run, string(denial.Code), denial.Message)
		return nil
	}
	t.suggest(run, s)
	return nil
}

// freshRun checks the id of a run to be made.
func (t *tx) freshRun(id string) error { return fresh("run", id, runs.get(t, "id", id)) }

// makeRun gives an instance a new pending run.
func (t *tx) makeRun(inst *workspace.Instance, id string) *workspace.Run {
	run := &workspace.Run{
		ID: id, Instance: inst.ID, Workspace: inst.Workspace, User: t.env.Principal, Kind: inst.Kind,
		Attempt: inst.Attempts + 1, Phase: workspace.PhasePending, Desired: workspace.RunWanted,
		Reason: "waiting_for_placement", Message: "it waits for the scheduler",
		Resources: inst.Resources, Spec: inst.Spec, Since: t.at, ModifyIndex: t.index,
	}
	run.Times.Mark(workspace.PhasePending, t.at)
	if prev := t.runOf(inst); prev != nil {
		run.Replaces = prev.ID
	}
	if run.User == "" || t.env.Role == workspace.RoleNode {
		run.User = inst.Owner
	}
	runs.put(t, run)
	n := *inst
	n.Run, n.Desired, n.Attempts = run.ID, workspace.DesiredRunning, run.Attempt
	t.putInstance(&n)
	t.event(workspace.Event{Type: "run.pending", Object: run.ID, Workspace: run.Workspace, Instance: run.Instance,
		Run: run.ID, Reason: run.Reason, Message: fmt.Sprintf("run %d of instance %s was made", run.Attempt, inst.Name)})
	return run
}

// suggest carries out a suggestion where it can be honoured.
func (t *tx) suggest(run *workspace.Run, s *Suggestion) {
	switch {
	case s == nil:
	case s.Node != "":
		if reason, message := t.place(run, s); reason != "" {
			t.wait(run, reason, message)
		}
	case s.Impossible:
		t.endRun(run, workspace.PhaseFailed, s.Reason, s.Message)
	default:
		t.wait(run, s.Reason, s.Message)
	}
}

// wait leaves a run pending and says why.
func (t *tx) wait(run *workspace.Run, reason, message string) {
	if run.Reason == reason && run.Message == message {
		return
	}
	n := *run
	n.Reason, n.Message = reason, message
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.waiting", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID,
		Reason: reason, Message: message})
}

// PlaceRuns places pending runs, a batch in one entry. Each is admitted again.
type PlaceRuns struct {
	Placements []Placement `cbor:"1,keyasint"`
}

// Placement is the scheduler's suggestion for one pending run.
type Placement struct {
	Run        string     `cbor:"1,keyasint"`
	Suggestion Suggestion `cbor:"2,keyasint"`
}

// Type is TypePlaceRuns.
func (*PlaceRuns) Type() Type { return TypePlaceRuns }

func (c *PlaceRuns) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	for i := range c.Placements {
		p := &c.Placements[i]
		run := runs.get(t, "id", p.Run)
		if run == nil || run.Phase != workspace.PhasePending {
			continue // ended or placed since the scheduler looked
		}
		if denial := t.admit(t.workspace(run.Workspace), false); denial != nil {
			t.wait(run, string(denial.Code), denial.Message)
			continue
		}
		t.suggest(run, &p.Suggestion)
	}
	return nil
}

// place puts a run on a node and its devices, or says why not. It is the one
// way a run becomes assigned and a device held.
func (t *tx) place(run *workspace.Run, s *Suggestion) (reason, message string) {
	node := nodes.get(t, "id", s.Node)
	if node == nil {
		return "node_unknown", "the node chosen for it is not in the cluster"
	}
	if reason, message = t.nodeFits(node, run); reason != "" {
		return reason, message
	}
	epoch := gpu.Epoch{Incarnation: t.cluster().Incarnation, Index: t.index}
	if reason, message = t.hold(run, node, s.Devices, epoch); reason != "" {
		return reason, message
	}
	n := *run
	n.Node, n.Devices, n.Epoch = node.ID, s.Devices, epoch
	n.Unreleased = len(s.Devices) > 0
	n.Counted = true
	t.setPhase(&n, workspace.PhaseAssigned, "assigned", placedMessage(node, &n))
	return "", ""
}

func placedMessage(node *workspace.Node, run *workspace.Run) string {
	switch n := len(run.Devices); n {
	case 0:
		return "placed on " + node.Name
	case 1:
		return "placed on " + node.Name + " with 1 GPU"
	default:
		return fmt.Sprintf("placed on %s with %d GPUs", node.Name, n)
	}
}

// nodeFits checks a node's state and what its active runs leave of it.
func (t *tx) nodeFits(node *workspace.Node, run *workspace.Run) (reason, message string) {
	switch {
	case !node.Reachable:
		return "node_unreachable", "node " + node.Name + " is not reachable"
	case !node.Ready:
		return "node_not_ready", fmt.Sprintf("node %s is not ready: %s", node.Name, node.Message)
	case node.Cordoned || node.Draining:
		return "node_cordoned", "node " + node.Name + " takes no new runs"
	}
	use := run.Resources
	for r := range runs.each(t, "node", node.ID) {
		if r.Phase.Active() {
			use.CPUMilli += r.Resources.CPUMilli
			use.MemoryMiB += r.Resources.MemoryMiB
			use.StorageMiB += r.Resources.StorageMiB
		}
	}
	f := &node.Facts
	switch {
	case use.CPUMilli > f.CPUMilli:
		return "waiting_for_cpu", fmt.Sprintf("%s has %d milli-cores, %d would be used", node.Name, f.CPUMilli, use.CPUMilli)
	case use.MemoryMiB > f.MemoryMiB:
		return "waiting_for_memory", fmt.Sprintf("%s has %d MiB of memory, %d would be used", node.Name, f.MemoryMiB, use.MemoryMiB)
	case use.StorageMiB > f.StorageMiB:
		return "waiting_for_storage", fmt.Sprintf("%s has %d MiB of storage, %d would be used", node.Name, f.StorageMiB, use.StorageMiB)
	}
	return "", ""
}

// stopRun sets a run to stop. One without a container ends here.
func (t *tx) stopRun(run *workspace.Run, reason, message string) {
	if run.Phase == workspace.PhasePending {
		t.endRun(run, workspace.PhaseStopped, reason, message)
		return
	}
	if run.Phase.Terminal() || run.Desired == workspace.RunStopping {
		return
	}
	n := *run
	n.Desired, n.StopReason, n.Reason, n.Message = workspace.RunStopping, reason, reason, message
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.stop", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID,
		Node: n.Node, Reason: reason, Message: message})
}

// endRun ends a run. Its devices stay held until its node says they're free.
func (t *tx) endRun(run *workspace.Run, phase workspace.Phase, reason, message string) {
	n := *run
	n.Desired = workspace.RunStopping
	t.releasing(&n)
	t.setPhase(&n, phase, reason, message)
	t.settle(n.Instance)
}

// setPhase moves a run forward; n is written.
func (t *tx) setPhase(n *workspace.Run, phase workspace.Phase, reason, message string) {
	n.Phase, n.Reason, n.Message, n.Since = phase, reason, message, t.at
	n.Times.Mark(phase, t.at)
	t.putRun(n)
	t.event(workspace.Event{Type: "run." + string(phase), Object: n.ID, Workspace: n.Workspace, Instance: n.Instance,
		Run: n.ID, Node: n.Node, Reason: reason, Message: message})
}

// putRun writes a run and what its instance shows of it.
func (t *tx) putRun(run *workspace.Run) {
	run.Devices = slices.Clip(run.Devices)
	run.ModifyIndex = t.index
	runs.put(t, run)
	if inst := instances.get(t, "id", run.Instance); inst != nil && inst.Run == run.ID {
		t.putInstance(inst)
	}
}
