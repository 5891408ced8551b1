package lease

import (
	"context"
	"fmt"
	"time"

	"berth/state"
	"berth/workspace"
)

// killTime is the part of the margin that doesn't grow with the lease: from KILL
// at the end to the last process gone, and a round trip to the node.
const killTime = 15 * time.Second

// driftOver is what a lease is divided by to get two clocks' drift over it. The
// node's may be slow and the leader's fast, by 500 ppm each.
const driftOver = 1_000_000 / (2 * 500)

// expireBatch is how many leases one entry ends at most.
const expireBatch = 256

// Wait is how long a leader waits from when it saw a grant until nothing of the
// run can live any more on a node that heard of no later one: the time granted,
// which began before the grant was applied, and a margin above kill time + 2 ×
// drift × lease + round trip. It assumes clocks within 500 ppm and a host that
// isn't suspended (docs/domain.md, expiry).
func Wait(l *workspace.Lease) time.Duration {
	granted := time.Duration(l.GrantedMS) * time.Millisecond
	return granted + killTime + granted/driftOver
}

// grant is a hard lease as this term has seen it.
type grant struct {
	number uint64
	over   time.Duration // when it is, by this server's boot clock
}

// note looks at the hard leases of a node. The wait for one begins when it is
// first seen, which is after it was applied.
func (t *Term) note(view state.View, node string, now time.Duration) map[string]grant {
	old, grants := t.grants[node], map[string]grant{}
	for run := range view.NodeRuns(node) {
		l := hard(view, run)
		if l == nil {
			continue
		}
		g, ok := old[run.ID]
		if !ok || g.number != l.Grant {
			g = grant{number: l.Grant, over: now + t.patience(l)}
		}
		grants[run.ID] = g
	}
	t.grants[node] = grants
	return grants
}

// hard is the lease of a live run whose node keeps to it as a deadline; nil: none.
func hard(view state.View, run *workspace.Run) *workspace.Lease {
	if !run.Phase.Active() {
		return nil
	}
	m := view.Metered(run.ID)
	if m == nil || m.Lease == nil || !m.Held {
		return nil
	}
	return m.Lease
}

// expire ends the runs of silent nodes whose leases are over. A proposal that
// changes nothing is made again only after a while.
func (t *Term) expire(ctx context.Context, now time.Duration) (left time.Duration, err error) {
	left = never
	view := t.cluster.View()
	cmd := &state.ExpireLeases{Term: t.number}
	for node := range view.Nodes() {
		if node.Reachable {
			continue
		}
		grants := t.note(view, node.ID, now)
		for run := range view.NodeRuns(node.ID) { // in the order of the state
			g, ok := grants[run.ID]
			switch {
			case !ok:
			case g.over > now:
				left = min(left, g.over-now)
			case len(cmd.Runs) == expireBatch:
				left = 0
			default:
				cmd.Runs = append(cmd.Runs, state.Expired{Run: run.ID, Grant: g.number})
				grants[run.ID] = grant{number: g.number, over: now + SilentAfter}
				left = min(left, SilentAfter)
			}
		}
	}
	if len(cmd.Runs) == 0 {
		return left, nil
	}
	t.keeper.log.Warn("leases of unreachable nodes are over", "runs", len(cmd.Runs))
	if err := t.propose(ctx, cmd); err != nil {
		return 0, fmt.Errorf("end %d leases: %w", len(cmd.Runs), err)
	}
	return left, nil
}
