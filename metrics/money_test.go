package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"berth/gpu/gputest"
	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

func amount(micro int64) workspace.Optional[int64] {
	return workspace.Optional[int64]{Set: true, Value: &micro}
}

// rent starts a run without GPUs for a user; it gives what admission has against it.
func (w *world) rent(run, in, user, node string) *workspace.Error {
	w.t.Helper()
	return w.try(workspace.RoleClusterAdmin, user, &state.CreateInstance{
		ID: "i-" + run, Workspace: in, Name: run, Kind: workspace.KindInteractive, Start: true, Run: run, Suggestion: on(node),
		Resources: workspace.Resources{CPUMilli: 1000, MemoryMiB: 512}, Spec: workspace.RunSpec{Image: "i"},
	})
}

// renew answers a beat of a node whose run has lived so long.
func (w *world) renew(node, run string, lived time.Duration) {
	w.t.Helper()
	w.boots[node] += lived.Milliseconds()
	w.do(workspace.RoleSystem, "", &state.RenewLeases{Node: node, Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: w.boots[node]},
		Runs: []workspace.Livedness{{Run: run, LivedMS: lived.Milliseconds()}}})
}

// poor makes a workspace whose budgets pay for a run for 72 seconds, of which 50 are
// over, and another one that is switched off.
func (w *world) poor(id, run, node string) {
	w.t.Helper()
	w.admin(&state.SetPrice{Resource: "cpu", Amount: 1_500_000})
	w.admin(&state.UpdateCluster{DailyBudget: amount(100_000_000)})
	w.admin(&state.CreateWorkspace{ID: id, Slug: "poor", Plan: workspace.PlanEnterprise})
	w.admin(&state.UpdateWorkspace{ID: id, DailyBudget: amount(30_000), UserDailyBudget: amount(30_000), SpendingLimit: amount(5_000_000)})
	w.admin(&state.CreateWorkspace{ID: "ws-3", Slug: "off", Plan: workspace.PlanEnterprise})
	off := true
	w.admin(&state.UpdateWorkspace{ID: "ws-3", KillSwitch: &off})
	if refused := w.rent(run, id, "alice", node); refused != nil {
		w.t.Fatal(refused)
	}
	w.reaches(run, "running", workspace.PhaseRunning)
	w.renew(node, run, time.Second)
	w.clock = w.clock.Add(50 * time.Second)
	if refused := w.rent(run+"-more", id, "bob", node); refused == nil {
		w.t.Fatal("a budget that is reserved whole pays for another run")
	}
}

// I18: whatever becomes of money and leases, the gauges are what the state says.
func TestMoneyIsWhatTheStateSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		m := metrics.New(config(w, "node-1", &reader{Fake: gputest.New("Tesla T4", 1)}))
		scrape(t, m) // from here on it counts
		l := &life{rt: rt, world: w, metrics: m, denied: map[string]float64{}, folded: map[string]int64{}, lived: map[string]time.Duration{}}
		l.begin()
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			l.step()
		}
		got := named(series(t, scrape(t, m)), moneyFamilies...)
		if diff := cmp.Diff(l.recomputed(), got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			rt.Fatalf("-state +gauges:\n%s", diff)
		}
	})
}

var moneyFamilies = []string{
	"berth_budget_limit_usd", "berth_budget_spent_usd", "berth_budget_reserved_usd", "berth_budget_users_reached",
	"berth_workspace_spent_usd_total", "berth_workspace_reserved_usd", "berth_runs_month", "berth_admission_denials_total", "berth_kill_switch",
	"berth_runs_leased", "berth_leases_overdue", "berth_lease_min_remaining_seconds", "berth_run_warnings",
	"berth_unpaid_seconds_total", "berth_leases_expired_total",
}

// life is a random one, of which the test remembers what the state forgets.
type life struct {
	*world
	rt              *rapid.T
	metrics         *metrics.Metrics
	runs            int
	denied          map[string]float64       // by series
	folded          map[string]int64         // micro-USD by workspace
	lived           map[string]time.Duration // by run
	unpaid, expired float64                  // of runs that were forgotten
}

func (l *life) begin() {
	l.node("node-1", "T4")
	l.admin(&state.CreateWorkspace{ID: "ws-2", Slug: "two", Plan: workspace.PlanEnterprise})
	l.admin(&state.SetPrice{Resource: "cpu", Amount: rapid.SampledFrom([]int64{0, 7, 2_500_000, 40_000_000}).Draw(l.rt, "price")})
}

