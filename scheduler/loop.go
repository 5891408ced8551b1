package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"berth/state"
)

// batch is how many pending runs one entry settles at most; the rest follow in
// the next, which the first wakes.
const batch = 256

// Cluster is what the loop needs of it.
type Cluster interface {
	View() state.View
	// Place proposes suggestions for pending runs and returns once they are
	// applied.
	Place(ctx context.Context, placements []state.Placement) error
}

// Loop places pending runs. It is leader work: it is woken by changes of runs,
// nodes and devices, never by a clock.
type Loop struct {
	Cluster Cluster
	Planner *Planner
	Log     *slog.Logger
}

// Run until ctx ends, whose end is no error.
func (l *Loop) Run(ctx context.Context) error {
	for {
		view := l.Cluster.View()
		if err := l.RunOnce(ctx, view); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if l.wait(ctx, view) != nil {
			return nil
		}
	}
}

// wait for anything that could give a waiting run its place.
func (l *Loop) wait(ctx context.Context, view state.View) error {
	woken, wake := context.WithCancel(ctx)
	defer wake()
	go func() {
		select {
		case <-l.Planner.freed:
			wake()
		case <-woken.Done():
		}
	}()
	_ = view.Wait(woken, state.TopicRuns, state.TopicNodes, state.TopicDevices, state.TopicWorkspaces)
	return ctx.Err()
}

// RunOnce looks at a view's pending runs and proposes what changes for them: a
// place, or another reason to wait.
func (l *Loop) RunOnce(ctx context.Context, view state.View) error {
	q := queueOf(view)
	suggestions, done := l.Planner.Suggest(view, q.requests)
	defer done()
	placements := q.denied
	for i, s := range suggestions {
		placements = append(placements, state.Placement{Run: q.requests[i].Run, Suggestion: s})
	}
	placements = slices.DeleteFunc(placements, func(p state.Placement) bool { return waitsAlready(view, &p) })
	if len(placements) == 0 {
		return nil
	}
	placements = placements[:min(len(placements), batch)]
	l.Log.Debug("placing", "runs", len(placements))
	if err := l.Cluster.Place(ctx, placements); err != nil {
		return fmt.Errorf("place %d pending runs: %w", len(placements), err)
	}
	return nil
}

// waitsAlready: the run waits for the same thing as before, nothing is new.
func waitsAlready(view state.View, p *state.Placement) bool {
	s, run := &p.Suggestion, view.Run(p.Run)
	return s.Node == "" && !s.Impossible && run.Reason == s.Reason && run.Message == s.Message
}
