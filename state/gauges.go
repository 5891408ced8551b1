package state

import (
	"time"

	"berth/workspace"
)

// What metrics show of limits, money and leases. It is read from the tables at each
// scrape, so that it can't drift from them.

// BudgetGauge is a budget in force, in micro-USD.
type BudgetGauge struct {
	Budget                 string // its kind, as in workspace.BudgetUsage
	Limit, Spent, Reserved int64
}

// MoneyGauges are a workspace's money and limits at a time. Money is micro-USD.
type MoneyGauges struct {
	Spent, Reserved int64                    // Spent: ever, which never falls
	Budgets         []BudgetGauge            // those in force, but for users' and the cluster's
	UserBudget      bool                     // a daily budget for each user is in force
	UsersReached    int                      // who have used theirs up today, of those who have spent or reserved anything
	MonthRuns       int64                    // first placed this month
	Denials         map[workspace.Code]int64 // by admission; never fall as long as history keeps them
}

// MoneyGauges of a workspace. Daily ones are those of now, or of the last entry if
// that is later.
func (v View) MoneyGauges(w *workspace.Workspace, now time.Time) MoneyGauges {
	in, at := ledgers{v.txn}, v.notBefore(now)
	day, a := workspace.DayOf(at), in.accountOf(w.ID)
	g := MoneyGauges{Spent: a.Spent, Reserved: a.Reserved, MonthRuns: monthlyRuns(v.txn, w.ID, workspace.Month(at))}
	budgets := payerOf(v.txn, w.ID, "").budgets
	for i := range budgets {
		switch b := &budgets[i]; b.kind {
		case userDaily:
			g.UserBudget, g.UsersReached = true, usersReached(v.txn, w.ID, day, b.limit)
		case workspaceDaily, lifetimeLimit:
			g.Budgets = append(g.Budgets, b.gauge(in, day))
		}
	}
	for d := range denials.each(v.txn, "id", w.ID) {
		if g.Denials == nil {
			g.Denials = map[workspace.Code]int64{}
		}
		g.Denials[d.Code] += d.N
	}
	return g
}

// ClusterBudget is the daily budget of all workspaces together; nil where none is
// set.
func (v View) ClusterBudget(now time.Time) *BudgetGauge {
	c := v.Cluster()
	if c == nil || c.Limits.DailyBudget == nil {
		return nil
	}
	b := budget{kind: clusterDaily, limit: *c.Limits.DailyBudget, scope: ofCluster}
	g := b.gauge(ledgers{v.txn}, workspace.DayOf(v.notBefore(now)))
	return &g
}

func (b *budget) gauge(in books, day workspace.Day) BudgetGauge {
	g := BudgetGauge{Budget: b.kind, Limit: b.limit}
	g.Spent, g.Reserved = b.taken(in, day)
	return g
}

// notBefore is now, or the time of the last entry if that is later.
func (v View) notBefore(now time.Time) time.Time {
	if at := v.At(); at.After(now) {
		return at
	}
	return now
}

// usersReached goes from user to user, not through the days of each: those are more
// every day.
func usersReached(in reader, ws string, day workspace.Day, limit int64) (n int) {
	for user := ""; ; {
		s := first(days.from(in, "id", string(ofUser), ws, user, uint64(day))) // #nosec G115 -- after 1970
		switch {
		case s == nil || s.Scope != ofUser || s.Workspace != ws:
			return n
		case s.User != user:
			user = s.User // whose day is looked up next
		default:
			if s.Day == day && s.Spent+s.Reserved >= limit {
				n++
			}
			user += "\x01" // after all days of this one
		}
	}
}

// LeaseGauges are the grants of live runs at a time.
type LeaseGauges struct {
	Hard, Soft int // deadlines, and grants that are none
	// Overdue are the hard ones of runs on nodes that are more than half used. A
	// renewal comes at a quarter (docs/domain.md), so these aren't renewed.
	Overdue  int
	Left     time.Duration  // of the overdue one that ends first
	Warnings map[string]int // on live runs, by reason
}

// LeaseGauges by the UTC ends of the grants, which are for display.
func (v View) LeaseGauges(now time.Time) (g LeaseGauges) {
	now = v.notBefore(now)
	for m := range meters.each(v.txn, "id") {
		if w := runs.get(v.txn, "id", m.Run).Warning; w != nil {
			if g.Warnings == nil {
				g.Warnings = map[string]int{}
			}
			g.Warnings[w.Reason]++
		}
		if !m.Lease.Hard {
			g.Soft++
			continue
		}
		g.Hard++
		left := m.Lease.PaidUntil.Sub(now)
		if m.Node == "" || 2*left.Milliseconds() >= m.Lease.GrantedMS {
			continue
		}
		if g.Overdue == 0 || left < g.Left {
			g.Left = left
		}
		g.Overdue++
	}
	return g
}
