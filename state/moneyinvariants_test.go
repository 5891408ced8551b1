package state

import (
	"fmt"

	"berth/workspace"
)

// audit works out all sums anew, from the ledger, the usage per day and the
// meters.
type audit struct {
	view     View
	days     map[string]sums    // by key
	accounts map[string]account // by workspace; Folded is what the ledger lacks
	rows     map[string]int64   // amounts in the ledger, by run
}

// moneyBalances: every sum is what the meters and the ledger say, at every index.
func moneyBalances(_, v View, _ Command) error {
	a := &audit{view: v, days: map[string]sums{}, accounts: map[string]account{}, rows: map[string]int64{}}
	for u := range usages.each(v.txn, "id") {
		a.spent(u.Workspace, u.User, u.Day, u.Spent)
		a.folded(u.Workspace, u.Spent)
	}
	for e := range ledger.each(v.txn, "day") {
		if !e.Final || e.Amount < 0 || e.MS <= 0 {
			return fmt.Errorf("I5: the ledger has the row %+v", e)
		}
		a.rows[e.Run] += e.Amount
		a.folded(e.Workspace, -e.Amount)
		a.accrued(e)
	}
	for m := range meters.each(v.txn, "id") {
		if err := a.meter(m); err != nil {
			return err
		}
	}
	for r := range v.AllRuns() {
		if r.Phase.Terminal() && (a.rows[r.ID] != r.Cost || r.Cost != workspace.Cost(r.Rate, r.ChargedMS)) {
			return fmt.Errorf("I5: run %s has cost %d for %d ms at %d an hour, its ledger rows come to %d", r.ID, r.Cost, r.ChargedMS, r.Rate, a.rows[r.ID])
		}
	}
	return a.compare()
}

func (a *audit) meter(m *meter) error {
	if err := meterHolds(a.view, m); err != nil {
		return err
	}
	if m.Row != (openRow{}) {
		e := m.entry()
		if ledger.get(a.view.txn, "id", m.Run, uint64(m.Row.Day), m.Row.Generation) != nil {
			return fmt.Errorf("I10: run %s has opened %s again, generation %d", m.Run, m.Row.Day, m.Row.Generation)
		}
		a.rows[m.Run] += e.Amount
		a.spent(m.Workspace, m.User, e.Day, e.Amount)
		a.accrued(e)
	}
	if got := m.cost(0, m.Charged); a.rows[m.Run] != got {
		return fmt.Errorf("I5: the ledger rows of run %s come to %d, %d ms at %d an hour cost %d", m.Run, a.rows[m.Run], m.Charged, m.Rate, got)
	}
	from := m.Charged
	for _, s := range m.Slices {
		a.reserved(m, s, m.cost(from, s.To))
		from = s.To
	}
	return nil
}

func dayKeys(ws, user string, day workspace.Day) []sums {
	return []sums{{Scope: ofCluster, Day: day}, {Scope: ofWorkspace, Workspace: ws, Day: day}, {Scope: ofUser, Workspace: ws, User: user, Day: day}}
}

func (a *audit) spent(ws, user string, day workspace.Day, amount int64) {
	for _, s := range dayKeys(ws, user, day) {
		k := string(s.key())
		s.Spent, s.Reserved = a.days[k].Spent+amount, a.days[k].Reserved
		a.days[k] = s
	}
	x := a.accounts[ws]
	x.Spent += amount
	a.accounts[ws] = x
}

func (a *audit) folded(ws string, amount int64) {
	x := a.accounts[ws]
	x.Folded += amount
	a.accounts[ws] = x
}

func (a *audit) accrued(e *workspace.LedgerEntry) {
	if g := a.view.Workspace(e.Workspace).Generation; e.Generation != 0 && e.Generation == g {
		x := a.accounts[e.Workspace]
		x.Accrued += e.Amount
		a.accounts[e.Workspace] = x
	}
}

func (a *audit) reserved(m *meter, s slice, amount int64) {
	for _, d := range dayKeys(m.Workspace, m.User, s.Day) {
		k := string(d.key())
		d.Spent, d.Reserved = a.days[k].Spent, a.days[k].Reserved+amount
		a.days[k] = d
	}
	x := a.accounts[m.Workspace]
	x.Reserved += amount
	if s.Generation != 0 && s.Generation == a.view.Workspace(m.Workspace).Generation {
		x.Held += amount
	}
	a.accounts[m.Workspace] = x
}

// compare holds the sums of the state against those worked out.
func (a *audit) compare() error {
	in := ledgers{a.view.txn}
	for _, want := range a.days {
		if got := in.sumsOf(want.Scope, want.Workspace, want.User, want.Day); got != want {
			return fmt.Errorf("I5: the books have %+v, the ledger and the meters say %+v", got, want)
		}
	}
	for s := range days.each(a.view.txn, "id") {
		if want := a.days[string(s.key())]; want.Spent != s.Spent || want.Reserved != s.Reserved {
			return fmt.Errorf("I5: the books have %+v, the ledger and the meters say %+v", s, want)
		}
	}
	for w := range a.view.Workspaces("") {
		got, want := in.accountOf(w.ID), a.accounts[w.ID]
		want.Workspace, want.Generation = w.ID, w.Generation
		if got.Folded > 0 {
			want.Accrued = got.Accrued // rows that history has forgotten don't tell their generation
		}
		if got != want {
			return fmt.Errorf("I5: the account is %+v, the ledger and the meters say %+v", got, want)
		}
	}
	return nil
}

