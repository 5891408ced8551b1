package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"berth/state"
	"berth/workspace"
)

// Cluster is what leader work needs of it.
type Cluster interface {
	View() state.View
	// Now is the time that an entry would get: within a term no step of the wall
	// clock reaches it.
	Now() time.Time
	// Propose returns once the command is applied; what the state refuses is a
	// *workspace.Error.
	Propose(ctx context.Context, cmd state.Command) error
}

// never is the time until nothing.
const never = time.Duration(math.MaxInt64)

// Term is the work of one term of leadership. It is made after the term's
// barrier: from then on nothing that earlier leaders granted is unknown here.
type Term struct {
	keeper  *Keeper
	cluster Cluster
	number  uint64
	began   time.Duration // by this server's boot clock
	// patience is how long it waits for a lease; only the model has another.
	patience func(*workspace.Lease) time.Duration

	mu     sync.Mutex                  // one pass at a time
	grants map[string]map[string]grant // hard leases, by node and run
}

// Term begins the work of a term.
func (k *Keeper) Term(cluster Cluster, number uint64) *Term {
	return &Term{keeper: k, cluster: cluster, number: number, began: k.boottime(), patience: Wait, grants: map[string]map[string]grant{}}
}

// Run until ctx ends, whose end is no error. Beats, changes of nodes and leases,
// and the times that come wake it.
func (t *Term) Run(ctx context.Context) error {
	for {
		view := t.cluster.View()
		left, err := t.RunOnce(ctx, t.keeper.boottime())
		if err == nil {
			t.wait(ctx, view, left)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// wait for a beat, a change since the view, or the end of a time.
func (t *Term) wait(ctx context.Context, view state.View, left time.Duration) {
	woken, wake := context.WithTimeout(ctx, left)
	var beats sync.WaitGroup
	beats.Go(func() {
		select {
		case <-t.keeper.wake:
			wake()
		case <-woken.Done():
		}
	})
	_ = view.Wait(woken, state.TopicNodes, state.TopicMeters) // what ended it is seen by looking again
	wake()
	beats.Wait() // or it could take the sign of a beat that comes after the next look
}

// RunOnce does what is due at a moment of this server's boot clock: nodes are
// marked, beats answered, leases that are over ended. It says how long nothing
// more is due, if nothing comes.
func (t *Term) RunOnce(ctx context.Context, now time.Duration) (left time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	silent, err := t.mark(ctx, now)
	if err != nil {
		return 0, err
	}
	if err := t.renew(ctx, now, func(h heard) bool { return h.fresh }); err != nil {
		return 0, err
	}
	over, err := t.expire(ctx, now)
	return min(silent, over), err
}

// mark proposes which nodes are reachable, where that has changed. A node that
// wasn't heard in this term yet has its time from the term's beginning.
func (t *Term) mark(ctx context.Context, now time.Duration) (left time.Duration, err error) {
	left = never
	for node := range t.cluster.View().Nodes() {
		last := t.began
		h, known := t.keeper.heard(node)
		if known {
			last = max(last, h.at)
		}
		silent := now - last
		reachable := node.Reachable && silent < SilentAfter || known && now-h.at < SilentAfter
		if reachable {
			left = min(left, SilentAfter-silent)
		}
		if reachable == node.Reachable {
			continue
		}
		left = min(left, SilentAfter) // to look whether it was done
		t.keeper.log.Warn("whether a node is heard has changed", "node", node.ID, "reachable", reachable, "silent", silent)
		if err := t.propose(ctx, &state.SetReachable{Node: node.ID, Reachable: reachable}); err != nil {
			return 0, fmt.Errorf("mark node %s: %w", node.ID, err)
		}
	}
	return left, nil
}

// propose passes over what the state refuses: the state has moved on since the
// look at it, and the next look sees how.
func (t *Term) propose(ctx context.Context, cmd state.Command) error {
	err := t.cluster.Propose(ctx, cmd)
	var refused *workspace.Error
	if !errors.As(err, &refused) || refused.Code == workspace.CodeUnavailable || refused.Code == workspace.CodeInternal {
		return err
	}
	t.keeper.log.Warn("the state refused what the leader proposed for leases", "command", fmt.Sprintf("%T", cmd), "error", err)
	return nil
}
