package state

import (
	"time"

	"berth/workspace"
)

// question is what admission is asked: may a user's run begin in a workspace?
type question struct {
	workspace *workspace.Workspace
	user      string
	at        time.Time
	quote     quote // what it would cost; not known while it has no place
	least     int64 // shortest grant that is of use to it, in ms
	counted   bool  // it counts for the month already
	atSubmit  bool  // interactive runs that wait count too, so that a queue can't be filled past the limit
}

// questionOf a run that waits.
func questionOf(in reader, run *workspace.Run, s *Suggestion, at time.Time) question {
	q := question{workspace: workspaces.get(in, "id", run.Workspace), user: run.User, at: at, counted: run.Counted}
	q.quote = quoteFor(in, &run.Resources, s)
	inst := instances.get(in, "id", run.Instance)
	q.least = meterOf(run, inst, q.quote).shortest()
	return q
}

// admit checks the admission rules in the application of an entry, and notes who
// was denied what.
func (t *tx) admit(q question) *workspace.Error {
	denial := admit(t, q)
	if denial != nil {
		t.deniedIn = q.workspace.ID
	}
	return denial
}

// Admission is the rule that keeps a pending run from being placed where a
// suggestion (nil: none yet) would put it at a time, as PlaceRuns would find in
// an entry that follows this view; nil when none does.
func (v View) Admission(run *workspace.Run, s *Suggestion, now time.Time) *workspace.Error {
	at := v.At()
	if now.After(at) {
		at = now
	}
	return admit(ledgers{v.txn}, questionOf(v.txn, run, s, at))
}

// admit checks the rules of docs/domain.md (admission) in their order; the
// first that fails names the code.
func admit(in books, q question) *workspace.Error {
	w := q.workspace
	if denial := barred(in, w, q.user); denial != nil {
		return denial
	}
	if denial := admitMoney(in, q); denial != nil {
		return denial
	}
	if denial := admitMonth(in, q); denial != nil {
		return denial
	}
	return admitConcurrency(in, w, q.atSubmit)
}

// barred checks the rules that ask for no numbers.
func barred(in reader, w *workspace.Workspace, user string) *workspace.Error {
	if denial := closed(w); denial != nil {
		return denial
	}
	if denial := killed(in, w); denial != nil {
		return denial
	}
	if m := members.get(in, "id", w.ID, user); m != nil && m.Blocked {
		return workspace.Errorf(workspace.CodeUserBlocked,
			"user %s is blocked in workspace %s: an owner or admin can lift it (berth workspace unblock)", user, w.Slug)
	}
	return nil
}

func closed(w *workspace.Workspace) *workspace.Error {
	if !w.Archived() {
		return nil
	}
	return workspace.Errorf(workspace.CodeWorkspaceArchived,
		"workspace %s was archived on %s: nothing can start in it", w.Slug, w.ArchivedAt.Format("2006-01-02"))
}

func killed(in reader, w *workspace.Workspace) *workspace.Error {
	switch {
	case clusters.get(in, "id", "cluster").KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch,
			"the cluster's kill switch is on: a cluster admin can switch it off (berth cluster kill-switch off)")
	case w.KillSwitch:
		return workspace.Errorf(workspace.CodeKillSwitch,
			"the kill switch of workspace %s is on: an owner or admin can switch it off (berth workspace kill-switch off %s)", w.Slug, w.Slug)
	}
	return nil
}

// admitMoney checks the budgets: none may be reached, and each must pay for the
// shortest grant. Under a budget everything that is asked for has to have a price.
func admitMoney(in books, q question) *workspace.Error {
	budgets := in.payerOf(q.workspace.ID, q.user).budgets
	atMS := q.at.UnixMilli()
	first := span{rate: q.quote.rate, to: q.least, base: atMS}
	for i := range budgets {
		b := &budgets[i]
		if b.reached(in, workspace.DayOf(q.at)) || q.quote.rate > 0 && b.reach(in, first) < q.least {
			return b.denial(in, q.workspace, q.at, q.quote.rate, q.least)
		}
	}
	if len(budgets) > 0 && q.quote.unpriced != "" {
		return workspace.Errorf(workspace.CodeUnpriced,
			"GPU type %s has no price, and %s applies: a cluster admin can set one (berth price set gpu %s USD-PER-HOUR)",
			q.quote.unpriced, budgets[0].title(q.workspace), q.quote.unpriced)
	}
	return nil
}

// admitMonth checks how many runs were first placed this month.
func admitMonth(in reader, q question) *workspace.Error {
	limit, limited := monthlyLimit(q.workspace)
	month := workspace.Month(q.at)
	if !limited || q.counted {
		return nil
	}
	if n := monthlyRuns(in, q.workspace.ID, month); n >= limit {
		return workspace.Errorf(workspace.CodeMonthlyRuns,
			"workspace %s has had %d runs this month, its limit is %d (plan %s): it resets at %s", q.workspace.Slug, n, limit,
			q.workspace.Plan, monthEnd(q.at).Format("2006-01-02 15:04 UTC"))
	}
	return nil
}

// monthlyLimit is the workspace's own limit or its plan's, whichever is lower.
func monthlyLimit(w *workspace.Workspace) (limit int64, limited bool) {
	limit, limited = w.Plan.MonthlyRuns()
	if own := w.Limits.MonthlyRuns; own != nil && (!limited || *own < limit) {
		return *own, true
	}
	return limit, limited
}

func monthEnd(at time.Time) time.Time {
	y, m, _ := at.Date()
	return time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
}

// admitConcurrency counts the set of active runs.
func admitConcurrency(in reader, w *workspace.Workspace, atSubmit bool) *workspace.Error {
	if planted == mutantConcurrency {
		return nil
	}
	running, queued := tallyOf(in, w.ID, active), int64(0)
	if atSubmit {
		queued = tallyOf(in, w.ID, waiting)
	}
	if limit := int64(w.Limits.MaxConcurrentRuns); running+queued >= limit {
		return workspace.Errorf(workspace.CodeConcurrency,
			"workspace %s has %d active and %d waiting runs, its limit is %d: stop one (berth run ls) or raise max_concurrent_runs",
			w.Slug, running, queued, limit)
	}
	limit := int64(clusters.get(in, "id", "cluster").Limits.MaxConcurrentRuns)
	if all := tallyOf(in, "", active); limit > 0 && all >= limit {
		return workspace.Errorf(workspace.CodeConcurrency,
			"the cluster has %d active runs, its limit for all workspaces together is %d: a cluster admin can raise it (berth cluster set --max-concurrent-runs)",
			all, limit)
	}
	return nil
}
