package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"berth/workspace"
)

// restartPolicy is what an instance gets: what was asked for, else the
// template's, else what its kind has.
func (t *tx) restartPolicy(asked workspace.RestartPolicy, template string, kind workspace.RunKind) workspace.RestartPolicy {
	if from := templates.get(t, "id", template); from != nil && asked == (workspace.RestartPolicy{}) {
		asked = from.RestartPolicy
	}
	return asked.Or(kind)
}

// restart follows up on a run that has ended by itself while its instance is
// wanted running. A run that was never placed is not followed: what kept it, no
// node that could ever hold it, keeps the next one too. All others are alike,
// failures of the process and of the node: which of them pass by themselves
// can't be told, and the waits between restarts bound what is wasted.
func (t *tx) restart(inst *workspace.Instance, ended *workspace.Run) {
	policy := inst.RestartPolicy.Or(inst.Kind)
	if ended.Node == "" || ended.Reason == workspace.ReasonMaxDuration || !policy.Restarts(ended.Phase) {
		return
	}
	count := ended.Restarts + 1
	if settled(ended) {
		count = 1
	}
	if policy.MaxRestarts > 0 && count > policy.MaxRestarts {
		t.giveUp(ended, policy.MaxRestarts)
		return
	}
	n := t.newRun(inst, t.derivedID())
	n.Restarts, n.Counted = count, true // it counts for the month already
	n.User = ended.User
	which := fmt.Sprintf("restart %d", count)
	if policy.MaxRestarts > 0 {
		which = fmt.Sprintf("restart %d of %d", count, policy.MaxRestarts)
	}
	when := "at once"
	if delay := restartDelay(ended.Phase, count); delay > 0 {
		n.NotBefore, n.Reason = t.at.Add(delay), workspace.ReasonRestartBackoff
		when = "at " + n.NotBefore.Format("15:04:05 UTC")
	}
	n.Message = fmt.Sprintf("it starts again %s, %s: run %d %s: %s", when, which, ended.Attempt, past(ended.Phase), ended.Message)
	t.addRun(inst, n, fmt.Sprintf("run %d of instance %s was made: %s", n.Attempt, inst.Name, n.Message))
}

// settled: the run has lived long enough for its end to be a new matter.
func settled(run *workspace.Run) bool {
	return !run.Times.Running.IsZero() && run.Times.Ended.Sub(run.Times.Running) >= workspace.RestartSettled
}

// restartDelay: the loss of a node is no sign that the next run ends early, so
// the first restart after one doesn't wait.
func restartDelay(end workspace.Phase, count int) time.Duration {
	if end == workspace.PhaseLost && count == 1 {
		return 0
	}
	return workspace.RestartDelay(count)
}

func past(p workspace.Phase) string {
	if p == workspace.PhaseLost {
		return "was lost"
	}
	return string(p) // failed, succeeded
}

// giveUp says on a run why none follows it.
func (t *tx) giveUp(run *workspace.Run, most int) {
	n := *run
	n.Message = fmt.Sprintf("%s; it isn't started again: %d restarts in a row are the most (max_restarts)", run.Message, most)
	t.putRun(&n)
	t.event(workspace.Event{Type: "run.given_up", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID,
		Node: n.Node, Reason: n.Reason, Message: n.Message})
}

// startNow ends the wait of a run that a restart put off: someone asks for it.
// The count of restarts begins anew.
func (t *tx) startNow(run *workspace.Run, s *Suggestion) {
	n := *run
	n.NotBefore, n.Restarts = time.Time{}, 0
	t.wait(&n, "waiting_for_placement", "started by "+t.env.Principal+" before its time")
	ask := questionOf(t, &n, s, t.at)
	if denial := t.admit(ask); denial != nil {
		t.wait(&n, string(denial.Code), denial.Message)
		return
	}
	t.suggest(runs.get(t, "id", n.ID), s, ask.quote)
}

// derivedID makes the id of a run that an entry brings about without anyone
// having asked for it. It is a UUIDv8 (RFC 9562 §5.8): the entry's time to the
// millisecond, so that it sorts among the leader's UUIDv7s, and a hash of the
// cluster, the incarnation, the entry's index and how many came before it in the
// entry. Each replica derives the same, and no other entry does.
func (t *tx) derivedID() string {
	c := t.cluster()
	sum := sha256.Sum256(key(c.ID, c.Incarnation, t.index, t.derived))
	t.derived++
	ms := uint64(max(0, t.at.UnixMilli())) // #nosec G115 -- not negative
	id := append(binary.BigEndian.AppendUint64(nil, ms<<16)[:6], sum[:10]...)
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // of RFC 9562
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
