package state

import (
	"fmt"
	"time"

	"berth/workspace"
)

// WorkspaceUsage is what a workspace has used of each of its limits at a time;
// nil when there is no such workspace.
func (v View) WorkspaceUsage(id string, now time.Time) *workspace.WorkspaceUsage {
	w := v.Workspace(id)
	if w == nil {
		return nil
	}
	at := v.At()
	if now.After(at) {
		at = now.UTC()
	}
	in := ledgers{v.txn}
	a := in.accountOf(id)
	u := &workspace.WorkspaceUsage{Workspace: id, Slug: w.Slug, At: at, Spent: a.Spent, Reserved: a.Reserved,
		Concurrency: v.concurrencyUsage(w), MonthlyRuns: v.monthlyUsage(w, at), DeniedToday: v.deniedOn(id, workspace.DayOf(at)),
		Warnings: v.budgetWarnings(w)}
	switch {
	case v.Cluster().KillSwitch:
		u.KillSwitch = "cluster"
	case w.KillSwitch:
		u.KillSwitch = "workspace"
	}
	u.Budgets = v.budgetUsages(in, w, workspace.DayOf(at))
	return u
}

// budgetUsages are the workspace's daily budget, its spending limit, the
// cluster's daily budget, and what each user has used of theirs today.
func (v View) budgetUsages(in books, w *workspace.Workspace, day workspace.Day) []workspace.BudgetUsage {
	reset := (day + 1).Start()
	daily := func(kind string, of scope, ws, user string, limit *int64) workspace.BudgetUsage {
		s := in.sumsOf(of, ws, user, day)
		return workspace.BudgetUsage{Budget: kind, User: user, Day: day, Limit: limit, Spent: s.Spent, Reserved: s.Reserved,
			Left: left(limit, s.Spent+s.Reserved), ResetsAt: reset}
	}
	all := []workspace.BudgetUsage{daily(workspaceDaily, ofWorkspace, w.ID, "", w.Limits.DailyBudget)}
	for _, user := range v.usersOf(w.ID, day) {
		all = append(all, daily(userDaily, ofUser, w.ID, user, w.Limits.UserDailyBudget))
	}
	a := in.accountOf(w.ID)
	lifetime := workspace.BudgetUsage{Budget: lifetimeLimit, Spent: a.Accrued, Reserved: a.Held}
	if s := w.Limits.Spending; s != nil {
		lifetime.Generation, lifetime.Limit, lifetime.Left = s.Generation, &s.Amount, left(&s.Amount, a.Accrued+a.Held)
	} else {
		lifetime.Spent, lifetime.Reserved = a.Spent, a.Reserved
	}
	return append(all, lifetime, daily(clusterDaily, ofCluster, "", "", v.Cluster().Limits.DailyBudget))
}

// usersOf are those with money in a workspace on a day.
func (v View) usersOf(ws string, day workspace.Day) (users []string) {
	for s := range days.each(v.txn, "id", string(ofUser), ws) {
		if s.Day == day {
			users = append(users, s.User)
		}
	}
	return users
}

func left(limit *int64, taken int64) *int64 {
	if limit == nil {
		return nil
	}
	l := max(0, *limit-taken)
	return &l
}

func (v View) concurrencyUsage(w *workspace.Workspace) workspace.ConcurrencyUsage {
	u := workspace.ConcurrencyUsage{Limit: w.Limits.MaxConcurrentRuns, Waiting: int(tallyOf(v.txn, w.ID, waiting)),
		Holders: []workspace.ConcurrencyHolder{}}
	for r := range v.ActiveRuns(w.ID) {
		h := workspace.ConcurrencyHolder{Run: r.ID, Instance: r.Instance, Name: r.Name, User: r.User, Kind: r.Kind, Phase: r.Phase,
			Node: r.Node, Since: r.Times.Assigned, Rate: r.Rate}
		if inst := v.Instance(r.Instance); inst != nil {
			h.Name = inst.Name
		}
		if r.Kind == workspace.KindExternal {
			h.Since = r.Times.Running
		}
		if m := v.Metered(r.ID); m != nil && (m.Lease.Hard || r.Kind == workspace.KindExternal) {
			h.PaidUntil = m.Lease.PaidUntil
		}
		u.Holders = append(u.Holders, h)
	}
	u.Active = len(u.Holders)
	return u
}

func (v View) monthlyUsage(w *workspace.Workspace, at time.Time) workspace.MonthlyUsage {
	u := workspace.MonthlyUsage{Month: workspace.Month(at), ResetsAt: monthEnd(at)}
	u.Runs = monthlyRuns(v.txn, w.ID, u.Month)
	if limit, limited := monthlyLimit(w); limited {
		u.Limit = &limit
	}
	return u
}

func (v View) deniedOn(ws string, day workspace.Day) map[workspace.Code]int64 {
	all := map[workspace.Code]int64{}
	for d := range denials.each(v.txn, "id", ws, uint64(day)) { // #nosec G115 -- after 1970
		all[d.Code] = d.N
	}
	return all
}

// budgetWarnings say of budgets that bind nothing.
func (v View) budgetWarnings(w *workspace.Workspace) (warnings []string) {
	if len(payerOf(v.txn, w.ID, "").budgets) > 0 && !v.priced() {
		warnings = append(warnings, fmt.Sprintf(
			"budget_never_binds: workspace %s has a budget, but nothing has a price above 0, so that only external runs with a rate can reach it (berth price set)", w.Slug))
	}
	return warnings
}

func (v View) priced() bool {
	for p := range prices.each(v.txn, "id") {
		if p.Amount > 0 {
			return true
		}
	}
	return false
}

// WithSpending is a workspace as it is shown: with what its spending limit has
// accrued and reserved.
func (v View) WithSpending(w *workspace.Workspace) *workspace.Workspace {
	if w.Limits.Spending == nil {
		return w
	}
	n, s, a := *w, *w.Limits.Spending, ledgers{v.txn}.accountOf(w.ID)
	s.Accrued, s.Reserved = a.Accrued, a.Held
	n.Limits.Spending = &s
	return &n
}
