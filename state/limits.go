package state

import (
	"cmp"

	"berth/workspace"
)

// limit changes what a workspace may use: gated by its plan, within the ceilings,
// and each by those who may (docs/domain.md, plans).
func (c *UpdateWorkspace) limit(t *tx, old, w *workspace.Workspace) error {
	if err := c.adminsOnly(t); err != nil {
		return err
	}
	if c.Plan != nil {
		c.changePlan(w)
	}
	for _, change := range []func(*tx, *workspace.Workspace, *workspace.Workspace) error{
		c.limitConcurrency, c.limitDays, c.limitLifetime, c.limitRest, c.throwSwitch,
	} {
		if err := change(t, old, w); err != nil {
			return err
		}
	}
	return nil
}

// adminsOnly: cluster admins alone set these.
func (c *UpdateWorkspace) adminsOnly(t *tx) error {
	if c.Plan == nil && !c.SpendingLimit.Set && !c.Ceilings.Set && !c.MonthlyRuns.Set {
		return nil
	}
	return t.needAdmin()
}

// changePlan takes effect at once: a downgrade clears what the plan doesn't have.
// It never releases a kill switch.
func (c *UpdateWorkspace) changePlan(w *workspace.Workspace) {
	w.Plan = *c.Plan
	if !w.Plan.Includes(workspace.PlanPro) {
		w.Limits.UserDailyBudget = nil
		w.Limits.MaxConcurrentRuns = min(w.Limits.MaxConcurrentRuns, workspace.BasicMaxConcurrentRuns)
	}
}

func (c *UpdateWorkspace) limitConcurrency(t *tx, _, w *workspace.Workspace) error {
	if c.MaxConcurrentRuns == nil {
		return nil
	}
	if !w.Plan.Includes(workspace.PlanPro) {
		return workspace.Errorf(workspace.CodeDenied, "max_concurrent_runs is fixed at %d on plan %s: it needs plan pro or higher",
			workspace.BasicMaxConcurrentRuns, w.Plan)
	}
	if most := w.Limits.Ceilings; t.bounded() && most != nil && most.MaxConcurrentRuns != nil && *c.MaxConcurrentRuns > *most.MaxConcurrentRuns {
		return workspace.Errorf(workspace.CodeDenied, "max_concurrent_runs: %d is above %d, the ceiling that a cluster admin has set",
			*c.MaxConcurrentRuns, *most.MaxConcurrentRuns)
	}
	w.Limits.MaxConcurrentRuns = *c.MaxConcurrentRuns
	return nil
}

// bounded: the caller may go up to the ceilings only.
func (t *tx) bounded() bool {
	return t.env.Role != workspace.RoleClusterAdmin && t.env.Role != workspace.RoleSystem
}

func (c *UpdateWorkspace) limitDays(t *tx, _, w *workspace.Workspace) error {
	var most workspace.Ceilings
	if w.Limits.Ceilings != nil && t.bounded() {
		most = *w.Limits.Ceilings
	}
	if b := c.DailyBudget; b.Set {
		if err := budgetWithin("daily_budget_micro_usd", b.Value, most.DailyBudget); err != nil {
			return err
		}
		w.Limits.DailyBudget = b.Value
	}
	b := c.UserDailyBudget
	if !b.Set {
		return nil
	}
	if b.Value != nil && !w.Plan.Includes(workspace.PlanPro) {
		return workspace.Errorf(workspace.CodeDenied, "user_daily_budget: plan %s doesn't have it, it needs plan pro or higher", w.Plan)
	}
	if err := budgetWithin("user_daily_budget_micro_usd", b.Value, most.UserDailyBudget); err != nil {
		return err
	}
	w.Limits.UserDailyBudget = b.Value
	return nil
}

