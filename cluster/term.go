package cluster

import (
	"context"
	"sync"
	"time"
)

// terms runs the terms of leadership one after the other: a term begins only
// when everything of the one before has ended.
type terms struct {
	ctx    context.Context
	run    func(context.Context)
	cancel context.CancelFunc
	last   chan struct{} // closed when the latest term has ended
}

func newTerms(ctx context.Context, run func(context.Context)) *terms {
	last := make(chan struct{})
	close(last)
	return &terms{ctx: ctx, run: run, cancel: func() {}, last: last}
}

// change ends the present term, if any, and begins one if leads. It doesn't
// wait: Raft waits for whoever calls it.
func (t *terms) change(leads bool) {
	t.cancel()
	if !leads {
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	before, done := t.last, make(chan struct{})
	t.cancel, t.last = cancel, done
	go func() {
		defer close(done)
		defer cancel()
		<-before
		t.run(ctx)
	}()
}

// end ends the present term; the channel is closed once it has ended.
func (t *terms) end() <-chan struct{} {
	t.cancel()
	return t.last
}

// runTerm does what only a leader does, from the moment when the state holds
// everything committed before, until ctx ends and all that was proposed has its
// outcome.
func (c *Cluster) runTerm(ctx context.Context) {
	number := c.raft.CurrentTerm()
	if err := c.raft.Barrier(0).Error(); err != nil || c.raft.CurrentTerm() != number {
		c.log.Warn("leadership was lost before it began", "term", number, "error", err)
		return
	}
	c.log.Info("leading", "node", c.cfg.NodeID, "term", number)
	c.led.Add(1)
	c.setReady()
	clock := termClock{now: c.cfg.Now, start: c.cfg.Now()}
	inflight := make(chan *proposal, maxBatch)
	var work sync.WaitGroup
	work.Go(func() {
		defer close(inflight)
		c.serve(ctx, clock, inflight)
	})
	work.Go(func() { deliver(inflight) })
	work.Go(func() { c.confirm(ctx, number) })
	work.Go(func() { c.lead(ctx, number) })
	work.Wait()
}

// How long to wait before leader work that failed is tried again.
const (
	firstLeadPause = time.Second
	lastLeadPause  = 30 * time.Second
)

// lead runs the leader's work of a term until ctx ends.
func (c *Cluster) lead(ctx context.Context, term uint64) {
	for pause := firstLeadPause; ; pause = min(2*pause, lastLeadPause) {
		err := c.cfg.Lead(ctx, term)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.log.Error("leader work failed", "error", err)
		if c.raft.LeadershipTransfer().Error() == nil {
			return
		}
		c.log.Warn("no other server can lead: leader work is tried again", "after", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// termClock gives the time of a term's entries: wall time when the term began
// plus what has passed since. A step of the wall clock within a term doesn't
// reach the log.
type termClock struct {
	now   func() time.Time
	start time.Time // with its monotonic reading
}

func (t termClock) at() time.Time { return t.start.Add(t.now().Sub(t.start)) }
