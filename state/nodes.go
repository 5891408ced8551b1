package state

import (
	"slices"

	"berth/gpu"
	"berth/workspace"
)

var nodes = table[workspace.Node]{name: "nodes", indexes: []index[workspace.Node]{
	{name: "id", key: func(n *workspace.Node) []byte { return key(n.ID) }},
}}

// bootsKept is how many earlier boot ids of a node are told from a new one.
const bootsKept = 8

// Report is what a node's agent has seen. It is idempotent: what is stale, of
// another node or of another epoch changes nothing.
type Report struct {
	workspace.Report
}

// Type is TypeReport.
func (*Report) Type() Type { return TypeReport }

func (c *Report) apply(t *tx) error {
	if t.env.Role != workspace.RoleNode || t.env.Principal != c.Node {
		return t.denied("only node " + c.Node + " may report for itself")
	}
	old := nodes.get(t, "id", c.Node)
	if old != nil && slices.Contains(old.PastBoots, c.Stamp.BootID) {
		// Taken for a reboot, it would free the devices of live runs.
		return workspace.Errorf(workspace.CodeConflict, "the report is of an earlier boot (%s) of node %s, which is at boot %s now",
			c.Stamp.BootID, c.Node, old.Stamp.BootID)
	}
	late := old != nil && old.Stamp.BootID == c.Stamp.BootID && old.Stamp.BoottimeMS > c.Stamp.BoottimeMS
	if !late {
		t.reportHost(old, &c.Report)
	}
	// A late report may still have the only word of these; their epochs guard them.
	for i := range c.Runs {
		t.reportRun(c.Node, &c.Runs[i])
	}
	for i := range c.Released {
		t.release(c.Node, &c.Released[i])
	}
	for i := range c.Volumes {
		t.reportVolume(c.Node, &c.Volumes[i], late)
	}
	for _, id := range c.Expired {
		t.expired(c.Node, id)
	}
	t.result.Object = c.Node
	return nil
}

// lived books what a run's process has lived, as its node reports it.
func (t *tx) lived(run *workspace.Run, lived int64) {
	if old := meters.get(t, "id", run.ID); old != nil && lived > old.Charged {
		m := *old
		t.catchUp(&m, lived)
		meters.put(t, &m)
	}
}

// expired takes a node's word that the result data of an ended run is gone, as it
// was ordered.
func (t *tx) expired(node, id string) {
	run := runs.get(t, "id", id)
	if run == nil || run.Node != node || run.Results != workspace.ResultsDeleting {
		return
	}
	n := *run
	n.Results = workspace.ResultsDeleted
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.results_deleted", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID, Node: node,
		Message: "the output and results of run " + n.ID + " are deleted: data_retention is over"})
}

// reportHost takes what a report says of the node and its devices.
func (t *tx) reportHost(old *workspace.Node, r *workspace.Report) {
	t.reportNode(old, r)
	if r.Devices != nil {
		t.setInventory(r.Node, r.Devices)
	}
	for i := range r.Health {
		t.setHealth(r.Node, &r.Health[i])
	}
	if r.Orphans != nil || r.Devices != nil {
		t.setBlocked(r.Node, nodes.get(t, "id", r.Node).Orphans)
	}
}

// reportNode writes the node's own row. A node's first report registers it.
func (t *tx) reportNode(old *workspace.Node, r *workspace.Report) {
	n := workspace.Node{ID: r.Node, Role: "server", Reachable: true, CreatedAt: t.at}
	if old != nil {
		n = *old
	}
	rebooted := old != nil && old.Stamp.BootID != r.Stamp.BootID
	if old == nil || rebooted { // what it said in an earlier boot holds no more
		n.Ready, n.Reason, n.Message, n.Since = false, "starting", "its agent hasn't reported that it is ready", t.at
	}
	if rebooted {
		n.Orphans = nil
		past := append(slices.Clone(n.PastBoots), old.Stamp.BootID)
		n.PastBoots = past[max(0, len(past)-bootsKept):]
	}
	n.Stamp, n.UpdatedAt, n.ModifyIndex = r.Stamp, t.at, t.index
	if r.Facts != nil {
		n.Name, n.Facts = r.Facts.Name, *r.Facts
	}
	if r.Devices != nil {
		n.Links = r.Devices.Links
	}
	if r.Images != nil {
		n.Images = *r.Images
	}
	if r.Orphans != nil {
		n.Orphans = *r.Orphans
	}
	if r.Ready != nil && (n.Ready != r.Ready.Ready || n.Reason != r.Ready.Reason || n.Message != r.Ready.Message) {
		n.Ready, n.Reason, n.Message, n.Since = r.Ready.Ready, r.Ready.Reason, r.Ready.Message, t.at
		t.event(workspace.Event{Type: readyEvent(n.Ready), Object: n.ID, Node: n.ID, Reason: n.Reason, Message: n.Message})
	}
	nodes.put(t, &n)
	if rebooted {
		t.rebooted(&n)
	}
}

func readyEvent(ready bool) string {
	if ready {
		return "node.ready"
	}
	return "node.not_ready"
}

// rebooted: a new boot id is proof that nothing of the old boot runs any more.
// Its runs are lost and their devices free.
func (t *tx) rebooted(node *workspace.Node) {
	t.event(workspace.Event{Type: "node.rebooted", Object: node.ID, Node: node.ID, Reason: "new_boot_id",
		Message: "node " + node.Name + " was rebooted: its runs are lost"})
	for _, run := range collect(runs.each(t, "node", node.ID)) {
		if run.Phase.Active() {
			t.endRun(run, workspace.PhaseLost, "node_rebooted", "its node "+node.Name+" was rebooted")
		}
	}
	for _, d := range collect(devices.each(t, "node", node.ID)) {
		t.freeAll(d)
	}
}

func (t *tx) freeAll(d *gpu.Device) {
	if len(d.Holders) == 0 && d.Blocked == "" {
		return
	}
	n := *d
	n.Holders, n.Blocked = nil, ""
	t.putDevice(&n)
	for _, h := range d.Holders {
		t.released(runs.get(t, "id", h.Run))
	}
}

// reportRun takes a phase that a node has seen one of its runs reach.
func (t *tx) reportRun(node string, r *workspace.RunReport) {
	run := runs.get(t, "id", r.Run)
	if run == nil || run.Node != node || run.Kind == workspace.KindExternal || run.Epoch != r.Epoch || !r.Phase.ByAgent() || run.Phase.Terminal() {
		return
	}
	lived := believed(t, run.ID, r.LivedMS, t.at)
	if lived > 0 && !r.Phase.Terminal() {
		t.lived(run, lived)
	}
	n := *run
	switch {
	case run.Phase == r.Phase:
		if run.Reason != r.Reason || run.Message != r.Message {
			n.Reason, n.Message = r.Reason, r.Message
			t.putRun(&n)
		}
	case !run.Phase.CanBecome(r.Phase):
	case r.Phase.Terminal():
		n.ExitCode, n.OOM = r.ExitCode, r.OOM
		t.endRunAt(&n, lived, r.Phase, r.Reason, r.Message)
	default:
		t.publish(&n, r)
		t.setPhase(&n, r.Phase, r.Reason, r.Message)
	}
}

// publish puts the ways into a running run on its instance.
func (t *tx) publish(run *workspace.Run, r *workspace.RunReport) {
	inst := instances.get(t, "id", run.Instance)
	if inst == nil || inst.Run != run.ID || r.Phase != workspace.PhaseRunning || len(r.Access) == 0 {
		return
	}
	n := *inst
	n.Access = r.Access
	instances.put(t, &n)
}
