package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/state"
	"berth/workspace"
)

// Money is USD here, and nowhere else a float.
var (
	budgetLimit = gauge("budget_limit_usd", "Budget, absent where none is set; told by the leader.", "workspace", "budget")
	budgetSpent = gauge("budget_spent_usd", "Spent of the budget; told by the leader.", "workspace", "budget")
	budgetHeld  = gauge("budget_reserved_usd", "Reserved of the budget for live runs; told by the leader.", "workspace", "budget")
	usersOut    = gauge("budget_users_reached", "Users who have used up their daily budget, absent where none is set; told by the leader.", "workspace")
	spentEver   = counter("workspace_spent_usd_total", "Spent in the workspace ever, absent before anything is reserved; told by the leader.", "workspace")
	reservedNow = gauge("workspace_reserved_usd", "Reserved for the workspace's live runs, absent before anything is; told by the leader.", "workspace")
	monthRuns   = gauge("runs_month", "Runs that count for the workspace's monthly limit, absent while there is none; told by the leader.", "workspace")
	denialCount = counter("admission_denials_total", "Starts that admission has refused or put off, by the rule that failed; told by the leader.", "workspace", "code")
	killSwitch  = gauge("kill_switch", "Whether the kill switch is on: 1 or 0; a workspace's is absent while off; told by the leader.", "scope", "workspace")

	leased       = gauge("runs_leased", "Live runs with a grant, by whether they end with it; told by the leader.", "hard")
	leaseOverdue = gauge("leases_overdue", "Leases on nodes that are deadlines and more than half used, renewal being at a quarter; told by the leader.")
	leaseLeft    = gauge("lease_min_remaining_seconds", "Time left of the overdue lease that ends first, absent while none is; told by the leader.")
	warned       = gauge("run_warnings", "Live runs with a warning of their end, by its reason; told by the leader.", "reason")

	historyKeep   = gauge("history_keep_seconds", "How long the cluster keeps ended runs; told by the leader.")
	historyOldest = gauge("history_oldest_run_timestamp_seconds", "When the run ended that history forgets next, 0 when there is none; told by the leader.")
	historyFailed = gauge("history_failed", "Whether the last export of ended runs failed, so that they are kept: 1 or 0; told by the leader.")
)

const microUSD = 1e6

func usd(micro int64) float64 { return float64(micro) / microUSD }

// moneyCollector computes limits, money and leases from the state; the leader tells
// them.
type moneyCollector struct{ *Metrics }

// Describe sends the families.
func (moneyCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, budgetLimit, budgetSpent, budgetHeld, usersOut, spentEver, reservedNow, monthRuns, denialCount, killSwitch,
		leased, leaseOverdue, leaseLeft, warned, historyKeep, historyOldest, historyFailed)
}

// Collect sends the readings.
func (c moneyCollector) Collect(ch chan<- prometheus.Metric) {
	view, now := c.View(), time.Now()
	cluster := view.Cluster()
	if !c.leads() || cluster == nil {
		return
	}
	killSwitch.send(ch, truth(cluster.KillSwitch), "cluster", "")
	if b := view.ClusterBudget(now); b != nil {
		sendBudget(ch, "", b)
	}
	for w := range view.Workspaces("") {
		sendMoney(ch, w, view.MoneyGauges(w, now))
	}
	sendLeases(ch, view.LeaseGauges(now))
	if c.History != nil {
		sendHistory(ch, view, c.History())
	}
}

func sendBudget(ch chan<- prometheus.Metric, ws string, b *state.BudgetGauge) {
	budgetLimit.send(ch, usd(b.Limit), ws, b.Budget)
	budgetSpent.send(ch, usd(b.Spent), ws, b.Budget)
	budgetHeld.send(ch, usd(b.Reserved), ws, b.Budget)
}

func sendMoney(ch chan<- prometheus.Metric, w *workspace.Workspace, g state.MoneyGauges) {
	if g.Spent != 0 || g.Reserved != 0 { // so a counter begins with its first reservation, at 0
		spentEver.send(ch, usd(g.Spent), w.ID)
		reservedNow.send(ch, usd(g.Reserved), w.ID)
	}
	if g.MonthRuns != 0 {
		monthRuns.send(ch, float64(g.MonthRuns), w.ID)
	}
	for i := range g.Budgets {
		sendBudget(ch, w.ID, &g.Budgets[i])
	}
	if g.UserBudget {
		usersOut.send(ch, float64(g.UsersReached), w.ID)
	}
	for denial, n := range g.Denials {
		denialCount.send(ch, float64(n), w.ID, code(string(denial)))
	}
	if w.KillSwitch {
		killSwitch.send(ch, 1, "workspace", w.ID)
	}
}

