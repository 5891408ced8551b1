package state

import (
	"cmp"
	"fmt"
	"iter"
	"time"

	"berth/workspace"
)

// volumes are the instances' directories on the nodes' disks. A row goes only by
// its node's word that what it stands for is deleted.
var volumes = table[workspace.Volume]{name: "volumes", indexes: []index[workspace.Volume]{
	{name: "id", key: func(v *workspace.Volume) []byte { return key(v.ID) }},
	{name: "workspace", key: func(v *workspace.Volume) []byte { return key(v.Workspace, v.ID) }},
	{name: "node", key: func(v *workspace.Volume) []byte { return key(v.Node, v.ID) }},
	// due has what a Sweep will have to do, by when.
	{name: "due", key: func(v *workspace.Volume) []byte {
		when := due(v)
		return keyIf(!when.IsZero(), uint64(max(0, when.UnixMicro())), v.ID) // #nosec G115 -- not negative
	}},
}}

// reasonVolume is why a run waits for its volume.
const reasonVolume = "waiting_for_volume"

// keepsData reports whether a run has a volume at all.
func keepsData(run *workspace.Run) bool {
	return run.Spec.VolumePath != "" && run.Resources.StorageMiB > 0
}

// volumeOf is the volume that a run's instance has already, nil when there is
// none or the run has no use for it.
func volumeOf(in reader, run *workspace.Run) *workspace.Volume {
	inst := instances.get(in, "id", run.Instance)
	if inst == nil || inst.Volume == "" || !keepsData(run) {
		return nil
	}
	return volumes.get(in, "id", inst.Volume)
}

// volumeUser is the run that may have a volume mounted: one that isn't over, or
// whose end its node hasn't confirmed. nil when there is none.
func volumeUser(in reader, v *workspace.Volume) *workspace.Run {
	for run := range runs.each(in, "node", v.Node) {
		if run.Volume == v.ID {
			return run
		}
	}
	return nil
}

// volumeHinders says why a run can't have its volume now, on whatever node.
func volumeHinders(in reader, run *workspace.Run) (reason, message string) {
	v := volumeOf(in, run)
	if v == nil {
		return "", ""
	}
	node := nodeName(in, v.Node)
	if v.Lost() {
		return workspace.ReasonVolumeLost, fmt.Sprintf(
			"its volume %s isn't on node %s any more: bring that disk back, or start the instance with an empty one (berth instance start --fresh-volume)", v.ID, node)
	}
	if user := volumeUser(in, v); user != nil {
		return reasonVolume, fmt.Sprintf("its volume is in use by run %s, which is %s: it waits until node %s has confirmed that nothing of it is left",
			user.ID, user.Phase, node)
	}
	return "", ""
}

func nodeName(in reader, id string) string {
	if n := nodes.get(in, "id", id); n != nil {
		return n.Name
	}
	return id
}

// volumeOn is the volume that a run gets on a node: its instance's, grown where
// more is asked for, or a new one; nil for a run without one. Nothing is written.
func (t *tx) volumeOn(node *workspace.Node, run *workspace.Run) (v *workspace.Volume, reason, message string) {
	inst := instances.get(t, "id", run.Instance)
	if inst == nil || !keepsData(run) {
		return nil, "", ""
	}
	n := workspace.Volume{ID: run.ID, Workspace: run.Workspace, Instance: inst.ID, Name: inst.Name, Node: node.ID,
		Policy: storagePolicy(inst), CreatedAt: t.at}
	if old := volumeOf(t, run); old != nil {
		if old.Node != node.ID {
			return nil, reasonVolume, fmt.Sprintf("its volume is on node %s: it waits for that node", nodeName(t, old.Node))
		}
		n = *old
	}
	if reason, message = volumeHinders(t, run); reason != "" {
		return nil, reason, message
	}
	n.SizeMiB = max(n.SizeMiB, run.Resources.StorageMiB)
	return &n, "", ""
}

// storagePolicy is what becomes of an instance's volume after it. A template's
// was written into the instance when it was made.
func storagePolicy(inst *workspace.Instance) string {
	return cmp.Or(inst.StoragePolicy, workspace.DefaultStoragePolicy)
}

