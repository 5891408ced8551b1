package state

import (
	"fmt"
	"time"

	"berth/workspace"
)

// plansHold: a workspace has only what its plan has, and what it gains by an entry
// is its plan's (docs/domain.md, plans).
func plansHold(before, after View, cmd Command) error {
	for old, w := range changes(before, after, workspaces) {
		l := w.Limits
		switch was := old; {
		case w.Plan == workspace.PlanBasic && l.UserDailyBudget != nil:
			return fmt.Errorf("plan: workspace %s has a daily budget for users on plan basic", w.ID)
		case w.Plan == workspace.PlanBasic && l.MaxConcurrentRuns > workspace.BasicMaxConcurrentRuns:
			return fmt.Errorf("plan: workspace %s may have %d active runs on plan basic", w.ID, l.MaxConcurrentRuns)
		case l.MaxConcurrentRuns < 1 || below0(l.DailyBudget) || below0(l.UserDailyBudget) || below0(l.MonthlyRuns):
			return fmt.Errorf("plan: workspace %s has limits below what makes sense: %+v", w.ID, l)
		case was == nil:
		case w.Plan == workspace.PlanBasic && was.Plan == w.Plan && l.MaxConcurrentRuns != was.Limits.MaxConcurrentRuns:
			return fmt.Errorf("plan: %T changed max_concurrent_runs of %s on plan basic", cmd, w.ID)
		case w.KillSwitch && !was.KillSwitch && !w.Plan.Includes(workspace.PlanScale):
			return fmt.Errorf("plan: the kill switch of %s was switched on on plan %s", w.ID, w.Plan)
		case was.KillSwitch && !w.KillSwitch && !switchesOff(cmd):
			return fmt.Errorf("plan: %T released the kill switch of %s", cmd, w.ID)
		case was.Archived() && (!w.Archived() || w.IsDefault), !was.DeletedAt.IsZero() && w.DeletedAt.IsZero():
			return fmt.Errorf("workspace %s is back: %+v", w.ID, w)
		case w.Slug != was.Slug || w.Generation < was.Generation:
			return fmt.Errorf("workspace %s became another: %+v, %+v", w.ID, was, w)
		}
		if s := l.Spending; s != nil && (s.Generation != w.Generation || s.Amount >= workspace.MaxMoney || s.Amount < 0) {
			return fmt.Errorf("the spending limit of %s is %+v, its generation %d", w.ID, s, w.Generation)
		}
		if err := spendingHolds(before, after, old, w); err != nil {
			return err
		}
	}
	return nil
}

func below0(n *int64) bool { return n != nil && *n < 0 }

func switchesOff(cmd Command) bool {
	c, ok := cmd.(*UpdateWorkspace)
	return ok && c.KillSwitch != nil && !*c.KillSwitch
}

// spendingHolds: from none to a spending limit a generation begins with nothing
// accrued; another amount keeps what is accrued and is not below it.
func spendingHolds(before, after View, old, w *workspace.Workspace) error {
	if old == nil || w.Limits.Spending == nil {
		return nil
	}
	a, was := ledgers{after.txn}.accountOf(w.ID), ledgers{before.txn}.accountOf(w.ID)
	switch {
	case old.Limits.Spending == nil && (w.Generation != old.Generation+1 || a.Accrued != 0 || a.Held != 0):
		return fmt.Errorf("generation %d of the spending limit of %s began with %+v, after %d", w.Generation, w.ID, a, old.Generation)
	case old.Limits.Spending == nil:
	case w.Generation != old.Generation:
		return fmt.Errorf("another amount began generation %d of the spending limit of %s", w.Generation, w.ID)
	case w.Limits.Spending.Amount != old.Limits.Spending.Amount && w.Limits.Spending.Amount < was.Accrued+was.Held:
		return fmt.Errorf("the spending limit of %s became %d, below the %d accrued and %d reserved", w.ID, w.Limits.Spending.Amount, was.Accrued, was.Held)
	}
	return nil
}

