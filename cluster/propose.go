package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"berth/state"
	"berth/workspace"
)

// leaderWait is how long a request waits for a leader.
const leaderWait = 5 * time.Second

// retryPause keeps a request from asking a leader that is just going over and
// over.
const retryPause = 10 * time.Millisecond

// proposal is a command on its way through the log.
type proposal struct {
	cmd     state.Command
	by      state.Caller
	release func()
	future  raft.ApplyFuture
	err     error // why it has no future
	done    chan outcome
}

type outcome struct {
	result state.Result
	err    error
}

// Propose puts a command into the log and gives what applying it gave. cmd
// belongs to the cluster from then on. A Result.Err is returned as the error
// too. While there is no leader it waits up to 5 s. CodeUnavailable says that
// there was none, that the daemon stops, or, when ctx ends early, that the
// outcome isn't known; a retry with the same request id never happens twice. A
// request id is made for callers other than nodes and the system, whose
// commands may be applied twice without harm.
func (c *Cluster) Propose(ctx context.Context, cmd state.Command, by state.Caller) (state.Result, error) {
	if by.RequestID == "" && by.Role != workspace.RoleNode && by.Role != workspace.RoleSystem {
		id, err := uuid.NewV7()
		if err != nil {
			return state.Result{}, fmt.Errorf("make a request id: %w", err)
		}
		by.RequestID = id.String()
	}
	timeout := time.NewTimer(leaderWait)
	defer timeout.Stop()
	for {
		p := &proposal{cmd: cmd, by: by, done: make(chan outcome, 1)}
		if err := offer(ctx, c, c.proposals, p, timeout.C); err != nil {
			return state.Result{}, err
		}
		out, err := c.outcome(ctx, p)
		if err != nil {
			return state.Result{}, err
		}
		if !notTaken(out.err) {
			return c.answer(out, by)
		}
		if err := c.pause(ctx); err != nil {
			return state.Result{}, err
		}
	}
}

// offer hands v to the leader's goroutine that takes it, or says why nobody
// did; then nothing has happened.
func offer[T any](ctx context.Context, c *Cluster, to chan<- T, v T, timeout <-chan time.Time) error {
	if ctx.Err() != nil {
		return given(ctx)
	}
	select {
	case <-c.stopping:
		return errStopping()
	default:
	}
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return given(ctx)
	case <-timeout:
		return workspace.Errorf(workspace.CodeUnavailable,
			"the cluster has had no leader for %s, nothing was done: try again; berth status shows the servers", leaderWait)
	case <-c.stopping:
		return errStopping()
	}
}

func errStopping() error {
	return workspace.Errorf(workspace.CodeUnavailable, "this server is stopping, nothing was done: try again")
}

func given(ctx context.Context) error {
	return workspace.Errorf(workspace.CodeUnavailable, "the request ended before a leader took it (%v), nothing was done", context.Cause(ctx))
}

// outcome waits for what became of a proposal that the leader took.
func (c *Cluster) outcome(ctx context.Context, p *proposal) (outcome, error) {
	select {
	case out := <-p.done:
		return out, nil
	case <-ctx.Done():
		return outcome{}, unknown(p.by, context.Cause(ctx))
	case <-c.closed:
		select {
		case out := <-p.done: // it came with the end
			return out, nil
		default:
			return outcome{}, unknown(p.by, raft.ErrRaftShutdown)
		}
	}
}

func (c *Cluster) answer(out outcome, by state.Caller) (state.Result, error) {
	var refused *workspace.Error
	switch {
	case errors.As(out.err, &refused): // before it got near the log
		return state.Result{}, refused
	case out.err != nil:
		return state.Result{}, unknown(by, out.err)
	case out.result.Err != nil:
		return out.result, out.result.Err
	}
	return out.result, nil
}

// unknown is the answer when a command may or may not have reached the log.
func unknown(by state.Caller, cause error) error {
	if by.RequestID == "" {
		return workspace.Errorf(workspace.CodeUnavailable, "whether it was done isn't known (%v): look before you try again", cause)
	}
	return workspace.Errorf(workspace.CodeUnavailable,
		"whether it was done isn't known (%v): retrying with the same request id %s is safe", cause, by.RequestID)
}

// notTaken reports whether Raft refused a command before it touched the log.
func notTaken(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress)
}

func (c *Cluster) pause(ctx context.Context) error {
	select {
	case <-time.After(retryPause):
		return nil
	case <-ctx.Done():
		return given(ctx)
	case <-c.stopping:
		return errStopping()
	}
}

// serve is the one goroutine that puts commands into the log: it prepares each
// and goes on without waiting, so that Raft writes many in one batch.
func (c *Cluster) serve(ctx context.Context, clock termClock, inflight chan<- *proposal) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-c.proposals:
			c.enqueue(p, clock.at())
			inflight <- p
		}
	}
}

func (c *Cluster) enqueue(p *proposal, at time.Time) {
	p.release = c.cfg.Prepare(c.View(), p.cmd)
	entry, err := state.Encode(p.cmd, p.by, at)
	if err != nil {
		p.err = err
		return
	}
	p.future = c.raft.Apply(entry, 0)
}

// deliver hands out the outcomes in the order of the log.
func deliver(inflight <-chan *proposal) {
	for p := range inflight {
		out := p.wait()
		if p.release != nil {
			p.release()
		}
		p.done <- out
	}
}

func (p *proposal) wait() outcome {
	if p.err != nil {
		return outcome{err: p.err}
	}
	if err := p.future.Error(); err != nil {
		return outcome{err: err}
	}
	switch r := p.future.Response().(type) {
	case state.Result:
		return outcome{result: r}
	case error:
		return outcome{err: r}
	default:
		return outcome{err: fmt.Errorf("applying gave a %T", r)}
	}
}