func sendLeases(ch chan<- prometheus.Metric, g state.LeaseGauges) {
	leased.send(ch, float64(g.Hard), "true")
	leased.send(ch, float64(g.Soft), "false")
	leaseOverdue.send(ch, float64(g.Overdue))
	if g.Overdue > 0 {
		leaseLeft.send(ch, g.Left.Seconds())
	}
	for reason, n := range g.Warnings {
		warned.send(ch, float64(n), code(reason))
	}
}

// History is how ended runs are forgotten (docs/operator-guide.md, history).
type History struct {
	Keep   time.Duration // how long they are kept
	Failed bool          // the last attempt to export them failed
}

func sendHistory(ch chan<- prometheus.Metric, view state.View, h History) {
	historyKeep.send(ch, h.Keep.Seconds())
	historyFailed.send(ch, truth(h.Failed))
	oldest := 0.0
	for r := range view.Foldable(time.Now()) {
		oldest = float64(r.Times.Ended.UnixMilli()) / 1000
		break
	}
	historyOldest.send(ch, oldest)
}

// Guard is what this host's guard says of itself.
type Guard struct {
	Entries int  // deadlines that it holds
	Erred   bool // it has met an error since it started
}

// guardAnswer is a guard's answer, or that there was none.
type guardAnswer struct {
	Guard
	up bool
}

var (
	guardUp      = gauge("guard_up", "Whether this host's guard, which ends runs at their deadlines, answers: 1 or 0.")
	guardEntries = gauge("guard_entries", "Deadlines that the guard holds.")
	guardErred   = gauge("guard_last_error", "Whether the guard has met an error since it started: 1 or 0; its log has it.")
)

// askGuard never fails: a guard that doesn't answer is a reading.
func (m *Metrics) askGuard(ctx context.Context) (guardAnswer, error) {
	g, err := m.Guard(ctx)
	return guardAnswer{Guard: g, up: err == nil}, nil
}

// guardCollector tells what this host's guard has last said.
type guardCollector struct{ *Metrics }

// Describe sends the families.
func (guardCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, guardUp, guardEntries, guardErred)
}

// Collect sends the readings, none before the first answer is due.
func (c guardCollector) Collect(ch chan<- prometheus.Metric) {
	if c.guard.age() > staleAfter*c.Every {
		return
	}
	g := c.guard.get(staleAfter * c.Every)
	guardUp.send(ch, truth(g.up))
	if g.up {
		guardEntries.send(ch, float64(g.Entries))
		guardErred.send(ch, truth(g.Erred))
	}
}

// leaseCounters count what becomes of leases, by events.
type leaseCounters struct {
	denied          *prometheus.CounterVec
	expired, unpaid prometheus.Counter
}

func newLeaseCounters() leaseCounters {
	return leaseCounters{
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_lease_renewals_denied_total",
			Help: "Runs that were told that they get no more time, by the budget that can't pay; counted by the leader."}, []string{"code"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "berth_leases_expired_total",
			Help: "Runs that ended because their lease did; counted by the leader."}),
		unpaid: prometheus.NewCounter(prometheus.CounterOpts{Name: "berth_unpaid_seconds_total",
			Help: "Time that ended runs have lived beyond what was paid for; counted by the leader."}),
	}
}

func (c *leaseCounters) all() []prometheus.Collector {
	return []prometheus.Collector{c.denied, c.expired, c.unpaid}
}

// warned counts a warning that a budget has caused.
func (c *leaseCounters) warned(e *workspace.Event) {
	if workspace.Code(e.Reason).Admission() {
		c.denied.WithLabelValues(e.Reason).Inc()
	}
}

func (c *leaseCounters) ended(run *workspace.Run, phase workspace.Phase, reason string) {
	c.unpaid.Add(float64(run.UnpaidMS) / 1000)
	if leaseOver(phase, reason) {
		c.expired.Inc()
	}
}

// leaseOver: a run whose node has ended it in time has the reason for which it
// wasn't renewed.
func leaseOver(phase workspace.Phase, reason string) bool {
	budget := reason == string(workspace.CodeWorkspaceBudget) || reason == string(workspace.CodeUserBudget) ||
		reason == string(workspace.CodeSpendingLimit)
	return reason == workspace.ReasonLeaseExpired || budget && phase == workspace.PhaseStopped
}
