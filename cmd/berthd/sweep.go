package main

import (
	"context"
	"fmt"
	"time"

	"berth/state"
)

// lateSweep is how long the sweeper waits for the log's clock to reach a time that
// its own has passed.
const lateSweep = time.Second

// sweeper is leader work: it proposes a Sweep when something in the state has
// become due. Changes of the state and the time wake it; it never polls.
type sweeper struct {
	view    func() state.View
	propose func(context.Context, state.Command) error
	now     func() time.Time
}

// Run until ctx ends, whose end is no error.
func (s *sweeper) Run(ctx context.Context) error {
	for {
		view := s.view()
		left, err := s.RunOnce(ctx, view, s.now())
		if err == nil {
			waitFor(ctx, view, left)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// RunOnce does what a view says is due at a time, and says how long it is until
// there may be more; negative: only a change of the state can bring more.
func (s *sweeper) RunOnce(ctx context.Context, view state.View, now time.Time) (left time.Duration, err error) {
	due := view.NextDue()
	if due.IsZero() {
		return -1, nil
	}
	if due.After(now) {
		return due.Sub(now), nil
	}
	if err := s.propose(ctx, &state.Sweep{}); err != nil {
		return 0, fmt.Errorf("do what was due at %s: %w", due.Format(time.RFC3339), err)
	}
	return lateSweep, nil
}

// waitFor waits until something that may become due has changed since a view, but
// no longer than a time that isn't negative.
func waitFor(ctx context.Context, view state.View, d time.Duration) {
	if d >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	_ = view.Wait(ctx, state.TopicVolumes, state.TopicRuns, state.TopicInstances) // what ended it is seen by looking again
}
