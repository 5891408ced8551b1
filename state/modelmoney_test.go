package state

import (
	"time"

	"pgregory.net/rapid"

	"berth/workspace"
)

// amounts that are odd, or at a bound.
var amounts = []int64{0, 1, 1_000_003, 2_500_000, 3_600_000, 10_000_001, 77_777_777, 500_000_000}

// prices sets or removes one. Most of the time everything has a price.
func (m *model) prices(t *rapid.T) {
	what := one(t, []workspace.Price{
		{Resource: priceGPU, GPUType: "a100"}, {Resource: priceGPU, GPUType: "A100-MIG"}, {Resource: priceGPU, GPUType: anyType},
		{Resource: priceGPU, GPUType: anyType, Node: "n2"}, {Resource: priceCPU}, {Resource: priceMemory, Node: "n1"}, {Resource: priceMemory},
		{Resource: priceCPU, Node: "n2"}, {Resource: "love"}, {Resource: priceGPU, GPUType: "a100", Node: "n9"},
	}, "price of")
	var cmd Command = &SetPrice{Resource: what.Resource, GPUType: what.GPUType, Node: what.Node,
		Amount: one(t, append(amounts, workspace.MaxRate, -1), "amount")}
	if upTo(t, 5, "remove") == 0 {
		cmd = &RemovePrice{Resource: what.Resource, GPUType: what.GPUType, Node: what.Node}
	}
	m.do(t, cmd, m.caller(t, workspace.RoleClusterAdmin))
}

// limits changes those of a workspace, one or a few in one command, or lifts them.
func (m *model) limits(t *rapid.T) {
	id := oneOf(t, m.workspaceIDs())
	switch upTo(t, 7, "how") {
	case 0, 1:
		m.lift(t, id)
		return
	case 2:
		m.squeeze(t)
		return
	}
	c := &UpdateWorkspace{ID: id}
	for range one(t, []int{1, 1, 1, 2, 4}, "changes") {
		m.limit(t, c)
	}
	if rarely(t, "if index") {
		c.IfIndex = m.index
	}
	m.do(t, c, m.caller(t, workspace.RoleClusterAdmin))
}

// lift ends the budgets of a workspace, at best of one where a run isn't given more
// time for them.
func (m *model) lift(t *rapid.T, id string) {
	node := one(t, nodeNames, "node")
	for x := range meters.each(m.view().txn, "id") {
		if x.Denied != "" && coin.Draw(t, "this") {
			id, node = x.Workspace, x.Node
		}
	}
	none := workspace.Optional[int64]{Set: true}
	m.do(t, &UpdateCluster{DailyBudget: none, KillSwitch: ptr(false)}, m.caller(t, workspace.RoleClusterAdmin))
	m.do(t, &UpdateWorkspace{ID: id, DailyBudget: none, UserDailyBudget: none, SpendingLimit: none}, m.caller(t, workspace.RoleClusterAdmin))
	m.now += within(t, 0, 60e6, "minute")
	m.beatOf(t, node)
}

// squeeze sets a budget that doesn't pay for long what runs now, if anything does,
// and comes to when a renewal is due.
func (m *model) squeeze(t *rapid.T) {
	var x *meter
	for y := range meters.each(m.view().txn, "id") {
		if y.Rate > 0 && y.Node != "" && (x == nil || coin.Draw(t, "this")) {
			x = y
		}
	}
	if x == nil {
		m.create(t)
		return
	}
	in, today := ledgers{m.view().txn}, workspace.DayOf(unixMicro(m.now+m.skew))
	c, all, by := &UpdateWorkspace{ID: x.Workspace}, &UpdateCluster{}, m.caller(t, workspace.RoleClusterAdmin)
	near := func(s sums) workspace.Optional[int64] {
		return some(min(workspace.MaxMoney-1, s.Spent+s.Reserved+within(t, 0, x.Rate/8, "more")))
	}
	switch upTo(t, 3, "budget") {
	case 0:
		c.DailyBudget = near(in.sumsOf(ofWorkspace, x.Workspace, "", today))
	case 1:
		c.UserDailyBudget = near(in.sumsOf(ofUser, x.Workspace, x.User, today))
	case 2:
		a := in.accountOf(x.Workspace)
		c.SpendingLimit = near(sums{Spent: a.Accrued, Reserved: a.Held})
	case 3:
		all.DailyBudget = near(in.sumsOf(ofCluster, "", "", today))
		m.do(t, all, by)
	}
	m.do(t, c, Caller{Principal: "root", Role: workspace.RoleClusterAdmin})
	for range upTo(t, 3, "renewals") {
		m.now += within(t, 0, 1800e6, "minutes")
		m.beatOf(t, x.Node)
	}
	if coin.Draw(t, "lift") {
		m.lift(t, x.Workspace)
	}
}

