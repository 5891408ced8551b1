package state

import (
	"fmt"
	"time"

	"berth/workspace"
)

// budget is one limit on money that applies to a run.
type budget struct {
	kind  string // as in workspace.BudgetUsage
	code  workspace.Code
	limit int64 // micro-USD
	// Of a daily one:
	scope     scope
	workspace string
	user      string
	// Of the spending limit:
	lifetime bool
}

// The kinds of budgets.
const (
	workspaceDaily = "workspace_daily"
	userDaily      = "user_daily"
	lifetimeLimit  = "spending_limit"
	clusterDaily   = "cluster_daily"
)

// payer is a user in a workspace, with the budgets in force for it, in the order in
// which admission checks them.
type payer struct {
	workspace *workspace.Workspace
	user      string
	budgets   []budget
	day       workspace.Day
	days      [3]*sums // of day, that an entry has open; nil: none
}

func payerOf(in reader, ws, user string) *payer {
	w := workspaces.get(in, "id", ws)
	p := &payer{workspace: w, user: user, budgets: make([]budget, 0, 4)}
	add := func(b budget) { p.budgets = append(p.budgets, b) }
	if l := w.Limits.DailyBudget; l != nil {
		add(budget{kind: workspaceDaily, code: workspace.CodeWorkspaceBudget, limit: *l, scope: ofWorkspace, workspace: w.ID})
	}
	if l := w.Limits.UserDailyBudget; l != nil {
		add(budget{kind: userDaily, code: workspace.CodeUserBudget, limit: *l, scope: ofUser, workspace: w.ID, user: user})
	}
	if s := w.Limits.Spending; s != nil {
		add(budget{kind: lifetimeLimit, code: workspace.CodeSpendingLimit, limit: s.Amount, workspace: w.ID, lifetime: true})
	}
	if l := clusters.get(in, "id", "cluster").Limits.DailyBudget; l != nil {
		add(budget{kind: clusterDaily, code: workspace.CodeSpendingLimit, limit: *l, scope: ofCluster})
	}
	return p
}

// payers are kept by workspace and user, as long as the rows stay that they are of.
type payers map[[2]string]*payer

func (all payers) of(in reader, ws, user string) *payer {
	k := [2]string{ws, user}
	p := all[k]
	if p == nil {
		p = payerOf(in, ws, user)
		all[k] = p
	}
	return p
}

// sums are those of the payer's day, if it has what is asked for.
func (p *payer) sums(of scope, ws, user string) *sums {
	for _, s := range p.days {
		if s != nil && s.Scope == of && s.Workspace == ws && s.User == user {
			return s
		}
	}
	return nil
}

// generation of the spending limit in force; 0 without one.
func (p *payer) generation() uint64 {
	if s := p.workspace.Limits.Spending; s != nil {
		return s.Generation
	}
	return 0
}

// bound reports whether a run's money is under a budget now. A run that costs
// nothing is under none.
func (t *tx) bound(m *meter) bool {
	return m.Rate > 0 && len(t.payerOf(m.Workspace, m.User).budgets) > 0
}

// taken is what a budget has spent and reserved, on a day if it is a daily one.
func (b *budget) taken(in books, day workspace.Day) (spent, reserved int64) {
	if b.lifetime {
		a := in.accountOf(b.workspace)
		return a.Accrued, a.Held
	}
	s := in.sumsOf(b.scope, b.workspace, b.user, day)
	return s.Spent, s.Reserved
}

// reach is how far into a span a budget pays, in ms of the run's life.
func (b *budget) reach(in books, s span) int64 {
	for x := s.from; x < s.to; {
		day, end := s.segment(x)
		spent, reserved := b.taken(in, day)
		left := b.limit - spent - reserved
		if b.lifetime {
			left -= workspace.Cost(s.rate, x) - workspace.Cost(s.rate, s.from)
		}
		if left < 0 {
			return x
		}
		if y := workspace.AffordMS(s.rate, workspace.Cost(s.rate, x)+left); y < end {
			return max(x, y)
		}
		x = end
	}
	return s.to
}

// affordable is how far into a span all budgets pay, and the first of them that
// doesn't pay for as much as least.
func affordable(in books, budgets []budget, s span, least int64) (reach int64, short *budget) {
	reach = s.to
	if s.rate == 0 {
		return reach, nil
	}
	for i := range budgets {
		to := budgets[i].reach(in, s)
		reach = min(reach, to)
		if to < least && short == nil {
			short = &budgets[i]
		}
	}
	return reach, short
}

// reached: a budget that is spent or reserved whole. One of 0 always is.
func (b *budget) reached(in books, day workspace.Day) bool {
	spent, reserved := b.taken(in, day)
	return spent+reserved >= b.limit
}

// denial says that a budget can't pay: with its numbers, what was asked of it, and
// when it has more. rate 0: nothing is known of what the run would cost.
func (b *budget) denial(in books, w *workspace.Workspace, at time.Time, rate, least int64) *workspace.Error {
	day := workspace.DayOf(at)
	spent, reserved := b.taken(in, day)
	needs := ""
	if rate > 0 {
		needs = fmt.Sprintf("; at %s an hour it needs %s at least", workspace.FormatUSD(rate), workspace.FormatUSD(workspace.Cost(rate, least)))
	}
	return workspace.Errorf(b.code, "%s of %s: %s are spent and %s reserved for running runs%s: %s", b.title(w),
		workspace.FormatUSD(b.limit), workspace.FormatUSD(spent), workspace.FormatUSD(reserved), needs, b.remedy(w, day))
}

func (b *budget) title(w *workspace.Workspace) string {
	switch b.kind {
	case userDaily:
		return fmt.Sprintf("the daily budget of user %s in workspace %s", b.user, w.Slug)
	case lifetimeLimit:
		return "the spending limit of workspace " + w.Slug
	case clusterDaily:
		return "the daily budget of the whole cluster"
	}
	return "the daily budget of workspace " + w.Slug
}

func (b *budget) remedy(w *workspace.Workspace, day workspace.Day) string {
	resets := "it resets at " + (day + 1).Start().Format("2006-01-02 15:04 UTC")
	switch b.kind {
	case lifetimeLimit:
		return "it doesn't reset; a cluster admin can raise it (berth workspace set " + w.Slug + " --spending-limit)"
	case clusterDaily:
		return resets + "; a cluster admin can raise it (berth cluster set --daily-budget)"
	case userDaily:
		return resets + "; berth workspace set " + w.Slug + " --user-daily-budget raises it"
	}
	return resets + "; berth workspace set " + w.Slug + " --daily-budget raises it"
}