// admissionHolds: what an entry placed, admission lets in (docs/domain.md).
func admissionHolds(before, after View, cmd Command) error {
	placed := 0
	for old, r := range changes(before, after, runs) {
		if r == nil || !r.Phase.Active() || old != nil && old.Phase.Active() {
			continue
		}
		placed++
		w := after.Workspace(r.Workspace)
		member := after.Member(r.Workspace, r.User)
		switch {
		case w.Archived():
			return fmt.Errorf("admission: %T placed run %s in an archived workspace", cmd, r.ID)
		case after.Cluster().KillSwitch || w.KillSwitch:
			return fmt.Errorf("admission: %T placed run %s under a kill switch", cmd, r.ID)
		case member != nil && member.Blocked:
			return fmt.Errorf("admission: %T placed run %s of a blocked user", cmd, r.ID)
		}
		if err := budgetsLetIn(before, after, r, cmd); err != nil {
			return err
		}
	}
	if placed == 0 {
		return nil
	}
	was, is := 0, 0
	for w := range after.Workspaces("") {
		was, is = was+size(before.ActiveRuns(w.ID)), is+size(after.ActiveRuns(w.ID))
	}
	if limit := after.Cluster().Limits.MaxConcurrentRuns; limit > 0 && is > was && is > limit {
		return fmt.Errorf("I3: the cluster went from %d to %d active runs, its limit is %d", was, is, limit)
	}
	return nil
}

// budgetsLetIn: none was reached, and all pay for the shortest grant of something
// that has a price.
func budgetsLetIn(before, after View, r *workspace.Run, cmd Command) error {
	all := payerOf(after.txn, r.Workspace, r.User).budgets
	for _, b := range all {
		if b.reached(ledgers{before.txn}, workspace.DayOf(after.At())) {
			return fmt.Errorf("I4: %T placed run %s though %s is reached", cmd, r.ID, b.kind)
		}
	}
	for _, a := range r.Devices {
		if _, priced := gpuPrice(after.txn, after.Device(a.UUID)); !priced && len(all) > 0 {
			return fmt.Errorf("admission: %T placed run %s on %s, which has no price, under a budget", cmd, r.ID, a.UUID)
		}
	}
	m := meters.get(after.txn, "id", r.ID)
	if m.Granted < m.shortest() {
		return fmt.Errorf("admission: %T placed run %s with %d ms granted, the shortest is %d", cmd, r.ID, m.Granted, m.shortest())
	}
	return nil
}

func size[T any](seq func(func(*T) bool)) (n int) {
	for range seq {
		n++
	}
	return n
}

// monthsHold: a month's count is how many runs have that month, and no entry
// raises it above the limit in force.
func monthsHold(before, after View, cmd Command) error {
	rise := map[month]int64{}
	for old, r := range changes(before, after, runs) {
		if old != nil && r == nil {
			continue // history has forgotten the run, not that it counts
		}
		if old != nil && old.Month != 0 && old.Month != r.Month {
			return fmt.Errorf("month: run %s counts for %d, and did for %d", r.ID, r.Month, old.Month)
		}
		if r.Month != 0 && (old == nil || old.Month == 0) {
			rise[month{Workspace: r.Workspace, Month: r.Month}]++
			if r.Month != workspace.Month(after.At()) || !r.Counted {
				return fmt.Errorf("month: run %s was counted for %d at %s", r.ID, r.Month, after.At())
			}
		}
		if r.Phase.Active() && !r.Counted {
			return fmt.Errorf("month: run %s is %s and doesn't count", r.ID, r.Phase)
		}
	}
	for old, m := range changes(before, after, months) {
		was := int64(0)
		if old != nil {
			was = old.Runs
		}
		k := month{Workspace: m.Workspace, Month: m.Month}
		if m.Runs-was != rise[k] {
			return fmt.Errorf("month: %s went from %d to %d runs in %d, there are %d more", m.Workspace, was, m.Runs, m.Month, rise[k])
		}
		delete(rise, k)
		w := after.Workspace(m.Workspace)
		limit, limited := w.Plan.MonthlyRuns()
		if own := w.Limits.MonthlyRuns; own != nil && (!limited || *own < limit) {
			limit, limited = *own, true
		}
		if limited && m.Runs > was && m.Runs > limit {
			return fmt.Errorf("month: %T took %s to %d runs in %d, the limit is %d", cmd, m.Workspace, m.Runs, m.Month, limit)
		}
	}
	for k, n := range rise {
		return fmt.Errorf("month: %d runs of %s aren't counted for %d", n, k.Workspace, k.Month)
	}
	return nil
}