func (l *life) step() {
	ws := rapid.SampledFrom([]string{"ws-1", "ws-2"}).Draw(l.rt, "workspace")
	switch rapid.SampledFrom([]string{"start", "start", "renew", "renew", "end", "limit", "switch", "wait", "external", "fold"}).Draw(l.rt, "step") {
	case "start":
		l.start(ws)
	case "renew":
		l.live(func(run string, lived time.Duration) { l.renew("node-1", run, lived) })
	case "end":
		l.live(func(run string, lived time.Duration) {
			phase := rapid.SampledFrom([]workspace.Phase{workspace.PhaseSucceeded, workspace.PhaseStopped}).Draw(l.rt, "phase")
			reason := map[workspace.Phase]string{workspace.PhaseSucceeded: "exited", workspace.PhaseStopped: "lease_expired"}[phase]
			l.report("node-1", workspace.Report{Runs: []workspace.RunReport{{Run: run, Epoch: l.store.View().Run(run).Epoch, Phase: phase,
				Reason: reason, LivedMS: lived.Milliseconds()}}})
		})
	case "limit":
		l.limit(ws)
	case "switch":
		is := !l.store.View().Workspace(ws).KillSwitch
		l.admin(&state.UpdateWorkspace{ID: ws, KillSwitch: &is})
	case "wait":
		l.clock = l.clock.Add(rapid.SampledFrom([]time.Duration{time.Minute, 40 * time.Minute, 9 * time.Hour, 30 * time.Hour}).Draw(l.rt, "wait"))
		l.do(workspace.RoleSystem, "", &state.Sweep{}) // external leases end by it
	case "external":
		l.runs++
		l.do(workspace.RoleClusterAdmin, "alice", &state.StartExternal{Run: fmt.Sprintf("run-%d", l.runs), Workspace: ws, Rate: 1_000_000})
		if run := l.store.View().Run(fmt.Sprintf("run-%d", l.runs)); run.Phase == workspace.PhaseFailed {
			l.deny(ws, workspace.Code(run.Reason))
		}
	case "fold":
		l.fold()
	}
}

func (l *life) start(ws string) {
	l.runs++
	run := fmt.Sprintf("run-%d", l.runs)
	if refused := l.rent(run, ws, rapid.SampledFrom([]string{"alice", "bob"}).Draw(l.rt, "user"), "node-1"); refused != nil {
		if !refused.Code.Admission() {
			l.rt.Fatal(refused)
		}
		l.deny(ws, refused.Code)
		return
	}
	if r := l.store.View().Run(run); r.Phase == workspace.PhaseAssigned {
		l.reaches(run, "running", workspace.PhaseRunning)
	}
}

func (l *life) deny(ws string, c workspace.Code) {
	l.denied[fmt.Sprintf("berth_admission_denials_total{code=%q,workspace=%q}", c, ws)]++
}

// live does something to a live run of a node, which has lived longer than before.
func (l *life) live(do func(run string, lived time.Duration)) {
	for r := range l.store.View().NodeRuns("node-1") {
		if r.Phase == workspace.PhaseRunning {
			l.lived[r.ID] += rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 33 * time.Minute, 5 * time.Hour}).Draw(l.rt, "lived")
			do(r.ID, l.lived[r.ID])
			return
		}
	}
}

func (l *life) limit(ws string) {
	value := workspace.Optional[int64]{Set: true}
	if n := rapid.SampledFrom([]int64{-1, 0, 50_000, 3_000_000, 90_000_000}).Draw(l.rt, "limit"); n >= 0 {
		value.Value = &n
	}
	c := &state.UpdateWorkspace{ID: ws}
	switch rapid.SampledFrom([]string{"day", "user", "user", "life", "cluster"}).Draw(l.rt, "which") {
	case "day":
		c.DailyBudget = value
	case "user":
		c.UserDailyBudget = value
	case "life":
		c.SpendingLimit = value // may be refused: less than is spent
	case "cluster":
		l.admin(&state.UpdateCluster{DailyBudget: value})
	}
	_ = l.try(workspace.RoleClusterAdmin, "admin", c)
}

// fold forgets ended runs, once they are counted.
func (l *life) fold() {
	scrape(l.t, l.metrics)
	before := l.clock.Add(-25 * time.Hour)
	c := &state.FoldHistory{Before: before.UnixMicro()}
	for r := range l.store.View().Foldable(before) {
		c.Runs = append(c.Runs, r.ID)
		l.folded[r.Workspace] += r.Cost
		l.count(r)
	}
	l.do(workspace.RoleSystem, "", c)
}

func (l *life) count(r *workspace.Run) {
	l.unpaid += float64(r.UnpaidMS) / 1000
	budgets := []workspace.Code{workspace.CodeWorkspaceBudget, workspace.CodeUserBudget, workspace.CodeSpendingLimit}
	if r.Phase == workspace.PhaseLost || r.Phase == workspace.PhaseStopped && (r.Reason == "lease_expired" || slices.Contains(budgets, workspace.Code(r.Reason))) {
		l.expired++
	}
}

