package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"berth/state"
	"berth/workspace"
)

// View is this server's state now. On a server that doesn't lead, or has just
// started, it may be behind.
func (c *Cluster) View() state.View { return c.cfg.Store.View() }

// Consistent gives a view that holds everything acknowledged before the call:
// leadership was verified after the call arrived. It waits up to 5 s for a
// leader.
func (c *Cluster) Consistent(ctx context.Context) (state.View, error) {
	timeout := time.NewTimer(leaderWait)
	defer timeout.Stop()
	for {
		verified := make(chan error, 1)
		if err := offer(ctx, c, c.reads, verified, timeout.C); err != nil {
			return state.View{}, err
		}
		var err error
		select {
		case err = <-verified:
		case <-ctx.Done():
			return state.View{}, given(ctx)
		case <-c.closed:
			return state.View{}, errStopping()
		}
		switch {
		case err == nil:
			return c.View(), nil
		case !notTaken(err) && !errors.Is(err, raft.ErrLeadershipLost):
			return state.View{}, workspace.Errorf(workspace.CodeUnavailable, "leadership couldn't be verified: %v", err)
		}
		if err := c.pause(ctx); err != nil {
			return state.View{}, err
		}
	}
}

// confirm answers consistent reads during the term of that number: one round of
// verification for all that wait. What a leader has acknowledged it has applied
// itself, and what earlier leaders acknowledged came before the term's barrier,
// so a verified leader's own state is current. Not so when the term verified is
// a later one of this server: its barrier may be still to come.
func (c *Cluster) confirm(ctx context.Context, number uint64) {
	for {
		var waiting []chan<- error
		select {
		case <-ctx.Done():
			return
		case r := <-c.reads:
			waiting = append(waiting, r)
		}
		for more := true; more; {
			select {
			case r := <-c.reads:
				waiting = append(waiting, r)
			default:
				more = false
			}
		}
		err := c.verify()
		if err == nil && c.raft.CurrentTerm() != number {
			err = raft.ErrLeadershipLost
		}
		for _, r := range waiting {
			r <- err
		}
	}
}

// verify returns once this server has led after the call. Among several voters
// that takes an entry of the log: Raft's own VerifyLeader also counts answers
// that were on their way before it was asked, so that a leader that was paused,
// or cut off, could find itself confirmed by the past.
func (c *Cluster) verify() error {
	known := c.raft.GetConfiguration()
	if err := known.Error(); err != nil {
		return err
	}
	voters := 0
	for _, s := range known.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters > 1 {
		return c.raft.Barrier(0).Error()
	}
	return c.raft.VerifyLeader().Error()
}

// WaitIndex waits until this server has applied the entry of that index, as a
// Result or a view named it.
func (c *Cluster) WaitIndex(ctx context.Context, index uint64) error {
	for {
		changed := c.fsm.changed()
		if at := c.View().Index(); at >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, now at %d: %w", index, c.View().Index(), context.Cause(ctx))
		case <-c.stopping:
			return errStopping()
		}
	}
}