func meterHolds(v View, m *meter) error {
	r := v.Run(m.Run)
	switch {
	case r == nil || !r.Phase.Active():
		return fmt.Errorf("I5: a meter is left of run %s, which is over", m.Run)
	case r.Rate != m.Rate || r.Workspace != m.Workspace || r.User != m.User:
		return fmt.Errorf("I5: the meter of run %s is another's: %+v", m.Run, m)
	case m.Charged > m.Granted:
		return fmt.Errorf("I5: run %s is charged for %d ms, %d are granted", m.Run, m.Charged, m.Granted)
	}
	last := m.Charged
	for i, s := range m.Slices {
		if s.To <= last || i > 0 && s.Day < m.Slices[i-1].Day || s.Day < m.Row.Day {
			return fmt.Errorf("I10: the slices of run %s go back: charged %d on %s, %+v", m.Run, m.Charged, m.Row.Day, m.Slices)
		}
		last = s.To
	}
	if last != m.Granted {
		return fmt.Errorf("I5: the slices of run %s end at %d, %d are granted", m.Run, last, m.Granted)
	}
	return nil
}

// metersComplete: each active run has a meter, and the tallies are the sizes of
// the sets.
func metersComplete(_, v View, _ Command) error {
	sizes := map[tally]int64{}
	for r := range v.AllRuns() {
		if r.Phase.Active() && meters.get(v.txn, "id", r.ID) == nil {
			return fmt.Errorf("I5: run %s is %s and has no meter", r.ID, r.Phase)
		}
		if g := groupIn(r); g != "" {
			sizes[tally{Workspace: r.Workspace, Group: g}]++
			sizes[tally{Group: g}]++
		}
	}
	for t := range tallies.each(v.txn, "id") {
		if n := sizes[tally{Workspace: t.Workspace, Group: t.Group}]; n != t.N {
			return fmt.Errorf("I3: the tally of %s runs of %q is %d, there are %d", t.Group, t.Workspace, t.N, n)
		}
		delete(sizes, tally{Workspace: t.Workspace, Group: t.Group})
	}
	for k, n := range sizes {
		return fmt.Errorf("I3: %d %s runs of %q have no tally", n, k.Group, k.Workspace)
	}
	return nil
}

// budgetsHold: no entry raises what is spent and reserved together above a budget
// that is in force after it.
func budgetsHold(before, after View, cmd Command) error {
	was, is := ledgers{before.txn}, ledgers{after.txn}
	check := func(what string, limit *int64, b, a int64) error {
		if limit != nil && a > b && a > *limit {
			return fmt.Errorf("I4: %T took %s from %d to %d, the budget is %d", cmd, what, b, a, *limit)
		}
		return nil
	}
	for s := range days.each(after.txn, "id") {
		old := was.sumsOf(s.Scope, s.Workspace, s.User, s.Day)
		limit := after.Cluster().Limits.DailyBudget
		if w := after.Workspace(s.Workspace); w != nil {
			limit = w.Limits.DailyBudget
			if s.Scope == ofUser {
				limit = w.Limits.UserDailyBudget
			}
		}
		if err := check(fmt.Sprintf("%s %s %s on %s", s.Scope, s.Workspace, s.User, s.Day), limit, old.Spent+old.Reserved, s.Spent+s.Reserved); err != nil {
			return err
		}
	}
	for w := range after.Workspaces("") {
		s := w.Limits.Spending
		old, a := was.accountOf(w.ID), is.accountOf(w.ID)
		if s == nil || old.Generation != a.Generation {
			continue
		}
		if err := check("the generation of "+w.ID, &s.Amount, old.Accrued+old.Held, a.Accrued+a.Held); err != nil {
			return err
		}
		if old.Accrued > a.Accrued {
			return fmt.Errorf("I5: what %s has accrued fell from %d to %d", w.ID, old.Accrued, a.Accrued)
		}
	}
	return nil
}

// leasesForward: a lease's end moves later only, within one boot, and only by
// another grant.
func leasesForward(before, after View, cmd Command) error {
	for m := range meters.each(after.txn, "id") {
		old := meters.get(before.txn, "id", m.Run)
		if old == nil || old == m {
			continue
		}
		was, is := old.Lease.End, m.Lease.End
		if is.BootID == was.BootID && is.BoottimeMS < was.BoottimeMS || is != was && m.Lease.Grant <= old.Lease.Grant {
			return fmt.Errorf("I2: %T moved the end of run %s's lease from %+v to %+v, grants %d and %d", cmd, m.Run, was, is, old.Lease.Grant, m.Lease.Grant)
		}
		if m.Charged < old.Charged || m.Granted < old.Granted && m.Granted < m.Charged {
			return fmt.Errorf("I5: %T took run %s back: charged %d, then %d ms", cmd, m.Run, old.Charged, m.Charged)
		}
	}
	return nil
}