func (m *model) limit(t *rapid.T, c *UpdateWorkspace) {
	in, today := ledgers{m.view().txn}, workspace.DayOf(unixMicro(m.now+m.skew))
	switch upTo(t, 15, "limit") {
	case 0, 1, 2:
		s := in.sumsOf(ofWorkspace, c.ID, "", today)
		c.DailyBudget = m.budget(t, s.Spent+s.Reserved)
	case 3, 4:
		s := in.sumsOf(ofUser, c.ID, "alice", today)
		c.UserDailyBudget = m.budget(t, s.Spent+s.Reserved)
	case 5, 6, 7:
		a := in.accountOf(c.ID)
		c.SpendingLimit = m.budget(t, a.Accrued+a.Held)
	case 8:
		c.MonthlyRuns = workspace.Optional[int64]{Set: true}
		if rapid.Bool().Draw(t, "monthly") {
			c.MonthlyRuns.Value = ptr(within(t, -1, 30, "runs a month"))
		}
	case 9:
		c.Ceilings = workspace.Optional[workspace.Ceilings]{Set: true}
		if rapid.Bool().Draw(t, "ceilings") {
			c.Ceilings.Value = &workspace.Ceilings{DailyBudget: m.budget(t, 0).Value, UserDailyBudget: m.budget(t, 0).Value}
			if rapid.Bool().Draw(t, "ceiling of runs") {
				c.Ceilings.Value.MaxConcurrentRuns = ptr(upTo(t, 8, "most runs"))
			}
		}
	case 10:
		c.Plan = ptr(one(t, []workspace.Plan{workspace.PlanBasic, workspace.PlanPro, workspace.PlanScale, workspace.PlanScale,
			workspace.PlanEnterprise, "gold"}, "plan"))
	case 11:
		c.KillSwitch = ptr(upTo(t, 3, "kill") == 0)
	case 12:
		c.MakeDefault = true
	case 13:
		c.Retention = &workspace.Retention{Unit: "hours", Value: one(t, []int{1, 1, 24, 337}, "retention")}
	default:
		c.MaxConcurrentRuns = ptr(upTo(t, 12, "max"))
	}
}

// budget is none, any, or one near to what is spent and reserved.
func (m *model) budget(t *rapid.T, taken int64) workspace.Optional[int64] {
	switch upTo(t, 15, "budget") {
	case 0, 1, 2, 5, 6, 7:
		return workspace.Optional[int64]{Set: true}
	case 3:
		return some(one(t, []int64{0, 1, workspace.MaxMoney, -1}, "odd amount"))
	case 4:
		return some(taken + within(t, -2, 2, "near"))
	}
	return some(taken + one(t, amounts, "more"))
}

