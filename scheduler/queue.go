package scheduler

import (
	"berth/state"
	"berth/workspace"
)

// queue is what waits for a place, oldest first. Runs that a limit denies hold
// nothing back: they are no part of it until they are admitted.
type queue struct {
	requests []Request
	denied   []state.Placement // with why, as their reason to wait
}

func queueOf(view state.View) queue {
	var q queue
	known := map[[2]string]*workspace.Error{} // by workspace and user: a rule knows no more of a run
	for r := range view.PendingRuns() {
		who := [2]string{r.Workspace, r.User}
		denial, seen := known[who]
		if !seen {
			denial = view.Admission(r)
			known[who] = denial
		}
		if denial == nil {
			q.requests = append(q.requests, Request{Run: r.ID, Resources: r.Resources})
			continue
		}
		q.denied = append(q.denied, state.Placement{Run: r.ID, Suggestion: state.Suggestion{
			Reason: string(denial.Code), Message: denial.Message,
		}})
	}
	return q
}

// Explain says where a run would go now, or why nowhere: by the rules and
// behind the runs that are before it. A run without an id is a question about
// one that would come now.
func Explain(view state.View, run *workspace.Run) Decision {
	q := queueOf(view)
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
	decisions := Place(ViewOf(view, nil), append(ahead, Request{Run: run.ID, Resources: run.Resources}))
	return decisions[len(ahead)]
}