// budgetWithin checks an amount (nil: unlimited) and its ceiling.
func budgetWithin(field string, amount, ceiling *int64) error {
	switch {
	case ceiling != nil && amount == nil:
		return workspace.Errorf(workspace.CodeDenied, "%s: unlimited is above %s, the ceiling that a cluster admin has set",
			field, workspace.FormatUSD(*ceiling))
	case ceiling != nil && *amount > *ceiling:
		return workspace.Errorf(workspace.CodeDenied, "%s: %s is above %s, the ceiling that a cluster admin has set",
			field, workspace.FormatUSD(*amount), workspace.FormatUSD(*ceiling))
	}
	return checkBudget(field, amount)
}

func checkBudget(field string, amount *int64) error {
	if amount == nil {
		return nil
	}
	return workspace.CheckMoney(field, *amount)
}

// limitLifetime sets or ends the spending limit. From none to one a new generation
// begins, with nothing accrued; another amount keeps what is accrued.
func (c *UpdateWorkspace) limitLifetime(t *tx, _, w *workspace.Workspace) error {
	b := c.SpendingLimit
	switch {
	case !b.Set:
		return nil
	case b.Value == nil || *b.Value == workspace.MaxMoney:
		w.Limits.Spending = nil
		return nil
	}
	if err := workspace.CheckMoney("spending_limit_micro_usd", *b.Value); err != nil {
		return err
	}
	a := t.account(w.ID)
	if w.Limits.Spending == nil {
		w.Generation++
		a.Generation, a.Accrued, a.Held = w.Generation, 0, 0
	} else if *b.Value < a.Accrued+a.Held {
		return workspace.InvalidField("spending_limit_micro_usd", "%s is less than the %s that are spent and the %s that running runs have reserved",
			workspace.FormatUSD(*b.Value), workspace.FormatUSD(a.Accrued), workspace.FormatUSD(a.Held))
	}
	w.Limits.Spending = &workspace.SpendingLimit{Amount: *b.Value, Generation: w.Generation}
	return nil
}

func (c *UpdateWorkspace) limitRest(_ *tx, _, w *workspace.Workspace) error {
	if c.MonthlyRuns.Set {
		if n := c.MonthlyRuns.Value; n != nil && *n < 0 {
			return workspace.InvalidField("monthly_run_limit", "%d is negative", *n)
		}
		w.Limits.MonthlyRuns = c.MonthlyRuns.Value
	}
	if c.Ceilings.Set {
		most := c.Ceilings.Value
		if most != nil {
			if err := cmp.Or(checkBudget("ceilings.daily_budget_micro_usd", most.DailyBudget),
				checkBudget("ceilings.user_daily_budget_micro_usd", most.UserDailyBudget)); err != nil {
				return err
			}
		}
		w.Limits.Ceilings = most
	}
	return nil
}

// throwSwitch: switching on needs the plan, switching off nothing.
func (c *UpdateWorkspace) throwSwitch(_ *tx, old, w *workspace.Workspace) error {
	if c.KillSwitch == nil {
		return nil
	}
	if *c.KillSwitch && !old.KillSwitch && !w.Plan.Includes(workspace.PlanScale) {
		return workspace.Errorf(workspace.CodeDenied, "kill_switch: plan %s doesn't have it, it needs plan scale or higher", w.Plan)
	}
	w.KillSwitch = *c.KillSwitch
	return nil
}

// stopAll sets every active run of a workspace to stop. What waits goes on
// waiting; nothing starts again by itself what was stopped.
func (t *tx) stopAll(ws, reason, message string) {
	for _, r := range collect(runs.each(t, "live", ws, active)) {
		if inst := instances.get(t, "id", r.Instance); inst != nil && inst.Run == r.ID && inst.Desired == workspace.DesiredRunning {
			t.stopInstance(inst, reason, message)
			continue
		}
		t.stopRun(r, reason, message)
	}
}

// switched tells that a kill switch was thrown.
func switched(t *tx, object, ws, what string, was, is bool) {
	if was == is {
		return
	}
	e := workspace.Event{Type: "kill_switch.off", Object: object, Workspace: ws,
		Message: "the kill switch of " + what + " is off: what was stopped stays stopped, what waits may start"}
	if is {
		e.Type, e.Message = "kill_switch.on", "the kill switch of "+what+" is on: active runs stop, nothing starts"
	}
	t.event(e)
}
