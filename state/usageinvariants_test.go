package state

import (
	"fmt"
	"maps"

	"berth/workspace"
)

// usageFollows: what a day's usage rises by is what the ledger's rows have risen
// by; rows that history forgets stay in it.
func usageFollows(before, after View, cmd Command) error {
	if unchanged(before, after, usages.name) && unchanged(before, after, ledger.name) {
		return nil
	}
	rise := map[usage]usage{}
	add := func(u usage, sign int64) {
		k := usage{Workspace: u.Workspace, Day: u.Day, User: u.User, Project: u.Project, GPUType: u.GPUType}
		sum := rise[k]
		sum.Spent += sign * u.Spent
		sum.MS += sign * u.MS
		sum.GPUMS += sign * u.GPUMS
		sum.Runs += sign * u.Runs
		rise[k] = sum
	}
	for old, u := range changes(before, after, usages) {
		if u == nil {
			return fmt.Errorf("I5: the usage %+v is gone", old)
		}
		add(*u, -1)
		if old != nil {
			add(*old, 1)
		}
	}
	_, folds := cmd.(*FoldHistory)
	for old, e := range changes(before, after, ledger) {
		if e == nil && folds {
			continue
		}
		if old != nil {
			add(usageOfRow(before, old), -1)
		}
		if e != nil {
			add(usageOfRow(after, e), 1)
		}
	}
	for k, n := range rise {
		if n != (usage{}) {
			return fmt.Errorf("I5: %T: the usage of %+v is off by %+v of what the ledger says", cmd, k, n)
		}
	}
	return nil
}

func usageOfRow(v View, e *workspace.LedgerEntry) usage {
	milli := int64(0)
	for _, a := range v.Run(e.Run).Devices {
		milli += int64(a.Milli)
	}
	return usage{Workspace: e.Workspace, Day: e.Day, User: e.User, Project: e.Project, GPUType: e.GPUType,
		Spent: e.Amount, MS: e.MS, GPUMS: gpuMS(e.MS, milli), Runs: 1}
}

// ledgerForward: rows only rise, those of a run that is over not even that, and
// they go with history alone. A run's row never goes back to an earlier day.
func ledgerForward(before, after View, cmd Command) error {
	_, folds := cmd.(*FoldHistory)
	for old, e := range changes(before, after, ledger) {
		switch {
		case old == nil:
			if r := before.Run(e.Run); r == nil || r.Phase.Terminal() {
				return fmt.Errorf("I5: %T gave run %s, which is over, the row %+v", cmd, e.Run, e)
			}
		case e == nil:
			m := meters.get(after.txn, "id", old.Run)
			reopened := m != nil && m.Row.Day == old.Day && m.Row.Generation == old.Generation && m.Row.Amount >= old.Amount && m.Row.MS >= old.MS
			if !reopened && (!folds || after.Run(old.Run) != nil || !before.Run(old.Run).Phase.Terminal()) {
				return fmt.Errorf("I5: %T took the row %+v", cmd, old)
			}
		case before.Run(e.Run).Phase.Terminal() || e.Amount < old.Amount || e.MS < old.MS || e.ChargedThrough < old.ChargedThrough:
			return fmt.Errorf("I5: %T changed the row %+v to %+v", cmd, old, e)
		}
	}
	for old, m := range changes(before, after, meters) {
		if old == nil || m == nil {
			continue
		}
		switch was, is := old.Row, m.Row; {
		case is.Day < was.Day:
			return fmt.Errorf("I10: run %s goes on on %s after %s", m.Run, is.Day, was.Day)
		case is.Day == was.Day && is.Generation == was.Generation && (is.Amount < was.Amount || is.MS < was.MS):
			return fmt.Errorf("I5: the row of run %s fell from %+v to %+v", m.Run, was, is)
		case is.Generation != 0 && is.Generation < was.Generation:
			return fmt.Errorf("I5: run %s goes on in generation %d after %d", m.Run, is.Generation, was.Generation)
		}
	}
	return nil
}

