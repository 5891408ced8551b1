package scheduler

import (
	"time"

	"berth/state"
	"berth/workspace"
)

// queue is what waits for a place, oldest first. Runs that a limit or their
// volume denies, and restarts whose time hasn't come, hold nothing back: they are
// no part of it until then.
type queue struct {
	requests []Request
	denied   []state.Placement // with why, as their reason to wait
}

// asker is all that an admission rule knows of a run that has no place yet.
type asker struct {
	workspace, user string
	counted         bool // for the month
}

func queueOf(view state.View, now time.Time) queue {
	var q queue
	known := map[asker]*workspace.Error{}
	for r := range view.PendingRuns() {
		if r.NotBefore.After(now) {
			continue
		}
		who := asker{r.Workspace, r.User, r.Counted}
		denial, seen := known[who]
		if !seen {
			denial = view.Admission(r, nil, now)
			known[who] = denial
		}
		if denial != nil {
			q.deny(r, string(denial.Code), denial.Message)
			continue
		}
		if reason, message := view.VolumeHinders(r); reason != "" {
			q.deny(r, reason, message)
			continue
		}
		q.requests = append(q.requests, RequestFor(view, r))
	}
	return q
}

func (q *queue) deny(r *workspace.Run, reason, message string) {
	q.denied = append(q.denied, state.Placement{Run: r.ID, Suggestion: state.Suggestion{Reason: reason, Message: message}})
}

// Explain says where a run would go now, or why nowhere: by the rules and
// behind the runs that are before it. A run without an id is a question about
// one that would come now.
func Explain(view state.View, run *workspace.Run) Decision {
	if run.NotBefore.After(view.At()) {
		return Decision{Run: run.ID, Reason: &Reason{Code: workspace.ReasonRestartBackoff, Message: run.Message}}
	}
	q := queueOf(view, view.At())
	for _, d := range q.denied {
		if d.Run == run.ID {
			return Decision{Run: run.ID, Reason: &Reason{Code: Code(d.Suggestion.Reason), Message: d.Suggestion.Message}}
		}
	}
	var ahead []Request
	for _, r := range q.requests {
		if r.Run == run.ID {
			break
		}
		ahead = append(ahead, r)
	}
	decisions := Place(ViewOf(view, nil), append(ahead, RequestFor(view, run)))
	d := decisions[len(ahead)]
	if d.Reason != nil || view.Workspace(run.Workspace) == nil {
		return d
	}
	if denial := view.Admission(run, &state.Suggestion{Node: d.Node, Devices: d.Devices}, view.At()); denial != nil {
		return Decision{Run: run.ID, Reason: &Reason{Code: Code(denial.Code), Message: denial.Message}}
	}
	return d
}
