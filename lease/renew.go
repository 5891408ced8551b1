package lease

import (
	"context"
	"fmt"
	"time"

	"berth/state"
	"berth/workspace"
)

// Renew answers the latest beats of all nodes heard lately, also those answered
// before: with more time to give than there was then, leases go before whatever
// is admitted next. A place that a start gets in its own entry doesn't wait for
// this: there a lease may come second, by one beat at most.
func (t *Term) Renew(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.keeper.boottime()
	return t.renew(ctx, now, func(h heard) bool { return now-h.at <= youngBeat })
}

// renew answers the beats that are asked for: one entry for each node of which
// leases are due.
func (t *Term) renew(ctx context.Context, now time.Duration, asked func(heard) bool) error {
	for node := range t.cluster.View().Nodes() {
		h, ok := t.keeper.heard(node)
		if !ok || !asked(h) {
			continue
		}
		t.keeper.answered(h.beat)
		if cmd := renewal(t.cluster.View(), h.beat, t.cluster.Now()); cmd != nil {
			if err := t.propose(ctx, cmd); err != nil {
				return fmt.Errorf("renew %d leases of node %s: %w", len(cmd.Runs), node.ID, err)
			}
		}
		t.note(t.cluster.View(), node.ID, now)
	}
	return nil
}

// renewal is what a view has to answer to a beat at a time of the log; nil:
// nothing. A lease that no budget pays for is in it once for each reason, so that
// its owner is told. The order of the leases stays: where money is short, who ends
// first is paid first.
func renewal(view state.View, beat workspace.Beat, now time.Time) *state.RenewLeases {
	cmd := &state.RenewLeases{Node: beat.Node, Stamp: beat.Stamp}
	for _, l := range view.Leases(beat, now) {
		if l.Due && (l.Renewable || l.Learns) {
			cmd.Runs = append(cmd.Runs, workspace.Livedness{Run: l.Run, LivedMS: l.LivedMS, EndMS: l.EndMS})
		}
	}
	if len(cmd.Runs) == 0 {
		return nil
	}
	return cmd
}