func (l *life) recomputed() map[string]float64 {
	view, want := l.store.View(), maps.Clone(l.denied)
	want[`berth_kill_switch{scope="cluster",workspace=""}`] = 0
	for w := range view.Workspaces("") {
		l.recomputeWorkspace(want, view, w)
	}
	want[`berth_runs_leased{hard="true"}`], want[`berth_runs_leased{hard="false"}`], want["berth_leases_overdue"] = 0, 0, 0
	for r := range view.AllRuns() {
		if r.Phase.Terminal() {
			l.count(r)
			continue
		}
		if r.Warning != nil {
			want[`berth_run_warnings{reason="`+r.Warning.Reason+`"}`]++
		}
		lease := view.Metered(r.ID).Lease
		want[fmt.Sprintf(`berth_runs_leased{hard="%t"}`, lease.Hard)]++
		left := lease.PaidUntil.Sub(view.At())
		if lease.Hard && r.Node != "" && left < time.Duration(lease.GrantedMS)*time.Millisecond/2 {
			want["berth_leases_overdue"]++
			if least, ok := want["berth_lease_min_remaining_seconds"]; !ok || left.Seconds() < least {
				want["berth_lease_min_remaining_seconds"] = left.Seconds()
			}
		}
	}
	want["berth_unpaid_seconds_total"], want["berth_leases_expired_total"] = l.unpaid, l.expired
	return want
}

func (l *life) recomputeWorkspace(want map[string]float64, view state.View, w *workspace.Workspace) {
	in := `{workspace="` + w.ID + `"}`
	spent, reserved := l.folded[w.ID], int64(0)
	for e := range view.Ledger(w.ID, 0, 0) {
		spent += e.Amount
	}
	for r := range view.ActiveRuns(w.ID) {
		reserved += view.Metered(r.ID).Reserved
	}
	usage := view.WorkspaceUsage(w.ID, time.Time{})
	if spent != 0 || reserved != 0 {
		want["berth_workspace_spent_usd_total"+in], want["berth_workspace_reserved_usd"+in] = float64(spent)/1e6, float64(reserved)/1e6
	}
	if usage.MonthlyRuns.Runs != 0 {
		want["berth_runs_month"+in] = float64(usage.MonthlyRuns.Runs)
	}
	if w.KillSwitch {
		want[`berth_kill_switch{scope="workspace",workspace="`+w.ID+`"}`] = 1
	}
	if w.Limits.UserDailyBudget != nil {
		want["berth_budget_users_reached"+in] = 0
	}
	for _, b := range usage.Budgets {
		of := w.ID
		switch {
		case b.Limit == nil:
			continue
		case b.Budget == "user_daily":
			if *b.Left == 0 {
				want["berth_budget_users_reached"+in]++
			}
			continue
		case b.Budget == "cluster_daily":
			of = ""
		}
		at := fmt.Sprintf("_usd{budget=%q,workspace=%q}", b.Budget, of)
		want["berth_budget_limit"+at], want["berth_budget_spent"+at] = float64(*b.Limit)/1e6, float64(b.Spent)/1e6
		want["berth_budget_reserved"+at] = float64(b.Reserved) / 1e6
	}
}

// At midnight a daily budget is whole again, though nothing was written, and what
// was denied stays counted.
func TestMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("node-1", "T4")
		w.poor("ws-2", "run-1", "node-1")
		m := metrics.New(config(w, "node-1", &reader{Fake: gputest.New("Tesla T4", 1)}))
		const spent, denied = `berth_budget_reserved_usd{budget="workspace_daily",workspace="ws-2"}`,
			`berth_admission_denials_total{code="WORKSPACE_DAILY_BUDGET_EXCEEDED",workspace="ws-2"}`
		before := series(t, scrape(t, m))
		time.Sleep(25 * time.Hour)
		after := series(t, scrape(t, m))
		if before[spent] == 0 || after[spent] != 0 || before[denied] != 1 || after[denied] != 1 {
			t.Errorf("reserved %v, a day later %v; denied %v, a day later %v", before[spent], after[spent], before[denied], after[denied])
		}
	})
}

// A guard that doesn't answer is down, and holds up no scrape; where there is none
// nothing is told.
func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(newWorld(t), "node-1", &reader{Fake: gputest.New("Tesla T4", 1)})
		var hangs atomic.Bool
		c.Guard = func(ctx context.Context) (metrics.Guard, error) {
			if !hangs.Load() {
				return metrics.Guard{Entries: 2}, nil
			}
			<-ctx.Done()
			return metrics.Guard{}, errors.New("it doesn't answer")
		}
		m := metrics.New(c)
		guard := func() map[string]float64 {
			synctest.Wait()
			return named(series(t, scrape(t, m)), "berth_guard_up", "berth_guard_entries", "berth_guard_last_error")
		}
		if got := guard(); len(got) != 0 {
			t.Errorf("before it was asked: %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.Run(ctx) }()
		if got := guard(); got["berth_guard_up"] != 1 || got["berth_guard_entries"] != 2 || len(got) != 3 {
			t.Errorf("it answers: %v", got)
		}
		hangs.Store(true)
		time.Sleep(20 * time.Second)
		if got := guard(); got["berth_guard_up"] != 0 || len(got) != 1 {
			t.Errorf("it doesn't answer: %v", got)
		}
	})
}