// attach gives a run the volume that volumeOn found for it.
func (t *tx) attach(v *workspace.Volume, run *workspace.Run) {
	run.Volume = v.ID
	if old := volumes.get(t, "id", v.ID); old == nil || old.SizeMiB != v.SizeMiB {
		t.putVolume(v)
	}
	if inst := instances.get(t, "id", run.Instance); inst.Volume != v.ID {
		n := *inst
		n.Volume = v.ID
		t.putInstance(&n)
	}
}

// reattach gives a new instance a detached volume of its workspace.
func (t *tx) reattach(inst *workspace.Instance, id string) error {
	v := volumes.get(t, "id", id)
	if v == nil || v.Workspace != inst.Workspace {
		return workspace.InvalidField("volume", "there is no volume %.40q in this workspace: berth volume ls lists them", id)
	}
	user := volumeUser(t, v)
	switch {
	case !v.Detached:
		return workspace.Errorf(workspace.CodeConflict, "volume %s belongs to instance %s: only a detached one can be taken", v.ID, v.Name)
	case v.Purging:
		return workspace.Errorf(workspace.CodeConflict, "volume %s is being deleted", v.ID)
	case v.Lost():
		return workspace.Errorf(workspace.CodeConflict, "volume %s isn't on node %s any more: %s", v.ID, nodeName(t, v.Node), v.Message)
	case user != nil:
		return workspace.Errorf(workspace.CodeConflict, "volume %s is still in use by run %s: try again once its container is gone", v.ID, user.ID)
	case inst.Spec.VolumePath == "":
		return workspace.InvalidField("volume", "template %s has no volume_path to put a volume at", inst.Template.Name)
	case inst.Resources.StorageMiB < v.SizeMiB:
		return workspace.InvalidField("resources.storage_mib", "%d is less than the %d of volume %s: a volume can't shrink",
			inst.Resources.StorageMiB, v.SizeMiB, v.ID)
	}
	n := *v
	n.Instance, n.Name, n.Policy = inst.ID, inst.Name, storagePolicy(inst)
	n.Detached, n.Warned, n.PurgeAt = false, false, time.Time{}
	t.putVolume(&n)
	t.volumeEvent("volume.attached", &n, "", fmt.Sprintf("the volume of %s goes on with instance %s", v.Name, inst.Name))
	inst.Volume = v.ID
	return nil
}

// detach takes an instance's volume from it and says what becomes of the volume;
// inst is written by the caller.
func (t *tx) detach(inst *workspace.Instance) (fate string) {
	v := volumes.get(t, "id", inst.Volume)
	inst.Volume = ""
	if v == nil {
		return ""
	}
	n := *v
	n.Detached, n.Policy = true, storagePolicy(inst)
	fate = t.retain(&n)
	if n.Lost() {
		fate = "which its node doesn't have any more, " + fate
	}
	t.volumeEvent("volume.detached", &n, "", fmt.Sprintf("the volume of instance %s on node %s, %d MiB, %s", n.Name, nodeName(t, n.Node), n.SizeMiB, fate))
	return fate
}

// retain sets a detached volume's time by its policy and says when that is.
func (t *tx) retain(v *workspace.Volume) (fate string) {
	v.Warned = false
	v.PurgeAt, v.Purging = workspace.PurgeTime(v.Policy, t.at)
	t.putVolume(v)
	switch {
	case v.Purging:
		return "is deleted now (storage policy delete)"
	case v.PurgeAt.IsZero():
		return fmt.Sprintf("is kept until someone removes it (storage policy %s)", v.Policy)
	}
	return fmt.Sprintf("is kept until %s (storage policy %s)", v.PurgeAt.Format("2006-01-02 15:04 UTC"), v.Policy)
}