// usageTotals: by whatever it is told apart, usage comes to what all accounts have
// spent, and what is shown of a workspace is what the books say.
func usageTotals(_, v View, _ Command) error {
	if v.Cluster() == nil || v.Index()%checkedWhole != 0 && v.Index() > checkedWhole {
		return nil
	}
	in, all := ledgers{v.txn}, int64(0)
	for w := range v.Workspaces("") {
		a := in.accountOf(w.ID)
		all += a.Spent
		if rows := v.Usage(workspace.UsageQuery{Workspace: w.ID}); len(rows) > 1 || spentIn(rows) != a.Spent {
			return fmt.Errorf("I5: the usage of %s is %+v, its account has spent %d", w.ID, rows, a.Spent)
		}
		if err := shownHolds(v, w); err != nil {
			return err
		}
	}
	ways := [][]string{nil, workspace.UsageDimensions}
	for i := range workspace.UsageDimensions {
		ways = append(ways, workspace.UsageDimensions[i:i+1])
	}
	for _, by := range ways {
		if rows := v.Usage(workspace.UsageQuery{By: by}); spentIn(rows) != all {
			return fmt.Errorf("I5: usage by %v comes to %d, all accounts have spent %d", by, spentIn(rows), all)
		}
	}
	for _, r := range v.Usage(workspace.UsageQuery{By: []string{"workspace", "day"}}) {
		if s := in.sumsOf(ofWorkspace, r.Workspace, "", *r.Day); s.Spent != r.Spent {
			return fmt.Errorf("I5: the usage of %s on %s is %d, the books have %+v", r.Workspace, *r.Day, r.Spent, s)
		}
		if one := spentIn(v.Usage(workspace.UsageQuery{Workspace: r.Workspace, Since: *r.Day, Until: *r.Day})); one != r.Spent {
			return fmt.Errorf("I5: the usage of %s on %s is %d by days, %d of that day", r.Workspace, *r.Day, r.Spent, one)
		}
	}
	rows := int64(0)
	for e := range v.Ledger("", 0, 0) {
		rows += e.Amount
	}
	for a := range accounts.each(v.txn, "id") {
		rows += a.Folded
	}
	if rows != all {
		return fmt.Errorf("I5: the ledger and what history has folded come to %d, all accounts have spent %d", rows, all)
	}
	return nil
}

func spentIn(rows []workspace.UsageRow) (n int64) {
	for _, r := range rows {
		n += r.Spent
	}
	return n
}

// shownHolds: WorkspaceUsage is worked out anew from the rows.
func shownHolds(v View, w *workspace.Workspace) error {
	u, in := v.WorkspaceUsage(w.ID, v.At()), ledgers{v.txn}
	a, day := in.accountOf(w.ID), workspace.DayOf(v.At())
	waits, running, counted := 0, map[string]int64{}, int64(0)
	for r := range v.Runs(w.ID, "") {
		if r.Phase == workspace.PhasePending && r.Kind == workspace.KindInteractive {
			waits++
		}
		if r.Phase.Active() {
			running[r.ID] = r.Rate
		}
		if r.Month == u.MonthlyRuns.Month {
			counted++
		}
	}
	holders := map[string]int64{}
	for _, h := range u.Concurrency.Holders {
		holders[h.Run] = h.Rate
	}
	if u.Spent != a.Spent || u.Reserved != a.Reserved || u.Concurrency.Waiting != waits || u.Concurrency.Active != len(running) ||
		u.Concurrency.Limit != w.Limits.MaxConcurrentRuns || !maps.Equal(holders, running) || u.MonthlyRuns.Runs < counted {
		return fmt.Errorf("usage of %s shows %+v; account %+v, %d wait, %v run, %d count", w.ID, u, a, waits, running, counted)
	}
	for _, b := range u.Budgets {
		var want sums
		switch b.Budget {
		case workspaceDaily:
			want = in.sumsOf(ofWorkspace, w.ID, "", day)
		case userDaily:
			want = in.sumsOf(ofUser, w.ID, b.User, day)
		case clusterDaily:
			want = in.sumsOf(ofCluster, "", "", day)
		case lifetimeLimit:
			want.Spent, want.Reserved = a.Spent, a.Reserved
			if w.Limits.Spending != nil {
				want.Spent, want.Reserved = a.Accrued, a.Held
			}
		}
		if b.Spent != want.Spent || b.Reserved != want.Reserved || b.Limit != nil && *b.Left != max(0, *b.Limit-b.Spent-b.Reserved) {
			return fmt.Errorf("usage of %s shows %+v, the books have %+v", w.ID, b, want)
		}
	}
	return nil
}
