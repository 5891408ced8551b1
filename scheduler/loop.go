package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"berth/state"
	"berth/workspace"
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
// nodes, devices, volumes, limits and prices, and by the time at which a restart is
// due or budgets begin anew.
type Loop struct {
	Cluster Cluster
	Planner *Planner
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Run until ctx ends, whose end is no error.
func (l *Loop) Run(ctx context.Context) error {
	if l.Now == nil {
		l.Now = time.Now
	}
	for {
		view, now := l.Cluster.View(), l.Now()
		if err := l.RunOnce(ctx, view, now); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if l.wait(ctx, view, now) != nil {
			return nil
		}
	}
}

// wait for anything that could give a waiting run its place.
func (l *Loop) wait(ctx context.Context, view state.View, now time.Time) error {
	woken, wake := context.WithCancel(ctx)
	defer wake()
	var timer <-chan time.Time
	if d, ok := untilDue(view, now); ok {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	go func() {
		select {
		case <-l.Planner.freed:
			wake()
		case <-timer:
			wake()
		case <-woken.Done():
		}
	}()
	_ = view.Wait(woken, state.TopicRuns, state.TopicNodes, state.TopicDevices, state.TopicVolumes,
		state.TopicWorkspaces, state.TopicCluster, state.TopicMembers, state.TopicPrices)
	return ctx.Err()
}

// lateRestart is how long the loop waits for the log's clock to reach a time that
// its own has passed.
const lateRestart = time.Second

// untilDue is how long it is until time alone may let a waiting run have its
// place: the next restart that is put off, or the end of the UTC day, at which
// budgets and months begin anew.
func untilDue(view state.View, now time.Time) (d time.Duration, ok bool) {
	sooner := func(left time.Duration) {
		if left <= 0 {
			left = lateRestart
		}
		if !ok || left < d {
			d, ok = left, true
		}
	}
	for r := range view.PendingRuns() {
		switch {
		case r.Reason == workspace.ReasonRestartBackoff:
			sooner(r.NotBefore.Sub(now))
		case workspace.Code(r.Reason).Admission():
			sooner((workspace.DayOf(now) + 1).Start().Sub(now))
		}
	}
	return d, ok
}

// RunOnce looks at a view's pending runs at a time and proposes what changes for
// them: a place, or another reason to wait.
func (l *Loop) RunOnce(ctx context.Context, view state.View, now time.Time) error {
	q := queueOf(view, now)
	suggestions, done := l.Planner.Suggest(view, q.requests)
	defer done()
	placements := q.denied
	for i, s := range suggestions {
		run := view.Run(q.requests[i].Run)
		if denial := view.Admission(run, &s, now); denial != nil { // with a place it has a price
			s = state.Suggestion{Reason: string(denial.Code), Message: denial.Message}
		}
		placements = append(placements, state.Placement{Run: run.ID, Suggestion: s})
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
	final := s.Impossible && run.Restarts == 0 // a restart waits all the same
	return s.Node == "" && !final && run.Reason == s.Reason && run.Message == s.Message
}