// freshVolume takes from an instance the volume it has, so that its next run
// gets an empty one.
func (t *tx) freshVolume(inst *workspace.Instance) (*workspace.Instance, error) {
	if run := t.runOf(inst); run != nil && run.Phase.Active() {
		return nil, workspace.Errorf(workspace.CodeConflict, "instance %s has a run on its volume: stop it first", inst.Name)
	}
	n := *inst
	t.detach(&n)
	t.putInstance(&n)
	return instances.get(t, "id", inst.ID), nil
}

func (t *tx) putVolume(v *workspace.Volume) {
	v.UpdatedAt, v.ModifyIndex = t.at, t.index
	volumes.put(t, v)
}

func (t *tx) volumeEvent(kind string, v *workspace.Volume, reason, message string) {
	t.event(workspace.Event{Type: kind, Object: v.ID, Workspace: v.Workspace, Instance: v.Instance, Node: v.Node,
		Reason: reason, Message: message})
}

// reportVolume takes a node's word of one of its volumes. late: a newer report of
// the node was applied before, so that only what can't be undone still counts.
func (t *tx) reportVolume(node string, r *workspace.VolumeReport, late bool) {
	v := volumes.get(t, "id", r.ID)
	if v == nil || v.Node != node {
		return
	}
	n := *v
	switch {
	case r.Gone && v.Purging:
		if volumeUser(t, v) == nil {
			volumes.delete(t, v)
			t.volumeEvent("volume.purged", v, "", fmt.Sprintf("the volume of instance %s is deleted from node %s", v.Name, nodeName(t, node)))
		}
	case late:
	case r.Gone:
		t.loseVolume(&n, r.Message)
	case r.Made && (!v.Made || v.Lost()):
		n.Made, n.Reason, n.Message = true, "", ""
		t.putVolume(&n)
		message := "the volume of instance " + n.Name + " was made on node " + nodeName(t, node)
		if v.Lost() {
			message = "the volume of instance " + n.Name + " is on node " + nodeName(t, node) + " again"
		}
		t.volumeEvent("volume.made", &n, "", message)
	case !r.Made && v.Purging && !v.Lost() && r.Message != v.Message:
		n.Reason, n.Message = "purge_waits", r.Message
		t.putVolume(&n)
		t.volumeEvent("volume.purge_waits", &n, n.Reason, n.Message)
	}
}

// loseVolume notes that a volume nobody ordered to delete isn't there. One that
// never was there can't be lost.
func (t *tx) loseVolume(n *workspace.Volume, why string) {
	if !n.Made {
		return
	}
	n.Made, n.Reason = false, workspace.ReasonVolumeLost
	n.Message = cmp.Or(why, "its node doesn't have it any more")
	t.putVolume(n)
	t.volumeEvent("volume.lost", n, n.Reason, fmt.Sprintf("the volume of instance %s isn't on node %s any more: %s", n.Name, nodeName(t, n.Node), n.Message))
}

// Volume by id, nil when there is none.
func (v View) Volume(id string) *workspace.Volume { return volumes.get(v.txn, "id", id) }

// Volumes of a workspace from an id on, in order of id.
func (v View) Volumes(workspaceID, from string) iter.Seq[*workspace.Volume] {
	return while(volumes.from(v.txn, "workspace", workspaceID, from),
		func(x *workspace.Volume) bool { return x.Workspace == workspaceID })
}

// NodeVolumes are the volumes on one node's disk, detached ones too.
func (v View) NodeVolumes(node string) iter.Seq[*workspace.Volume] {
	return volumes.each(v.txn, "node", node)
}

// Purges are the volumes that a node is to delete: those ordered that no run has
// mounted any more.
func (v View) Purges(node string) (ids []string) {
	for x := range v.NodeVolumes(node) {
		if x.Purging && volumeUser(v.txn, x) == nil {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// VolumeOf is the volume to which a run, or one of its instance to come, is
// tied; nil when it has none yet.
func (v View) VolumeOf(run *workspace.Run) *workspace.Volume { return volumeOf(v.txn, run) }

// VolumeHinders says why a pending run can't have its volume now, on whatever
// node; empty when nothing keeps it.
func (v View) VolumeHinders(run *workspace.Run) (reason, message string) {
	return volumeHinders(v.txn, run)
}
