package state

import (
	"fmt"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// Suggestion is where the scheduler would put a run, or why it can't. Apply
// decides: a suggestion it can't honour leaves the run pending.
type Suggestion struct {
	Node       string                `cbor:"1,keyasint,omitempty"`
	Devices    []workspace.Allotment `cbor:"2,keyasint,omitempty"`
	Reason     string                `cbor:"3,keyasint,omitempty"` // when Node is empty
	Message    string                `cbor:"4,keyasint,omitempty"`
	Impossible bool                  `cbor:"5,keyasint,omitempty"` // no node could ever hold it: the run fails, unless it is a restart
	// Stamp of the node's latest beat, which the first lease answers; without one
	// the lease begins with the next renewal, and the run waits for that.
	Stamp *workspace.Stamp `cbor:"6,keyasint,omitempty"`
}

// suggest carries out a suggestion where it can be honoured. A run that follows
// another by policy waits for what isn't there: its instance ran here before, and
// after a boot a driver may come late.
func (t *tx) suggest(run *workspace.Run, s *Suggestion, q quote) {
	switch {
	case s == nil:
	case s.Node != "":
		if reason, message := t.place(run, s, q); reason != "" {
			t.wait(run, reason, message)
		}
	case s.Impossible && run.Restarts == 0:
		t.endRun(run, workspace.PhaseFailed, s.Reason, s.Message)
	default:
		t.wait(run, s.Reason, s.Message)
	}
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
		if run == nil || run.Phase != workspace.PhasePending || run.NotBefore.After(t.at) {
			continue // ended or placed since the scheduler looked, or put off
		}
		ask := questionOf(t, run, &p.Suggestion, t.at)
		if denial := t.admit(ask); denial != nil {
			t.wait(run, string(denial.Code), denial.Message)
			continue
		}
		t.suggest(run, &p.Suggestion, ask.quote)
	}
	return nil
}

// place puts an admitted run on a node and its devices, or says why not. It is the
// one way a run becomes assigned and a device held; its rate is frozen and its
// first time reserved in the same entry.
func (t *tx) place(run *workspace.Run, s *Suggestion, q quote) (reason, message string) {
	node := nodes.get(t, "id", s.Node)
	if node == nil {
		return "node_unknown", "the node chosen for it is not in the cluster"
	}
	volume, reason, message := t.volumeOn(node, run)
	if reason != "" {
		return reason, message
	}
	if reason, message = t.nodeFits(node, run, volume); reason != "" {
		return reason, message
	}
	epoch := gpu.Epoch{Incarnation: t.cluster().Incarnation, Index: t.index}
	if reason, message = t.hold(run, node, s.Devices, epoch); reason != "" {
		return reason, message
	}
	n := *run
	n.Node, n.Devices, n.Epoch = node.ID, s.Devices, epoch
	n.Unreleased = len(s.Devices) > 0
	n.Rate, n.ExpiresAt = q.rate, time.Time{}
	t.countRun(&n)
	t.grantFirst(meterOf(&n, instances.get(t, "id", n.Instance), q), s.Stamp, node.Stamp.BootID)
	if volume != nil {
		t.attach(volume, &n)
	}
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

// nodeFits checks a node's state and what its active runs and its volumes leave
// of it; volume is what the run would have.
func (t *tx) nodeFits(node *workspace.Node, run *workspace.Run, volume *workspace.Volume) (reason, message string) {
	switch {
	case !node.Reachable:
		return "node_unreachable", "node " + node.Name + " is not reachable"
	case !node.Ready:
		return "node_not_ready", fmt.Sprintf("node %s is not ready: %s", node.Name, node.Message)
	case node.Cordoned || node.Draining:
		return "node_cordoned", "node " + node.Name + " takes no new runs"
	case run.Resources.Shared() && node.Facts.Sharing == "":
		return "gpu_sharing_off", "node " + node.Name + " shares no GPUs: ask for whole ones, or set [gpu] sharing there"
	}
	use := run.Resources
	for r := range runs.each(t, "node", node.ID) {
		if r.Phase.Active() {
			use.CPUMilli += r.Resources.CPUMilli
			use.MemoryMiB += r.Resources.MemoryMiB
		}
	}
	f := &node.Facts
	switch {
	case use.CPUMilli > f.CPUMilli:
		return "waiting_for_cpu", fmt.Sprintf("%s has %d milli-cores, %d would be used", node.Name, f.CPUMilli, use.CPUMilli)
	case use.MemoryMiB > f.MemoryMiB:
		return "waiting_for_memory", fmt.Sprintf("%s has %d MiB of memory, %d would be used", node.Name, f.MemoryMiB, use.MemoryMiB)
	}
	return t.storageFits(node, run, volume)
}

// storageFits checks what a run would add to what a node's disk has promised. An
// existing volume that doesn't grow adds nothing, so it fits whatever else does.
func (t *tx) storageFits(node *workspace.Node, run *workspace.Run, volume *workspace.Volume) (reason, message string) {
	adds := run.Resources.StorageMiB
	if old := volumeOf(t, run); volume != nil && old != nil {
		adds = volume.SizeMiB - old.SizeMiB
	}
	promised := promisedStorage(t, node.ID)
	if adds > 0 && promised+adds > node.Facts.StorageMiB {
		return "waiting_for_storage", fmt.Sprintf("%s has %d MiB of storage, %d of them promised to volumes and runs; %d more are needed",
			node.Name, node.Facts.StorageMiB, promised, adds)
	}
	return "", ""
}

// promisedStorage is what a node's volumes, detached ones too, and its runs
// without one may fill. A volume that is lost fills nothing.
func promisedStorage(in reader, node string) (mib int64) {
	for v := range volumes.each(in, "node", node) {
		if !v.Lost() {
			mib += v.SizeMiB
		}
	}
	for r := range runs.each(in, "node", node) {
		if r.Phase.Active() && r.Volume == "" {
			mib += r.Resources.StorageMiB
		}
	}
	return mib
}

// PromisedStorage is how many MiB of a node's disk are promised to its volumes,
// detached ones too, and to its runs that have none.
func (v View) PromisedStorage(node string) int64 { return promisedStorage(v.txn, node) }
