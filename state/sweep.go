package state

import (
	"fmt"
	"iter"
	"time"

	"berth/workspace"
)

// Sweep does what has become due. The leader proposes it when View.NextDue says
// so; one that comes too early changes nothing. No volume is deleted by time
// without a warning PurgeWarning before, also when no leader was there to give it.
type Sweep struct{}

// Type is TypeSweep.
func (*Sweep) Type() Type { return TypeSweep }

// sweptMost bounds what one entry does, so that none keeps the others waiting;
// what is left is due still.
const sweptMost = 1000

func (c *Sweep) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	for range sweptMost {
		if !t.sweepVolume() && !t.sweepRun() && !t.sweepInstance() {
			return nil
		}
	}
	return nil
}

// NextDue says when the next Sweep has something to do; zero: nothing is waiting
// for a time. TopicVolumes, TopicRuns and TopicInstances tell of changes.
func (v View) NextDue() (next time.Time) {
	earlier := func(when time.Time) {
		if !when.IsZero() && (next.IsZero() || when.Before(next)) {
			next = when
		}
	}
	if x := first(volumes.from(v.txn, "due")); x != nil {
		earlier(due(x))
	}
	if x := first(runs.from(v.txn, "due")); x != nil {
		earlier(dueRun(x))
	}
	if x := first(instances.from(v.txn, "due")); x != nil {
		earlier(dueInstance(x))
	}
	return next
}

func first[T any](rows iter.Seq[*T]) *T {
	for row := range rows {
		return row
	}
	return nil
}

// sweepVolume does what is due about one volume; false: nothing is.
func (t *tx) sweepVolume() bool {
	v := first(volumes.from(t, "due"))
	if v == nil || due(v).After(t.at) {
		return false
	}
	if v.Warned {
		t.purge(v, "its time is over (storage policy "+v.Policy+")")
		return true
	}
	n := *v
	n.Warned = true
	if earliest := t.at.Add(workspace.PurgeWarning); n.PurgeAt.Before(earliest) {
		n.PurgeAt = earliest
	}
	t.putVolume(&n)
	t.volumeEvent("volume.purge_soon", &n, "", fmt.Sprintf(
		"the volume of instance %s on node %s is deleted on %s: berth volume keep %s keeps it", n.Name, nodeName(t, n.Node),
		n.PurgeAt.Format("2006-01-02 15:04 UTC"), n.ID))
	return true
}

// dueRun is when a Sweep has something to do about a run: a limit has kept it from
// being placed for too long, nobody has renewed an external one, or a denied one
// has been shown long enough; or its result data is to be deleted.
func dueRun(r *workspace.Run) time.Time {
	if r.Results == workspace.ResultsKept && r.Phase.Terminal() {
		return r.ResultsUntil
	}
	return r.ExpiresAt
}

func (t *tx) sweepRun() bool {
	r := first(runs.from(t, "due"))
	if r == nil || dueRun(r).After(t.at) {
		return false
	}
	switch {
	case r.Phase == workspace.PhasePending:
		t.endRun(r, workspace.PhaseFailed, "start_timeout", fmt.Sprintf("it has waited for %s: %s", workspace.StartTimeout, r.Message))
	case !r.Phase.Terminal():
		t.expireExternal(r)
	case r.Kind == workspace.KindExternal:
		runs.delete(t, r) // it was denied, and counts nowhere
	default:
		n := *r
		n.Results = workspace.ResultsDeleting
		t.putRun(&n)
	}
	return true
}

// lifetimeWarning is how long before its end by time an instance is warned of.
const lifetimeWarning = time.Hour

// dueInstance is when a Sweep has something to do about an instance: its warning,
// then its deletion.
func dueInstance(i *workspace.Instance) time.Time {
	switch {
	case i.ToBeDeletedAt.IsZero() || i.Desired == workspace.DesiredDeleted:
		return time.Time{}
	case i.Warning == nil:
		return i.ToBeDeletedAt.Add(-lifetimeWarning)
	}
	return i.ToBeDeletedAt
}

func (t *tx) sweepInstance() bool {
	i := first(instances.from(t, "due"))
	if i == nil || dueInstance(i).After(t.at) {
		return false
	}
	if !i.ToBeDeletedAt.After(t.at) {
		t.deleteInstance(i, "deleted: its lifetime is over (to_be_deleted_at "+i.ToBeDeletedAt.Format("2006-01-02 15:04 UTC")+")")
		return true
	}
	n := *i
	n.Warning = &workspace.Warning{Reason: "lifetime", EndsAt: i.ToBeDeletedAt, Message: fmt.Sprintf(
		"it is deleted at %s: berth instance extend %s gives it longer", i.ToBeDeletedAt.Format("2006-01-02 15:04 UTC"), i.Name)}
	t.putInstance(&n)
	t.event(workspace.Event{Type: "instance.ends_soon", Object: n.ID, Workspace: n.Workspace, Instance: n.ID, Reason: n.Warning.Reason,
		Message: "instance " + n.Name + ": " + n.Warning.Message})
	return true
}

// Expiring is the result data that a node is to delete.
func (v View) Expiring(node string) (all []workspace.ResultClaim) {
	for r := range runs.each(v.txn, "expiring", node) {
		all = append(all, workspace.ResultClaim{Run: r.ID, Volume: r.Volume})
	}
	return all
}
