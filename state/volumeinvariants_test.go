package state

import (
	"fmt"
	"slices"

	"berth/workspace"
)

func allVolumes(v View) (all []*workspace.Volume) {
	return collect(volumes.each(v.txn, "id"))
}

// volumesAttached: a volume is one instance's at most, and each knows the other.
// Two runs never have the same one mounted.
func volumesAttached(_, v View, _ Command) error {
	by := map[string]string{}
	for ws := range v.Workspaces("") {
		for i := range v.Instances(ws.ID, "") {
			if i.Volume == "" {
				continue
			}
			x := v.Volume(i.Volume)
			switch {
			case by[i.Volume] != "":
				return fmt.Errorf("volume %s is both %s's and %s's", i.Volume, by[i.Volume], i.ID)
			case x == nil || x.Detached || x.Purging || x.Instance != i.ID || x.Workspace != i.Workspace:
				return fmt.Errorf("instance %s has volume %s, which says %+v", i.ID, i.Volume, x)
			case i.Desired == workspace.DesiredDeleted:
				return fmt.Errorf("instance %s is deleted and has volume %s", i.ID, x.ID)
			}
			by[i.Volume] = i.ID
		}
	}
	for _, x := range allVolumes(v) {
		if !x.Detached && by[x.ID] != x.Instance {
			return fmt.Errorf("volume %s is attached to %s, which has another", x.ID, x.Instance)
		}
		if x.Purging && !x.Detached || !x.PurgeAt.IsZero() && !x.Detached {
			return fmt.Errorf("volume %s is attached and to be purged: %+v", x.ID, x)
		}
	}
	users := map[string]string{}
	for r := range v.AllRuns() {
		if r.Volume == "" || !r.Phase.Active() && !r.Unreleased {
			continue
		}
		x := v.Volume(r.Volume)
		switch {
		case x == nil || x.Node != r.Node:
			return fmt.Errorf("run %s on %s is %s on volume %s, which is %+v", r.ID, r.Node, r.Phase, r.Volume, x)
		case users[x.ID] != "":
			return fmt.Errorf("runs %s and %s both have volume %s", users[x.ID], r.ID, x.ID)
		case slices.Contains(v.Purges(x.Node), x.ID):
			return fmt.Errorf("volume %s is to be deleted, run %s is %s on it", x.ID, r.ID, r.Phase)
		}
		users[x.ID] = r.ID
	}
	return nil
}

// volumesFit: no entry that places a run makes a node promise more storage than
// it has.
func volumesFit(before, after View, _ Command) error {
	for n := range after.Nodes() {
		was, is := before.PromisedStorage(n.ID), after.PromisedStorage(n.ID)
		placed := false
		for r := range after.NodeRuns(n.ID) {
			old := before.Run(r.ID)
			placed = placed || old == nil || old.Node == ""
		}
		if placed && is > was && is > n.Facts.StorageMiB {
			return fmt.Errorf("node %s promises %d MiB of storage after %d, it has %d", n.ID, is, was, n.Facts.StorageMiB)
		}
	}
	return nil
}

// volumesKept: a volume never moves or shrinks, and goes only by its node's word
// after an order.
func volumesKept(before, after View, cmd Command) error {
	for _, x := range allVolumes(before) {
		now := after.Volume(x.ID)
		report, _ := cmd.(*Report)
		switch {
		case now == nil && (report == nil || report.Node != x.Node || !slices.Contains(before.Purges(x.Node), x.ID) && !justEnded(before, report, x)):
			return fmt.Errorf("volume %s is gone by %T: it was %+v", x.ID, cmd, x)
		case now == nil:
		case now.Node != x.Node || now.SizeMiB < x.SizeMiB || now.Workspace != x.Workspace:
			return fmt.Errorf("volume %s was moved or cut: %+v, %+v", x.ID, x, now)
		case x.Purging && !now.Purging:
			return fmt.Errorf("volume %s is ordered to be deleted and isn't any more", x.ID)
		case x.Exists() && !now.Exists():
			return fmt.Errorf("volume %s is as if it had never been: %+v", x.ID, now)
		}
	}
	return nil
}

// justEnded: the report that a volume is deleted also says that its last run is
// over.
func justEnded(before View, report *Report, x *workspace.Volume) bool {
	return x.Purging && len(report.Runs)+len(report.Released) > 0
}

// restartsWait: a restart is placed no earlier than said, and there are no more
// of them in a row than allowed.
func restartsWait(before, after View, _ Command) error {
	for r := range after.AllRuns() {
		old := before.Run(r.ID)
		if (old == nil || old.Node == "") && r.Node != "" && r.NotBefore.After(after.At()) {
			return fmt.Errorf("run %s waits until %s and was placed at %s", r.ID, r.NotBefore, after.At())
		}
		inst := after.Instance(r.Instance)
		if inst != nil && inst.RestartPolicy.MaxRestarts > 0 && r.Restarts > inst.RestartPolicy.MaxRestarts {
			return fmt.Errorf("run %s is restart %d, the most is %d", r.ID, r.Restarts, inst.RestartPolicy.MaxRestarts)
		}
		if old == nil && r.Restarts > 0 && inst != nil && inst.Desired != workspace.DesiredRunning {
			return fmt.Errorf("run %s is a restart of instance %s, wanted %s", r.ID, inst.ID, inst.Desired)
		}
	}
	return nil
}