// killSwitchStops: the entry that switches one on leaves nothing wanted that is
// active, and what it stops isn't started again by itself.
func killSwitchStops(before, after View, cmd Command) error {
	if unchanged(before, after, workspaces.name) && unchanged(before, after, clusters.name) || before.Cluster() == nil {
		return nil
	}
	on := after.Cluster().KillSwitch && !before.Cluster().KillSwitch
	for w := range after.Workspaces("") {
		old := before.Workspace(w.ID)
		if old == nil || !on && (!w.KillSwitch || old.KillSwitch) && (!w.Archived() || old.Archived()) {
			continue
		}
		for r := range after.ActiveRuns(w.ID) {
			i := after.Instance(r.Instance)
			if r.Desired != workspace.RunStopping || i != nil && (i.NextRun != "" || i.Desired == workspace.DesiredRunning) {
				return fmt.Errorf("I6: after %T run %s of workspace %s is %s and wanted %s", cmd, r.ID, w.ID, r.Phase, r.Desired)
			}
		}
	}
	return nil
}

// sweepDone: after a sweep nothing is due.
func sweepDone(after View, cmd Command, res Result) error {
	_, swept := cmd.(*Sweep)
	if due := after.NextDue(); swept && res.Err == nil && !res.Replay && !due.IsZero() && !due.After(after.At()) {
		return fmt.Errorf("sweep: at %s it left what was due at %s", after.At(), due)
	}
	return nil
}

// waitsBounded: an interactive run that a limit keeps from being placed is given up
// an hour after that began; nothing else that waits or runs here has an end by time.
func waitsBounded(before, after View, cmd Command) error {
	c, _ := cmd.(*PlaceRuns)
	for old, r := range changes(before, after, runs) {
		if r == nil || r.Kind == workspace.KindExternal {
			continue
		}
		limited := func(x *workspace.Run) bool {
			return x.Phase == workspace.PhasePending && x.Kind == workspace.KindInteractive && workspace.Code(x.Reason).Admission()
		}
		if limited(r) == r.ExpiresAt.IsZero() {
			return fmt.Errorf("start_timeout: run %s is %s (%s) and ends at %s", r.ID, r.Phase, r.Reason, r.ExpiresAt)
		}
		began := after.At()
		if old != nil && limited(old) {
			began = old.ExpiresAt.Add(-workspace.StartTimeout)
		}
		if limited(r) && !r.ExpiresAt.Equal(began.Add(workspace.StartTimeout)) && !twice(c, r.ID) {
			return fmt.Errorf("start_timeout: run %s is kept by %s since %s and ends at %s", r.ID, r.Reason, began, r.ExpiresAt)
		}
	}
	return nil
}

// twice: a batch has a run more than once, so that it may wait for something else
// in between.
func twice(c *PlaceRuns, run string) bool {
	n := 0
	for i := 0; c != nil && i < len(c.Placements); i++ {
		if c.Placements[i].Run == run {
			n++
		}
	}
	return n > 1
}