// fleet changes the whole cluster's limits.
func (m *model) fleet(t *rapid.T) {
	c := &UpdateCluster{}
	if m.view().Cluster().KillSwitch && coin.Draw(t, "off again") {
		m.do(t, &UpdateCluster{KillSwitch: ptr(false)}, m.caller(t, workspace.RoleClusterAdmin))
		return
	}
	switch upTo(t, 15, "limit") {
	case 0:
		c.KillSwitch = ptr(true)
	case 1, 2, 8, 9, 10:
		c.KillSwitch = ptr(false)
	case 3, 4:
		s := ledgers{m.view().txn}.sumsOf(ofCluster, "", "", workspace.DayOf(unixMicro(m.now+m.skew)))
		c.DailyBudget = m.budget(t, s.Spent+s.Reserved)
	case 5:
		c.MaxConcurrentRuns = ptr(one(t, []int{0, 0, 3, 8, -1}, "max"))
	case 6:
		c.Defaults = &workspace.WorkspaceDefaults{Plan: one(t, []workspace.Plan{"", workspace.PlanBasic, "gold"}, "plan"),
			DailyBudget: m.budget(t, 0).Value, UserDailyBudget: m.budget(t, 0).Value, MaxConcurrentRuns: upTo(t, 5, "runs")}
	default:
		c.Name, c.IfIndex = ptr("berth"), m.index
	}
	m.do(t, c, m.caller(t, workspace.RoleClusterAdmin))
}

// people blocks a user, or lets them again.
func (m *model) people(t *rapid.T) {
	m.do(t, &BlockUser{Workspace: oneOf(t, m.workspaceIDs()), User: one(t, []string{"root", "alice", "bob", "bob", "carol", ""}, "user"),
		Blocked: upTo(t, 5, "block") == 0}, m.caller(t, workspace.RoleClusterAdmin))
}

// external asks for an external run, renews or ends one.
func (m *model) external(t *rapid.T) {
	var live []string
	for r := range m.view().AllRuns() {
		if r.Kind == workspace.KindExternal && !r.Phase.Terminal() {
			live = append(live, r.ID)
		}
	}
	which := oneOf(t, live)
	if rarely(t, "any run") {
		which = oneOf(t, m.runIDs())
	}
	var cmd Command
	what := upTo(t, 5, "what")
	if len(live) == 0 && !rarely(t, "none") {
		what = 5
	}
	switch what {
	case 0, 1:
		cmd = &RenewExternal{Run: which}
	case 2:
		cmd = &EndExternal{Run: which, Phase: one(t, []workspace.Phase{workspace.PhaseSucceeded, workspace.PhaseFailed,
			workspace.PhaseStopped, workspace.PhaseLost}, "end")}
	default:
		cmd = &StartExternal{Run: m.newID(t, "r", m.runIDs()), Workspace: oneOf(t, m.workspaceIDs()),
			User: one(t, []string{"", "", "alice", "carol"}, "user"), Rate: one(t, append(amounts, -1), "rate"),
			Lease: one(t, []time.Duration{0, 0, 0, time.Second, time.Minute, 90 * time.Minute, 90 * time.Minute, 48 * time.Hour, 48 * time.Hour, 900 * time.Hour}, "lease")}
	}
	m.do(t, cmd, m.caller(t, workspace.RoleClusterAdmin))
}

// sweep lets time pass to what is due next, or doesn't.
func (m *model) sweep(t *rapid.T) {
	const soon = 3 * 24 * 3600e6
	if due := m.view().NextDue(); !due.IsZero() && rapid.Bool().Draw(t, "when due") {
		if wait := due.UnixMicro() - m.now - m.skew; wait > 0 && wait < soon {
			m.now += wait
		}
	}
	m.do(t, &Sweep{}, m.caller(t, workspace.RoleSystem))
}

// fold makes history forget, mostly what may be.
func (m *model) fold(t *rapid.T) {
	now := m.now + m.skew
	c := &FoldHistory{Before: now - within(t, 0, 3*24*3600e6, "older")}
	for r := range m.view().Foldable(unixMicro(now)) {
		if rapid.Bool().Draw(t, "this") {
			c.Runs = append(c.Runs, r.ID)
		}
	}
	if upTo(t, 3, "all") == 0 {
		c.Runs = m.runIDs()
	}
	m.do(t, c, m.caller(t, workspace.RoleSystem))
}
