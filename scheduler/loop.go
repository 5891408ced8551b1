package scheduler

import (
	"context"
	"fmt"
	"log/slog"

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
		topics := []state.Topic{state.TopicRuns, state.TopicNodes, state.TopicDevices, state.TopicWorkspaces}
		if view.Wait(ctx, topics...) != nil {
			return nil
		}
	}
}

// RunOnce looks at a view's pending runs and proposes what changes for them: a
// place, or another reason to wait.
func (l *Loop) RunOnce(ctx context.Context, view state.View) error {
	var requests []Request
	var reasons [][2]string
	for r := range view.PendingRuns() {
		requests = append(requests, Request{Run: r.ID, Resources: r.Resources})
		reasons = append(reasons, [2]string{r.Reason, r.Message})
	}
	if len(requests) == 0 {
		return nil
	}
	suggestions, done := l.Planner.Suggest(view, requests)
	defer done()
	var placements []state.Placement
	for i, s := range suggestions {
		if s.Node == "" && !s.Impossible && reasons[i] == [2]string{s.Reason, s.Message} {
			continue // it waits for the same thing as before
		}
		placements = append(placements, state.Placement{Run: requests[i].Run, Suggestion: s})
	}
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