// timesKept: nothing that time does comes before its time.
func timesKept(before, after View, cmd Command) error {
	_, swept := cmd.(*Sweep)
	report, _ := cmd.(*Report)
	for old, r := range changes(before, after, runs) {
		if old == nil || r == nil {
			continue
		}
		switch {
		case r.Reason == "start_timeout" && !old.Phase.Terminal() && old.ExpiresAt.After(after.At()):
			return fmt.Errorf("sweep: run %s was given up at %s, its time was %s", r.ID, after.At(), old.ExpiresAt)
		case r.Kind == workspace.KindExternal && r.Phase == workspace.PhaseLost && old.Phase != r.Phase && old.ExpiresAt.After(after.At()):
			return fmt.Errorf("sweep: external run %s was lost at %s, its time was %s", r.ID, after.At(), old.ExpiresAt)
		case r.Results == workspace.ResultsDeleting && old.Results == workspace.ResultsKept && old.ResultsUntil.After(after.At()):
			return fmt.Errorf("retention: the results of %s went at %s, their time was %s", r.ID, after.At(), old.ResultsUntil)
		case r.Results == workspace.ResultsDeleted && old.Results != r.Results && (old.Results != workspace.ResultsDeleting || report == nil || report.Node != r.Node):
			return fmt.Errorf("retention: the results of %s went without an order", r.ID)
		case swept && old.Phase == workspace.PhasePending && r.Phase.Terminal() && r.Reason != "start_timeout" && r.Reason != "deleted":
			return fmt.Errorf("sweep: run %s waited and is %s (%s)", r.ID, r.Phase, r.Reason)
		case r.Phase.Terminal() && r.Warning != nil:
			return fmt.Errorf("run %s is %s and warned: %+v", r.ID, r.Phase, r.Warning)
		case r.Node == "" && r.Results != "":
			return fmt.Errorf("retention: run %s was nowhere and has results: %s", r.ID, r.Results)
		case r.Phase.Terminal() && !old.Phase.Terminal() && r.Node != "":
			if kept := r.ResultsUntil.Sub(after.At()); kept != time.Duration(r.Spec.RetentionHours)*time.Hour {
				return fmt.Errorf("retention: the results of %s are kept for %s, not for %d h", r.ID, kept, r.Spec.RetentionHours)
			}
		}
	}
	for i, now := range changes(before, after, instances) {
		deleted := i != nil && i.Desired != workspace.DesiredDeleted && (now == nil || now.Desired == workspace.DesiredDeleted)
		if swept && deleted && (i.ToBeDeletedAt.IsZero() || i.ToBeDeletedAt.After(after.At())) {
			return fmt.Errorf("sweep: instance %s was deleted at %s, its time is %s", i.ID, after.At(), i.ToBeDeletedAt)
		}
	}
	return nil
}

// externalsHold: an external run has what it was promised, and no node.
func externalsHold(before, after View, _ Command) error {
	for _, r := range changes(before, after, runs) {
		if r == nil || r.Kind != workspace.KindExternal {
			continue
		}
		m := meters.get(after.txn, "id", r.ID)
		switch {
		case r.Rate < 0 || r.Rate > workspace.MaxRate || m != nil && (m.FailoverMS < 60_000 || m.FailoverMS > 30*24*3600_000):
			return fmt.Errorf("external run %s has rate %d, promised for %d ms", r.ID, r.Rate, m.FailoverMS)
		case r.Node != "" || len(r.Devices) > 0 || r.Instance != "":
			return fmt.Errorf("external run %s is on node %q, of instance %q", r.ID, r.Node, r.Instance)
		case r.Phase.Active() && (m == nil || !r.ExpiresAt.Equal(m.Lease.PaidUntil) || m.Lease.End.BootID != ""):
			return fmt.Errorf("external run %s ends at %s, its meter is %+v", r.ID, r.ExpiresAt, m)
		case r.Phase == workspace.PhaseFailed && workspace.Code(r.Reason).Admission() && (r.Cost != 0 || r.Counted || r.ExpiresAt.IsZero()):
			return fmt.Errorf("external run %s was denied and counts: %+v", r.ID, r)
		}
	}
	return nil
}
