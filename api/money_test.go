package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"berth/state"
	"berth/workspace"
)

// lives lets the node report that a run has lived so long.
func (r *rig) lives(run string, p workspace.Phase, ms int64) {
	r.t.Helper()
	r.report(workspace.Report{Runs: []workspace.RunReport{
		{Run: run, Epoch: r.View().Run(run).Epoch, Phase: p, Reason: "said", Message: "said the node", LivedMS: ms},
	}})
}

// started makes an instance that runs on the one node.
func (r *rig) started(name string) workspace.Instance {
	r.t.Helper()
	inst := r.instance(name)
	r.place(inst.Run)
	r.lives(inst.Run, workspace.PhaseRunning, 0)
	return inst
}

func TestPrices(t *testing.T) {
	r := newRig(t)
	book := decode[workspace.PriceBook](t, r.ask("GET", "prices", ""), 200)
	if len(book.Items) != 0 || strings.Join(book.Unpriced, " ") != "A100-SXM4-80GB" {
		t.Errorf("%+v", book)
	}
	set := decode[workspace.Price](t, r.ask("PUT", "prices", `{"resource":"gpu","gpu_type":"a100","amount_micro_usd_per_hour":2500000}`), 200)
	if set.GPUType != "a100" || set.Amount != 2_500_000 {
		t.Errorf("%+v", set)
	}
	set = decode[workspace.Price](t, r.ask("PUT", "prices", `{"resource":"memory","node":"host1","amount_micro_usd_per_hour":1}`), 200)
	if set.Node != nodeID {
		t.Errorf("a node by name: %+v", set)
	}
	book = decode[workspace.PriceBook](t, r.ask("GET", "prices", ""), 200)
	if len(book.Items) != 2 || len(book.Unpriced) != 0 {
		t.Errorf("%+v", book)
	}
	for _, path := range []string{"prices?resource=gpu&gpu_type=A100", "prices?resource=memory&node=host1"} {
		if a := r.ask("DELETE", path, ""); a.status != 204 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	refused(t, r.ask("DELETE", "prices?resource=cpu", ""), 404, workspace.CodeNotFound, "cpu")
	refused(t, r.ask("PUT", "prices", `{"resource":"gpu","amount_micro_usd_per_hour":1}`), 422, workspace.CodeInvalid, "gpu_type")
	refused(t, r.ask("PUT", "prices", `{"resource":"cpu","gpu_type":"a100","amount_micro_usd_per_hour":1}`), 422, workspace.CodeInvalid, "gpu_type")
	if book = decode[workspace.PriceBook](t, r.ask("GET", "prices", ""), 200); len(book.Items) != 0 {
		t.Errorf("%+v", book)
	}
	refused(t, r.askAs(Principal{User: "alice", Role: workspace.RoleMember}, "PUT", "prices", `{"resource":"cpu","amount_micro_usd_per_hour":1}`),
		403, workspace.CodeDenied)
}

// A type without a price is told of once money matters.
func TestUnpricedInStatus(t *testing.T) {
	r := newRig(t)
	told := func() bool {
		s := decode[workspace.Overview](t, r.ask("GET", "status", ""), 200)
		return strings.Contains(strings.Join(s.Warnings, "\n"), "GPU type A100-SXM4-80GB has no price")
	}
	if told() {
		t.Error("told though nothing costs anything")
	}
	decode[workspace.Workspace](t, r.ask("PATCH", "workspaces/default", `{"daily_budget_micro_usd":1}`), 200)
	if !told() {
		t.Error("a budget needs prices")
	}
	decode[workspace.Price](t, r.ask("PUT", "prices", `{"resource":"gpu","gpu_type":"*","amount_micro_usd_per_hour":1}`), 200)
	if told() {
		t.Error("* is for all types")
	}
}

// absent leaves a limit, null takes it away, and a change is whole or nothing.
func TestLimits(t *testing.T) {
	r := newRig(t)
	patch := func(body string) workspace.Workspace {
		t.Helper()
		return decode[workspace.Workspace](t, r.ask("PATCH", "workspaces/default", body), 200)
	}
	w := patch(`{"daily_budget_micro_usd":5,"user_daily_budget_micro_usd":4,"spending_limit_micro_usd":100,"monthly_run_limit":7,
		"max_concurrent_runs":3,"ceilings":{"daily_budget_micro_usd":10,"max_concurrent_runs":4}}`)
	l := w.Limits
	if *l.DailyBudget != 5 || *l.UserDailyBudget != 4 || l.Spending.Amount != 100 || l.Spending.Generation != 1 || *l.MonthlyRuns != 7 ||
		l.MaxConcurrentRuns != 3 || *l.Ceilings.DailyBudget != 10 || *l.Ceilings.MaxConcurrentRuns != 4 {
		t.Errorf("%+v", l)
	}
	if l = patch(`{"daily_budget_micro_usd":null,"monthly_run_limit":null,"ceilings":null}`).Limits; l.DailyBudget != nil ||
		l.MonthlyRuns != nil || l.Ceilings != nil || *l.UserDailyBudget != 4 || l.Spending == nil {
		t.Errorf("%+v", l)
	}
	if l = patch(`{"spending_limit_micro_usd":9007199254740991}`).Limits; l.Spending != nil {
		t.Errorf("2^53-1: %+v", l.Spending)
	}
	if l = patch(`{"spending_limit_micro_usd":5}`).Limits; l.Spending.Generation != 2 {
		t.Errorf("a new one: %+v", l.Spending)
	}
	if w = patch(`{"plan":"basic"}`); w.Plan != workspace.PlanBasic || w.Limits.UserDailyBudget != nil || w.Limits.MaxConcurrentRuns != 3 {
		t.Errorf("basic: %+v", w)
	}
	refused(t, r.ask("PATCH", "workspaces/default", `{"description":"x","user_daily_budget_micro_usd":1}`), 403, workspace.CodeDenied, "plan pro")
	refused(t, r.ask("PATCH", "workspaces/default", `{"description":"x","kill_switch":true}`), 403, workspace.CodeDenied, "plan scale")
	if w = patch(`{}`); w.Description != "" {
		t.Errorf("half done: %+v", w)
	}
	owner := Principal{User: "leader", Role: workspace.RoleOwner} // who made the cluster
	refused(t, r.askAs(owner, "PATCH", "workspaces/default", `{"plan":"scale"}`), 403, workspace.CodeDenied, "cluster admin")
}

func TestNewWorkspaceBeginsWithLimits(t *testing.T) {
	r := newRig(t)
	decode[workspace.Cluster](t, r.ask("PATCH", "cluster", `{"new_workspace_defaults":{"plan":"pro","daily_budget_micro_usd":9,"max_concurrent_runs":5}}`), 200)
	w := decode[workspace.Workspace](t, r.ask("POST", "workspaces", `{"slug":"a"}`), 201)
	if w.Plan != workspace.PlanPro || *w.Limits.DailyBudget != 9 || w.Limits.MaxConcurrentRuns != 5 {
		t.Errorf("the cluster's defaults: %+v", w)
	}
	w = decode[workspace.Workspace](t, r.ask("POST", "workspaces",
		`{"slug":"b","plan":"scale","daily_budget_micro_usd":null,"spending_limit_micro_usd":7,"is_default":true}`), 201)
	if w.Plan != workspace.PlanScale || w.Limits.DailyBudget != nil || w.Limits.Spending.Amount != 7 || !w.IsDefault {
		t.Errorf("its own: %+v", w)
	}
	if old := decode[workspace.Workspace](t, r.ask("GET", "workspaces/default", ""), 200); old.IsDefault {
		t.Error("two default workspaces")
	}
	refused(t, r.ask("POST", "workspaces", `{"slug":"c","plan":"basic","max_concurrent_runs":9}`), 403, workspace.CodeDenied, "plan pro")
	refused(t, r.ask("GET", "workspaces/c", ""), 404, workspace.CodeNotFound)
}

func TestCluster(t *testing.T) {
	r := newRig(t)
	tag := r.ask("GET", "cluster", "").header.Get("ETag")
	c := decode[workspace.Cluster](t, r.ask("PATCH", "cluster", `{"name":"lab","daily_budget_micro_usd":5,"max_concurrent_runs":2}`, "If-Match", tag), 200)
	if c.Name != "lab" || *c.Limits.DailyBudget != 5 || c.Limits.MaxConcurrentRuns != 2 {
		t.Errorf("%+v", c)
	}
	refused(t, r.ask("PATCH", "cluster", `{"name":"old"}`, "If-Match", tag), 412, workspace.CodeTooOld)
	if c = decode[workspace.Cluster](t, r.ask("PATCH", "cluster", `{"daily_budget_micro_usd":null,"max_concurrent_runs":null}`), 200); c.Limits.DailyBudget != nil || c.Limits.MaxConcurrentRuns != 0 || c.Name != "lab" {
		t.Errorf("%+v", c)
	}
	refused(t, r.ask("PATCH", "cluster", `{"name":"No Label"}`), 422, workspace.CodeInvalid, "name")
	refused(t, r.askAs(Principal{User: "alice", Role: workspace.RoleMember}, "PATCH", "cluster", `{"name":"x"}`), 403, workspace.CodeDenied)
	refused(t, r.askAs(Principal{User: "alice", Role: workspace.RoleMember}, "GET", "cluster/kill-switch", ""), 403, workspace.CodeDenied)
}

// The switch says beforehand what it stops, stops that, and says so.
func TestKillSwitch(t *testing.T) {
	for _, path := range []string{"workspaces/default/kill-switch", "cluster/kill-switch"} {
		r := newRig(t)
		inst := r.started("one")
		k := decode[workspace.KillSwitch](t, r.ask("GET", path, ""), 200)
		if k.Active || len(k.Runs) != 1 || k.Runs[0].Name != "one" || k.Runs[0].User != admin || k.Runs[0].NodeName != "host1" || len(k.Unreachable) != 0 {
			t.Fatalf("%s beforehand: %+v", path, k)
		}
		if run := r.View().Run(inst.Run); run.Desired != workspace.RunWanted {
			t.Fatal("a question stopped it")
		}
		k = decode[workspace.KillSwitch](t, r.ask("POST", path, `{"active":true}`), 200)
		if !k.Active || len(k.Runs) != 1 || k.Runs[0].Run != inst.Run {
			t.Errorf("%s on: %+v", path, k)
		}
		if run := r.View().Run(inst.Run); run.Desired != workspace.RunStopping {
			t.Errorf("%s: %+v", path, run)
		}
		// Again is no error, and tells what is still stopping.
		if k = decode[workspace.KillSwitch](t, r.ask("POST", path, `{"active":true}`), 200); len(k.Runs) != 1 {
			t.Errorf("%s again: %+v", path, k)
		}
		refused(t, r.ask("POST", "instances", `{"name":"two","template":{"name":"demo"}}`), 409, workspace.CodeKillSwitch, "kill-switch off")
		if k = decode[workspace.KillSwitch](t, r.ask("POST", path, `{"active":false}`), 200); k.Active || len(k.Runs) != 0 {
			t.Errorf("%s off: %+v", path, k)
		}
		if run := r.View().Run(inst.Run); run.Desired != workspace.RunStopping {
			t.Error("off brought a run back")
		}
	}
}

// Runs on a host that can't be reached are told apart.
func TestKillSwitchUnreachable(t *testing.T) {
	r := newRig(t)
	inst := r.started("one")
	r.as(workspace.RoleSystem, "leader", &state.SetReachable{Node: nodeID})
	for _, a := range []answer{r.ask("GET", "workspaces/default/kill-switch", ""), r.ask("POST", "workspaces/default/kill-switch", `{"active":true}`)} {
		k := decode[workspace.KillSwitch](t, a, 200)
		if len(k.Runs) != 0 || len(k.Unreachable) != 1 || k.Unreachable[0].Run != inst.Run {
			t.Errorf("%+v", k)
		}
	}
}

func TestBlockUser(t *testing.T) {
	r := newRig(t)
	if m := decode[workspace.Member](t, r.ask("POST", "workspaces/default/members/"+admin+"/block", ""), 200); !m.Blocked {
		t.Errorf("%+v", m)
	}
	refused(t, r.ask("POST", "instances", `{"name":"a","template":{"name":"demo"}}`), 409, workspace.CodeUserBlocked, "unblock")
	if m := decode[workspace.Member](t, r.ask("POST", "workspaces/default/members/"+admin+"/unblock", ""), 200); m.Blocked {
		t.Errorf("%+v", m)
	}
	decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"a","template":{"name":"demo"}}`), 201)
	refused(t, r.ask("POST", "workspaces/nowhere/members/u/block", ""), 404, workspace.CodeNotFound)
	// Who is no member doesn't become one by being blocked.
	decode[workspace.Member](t, r.ask("POST", "workspaces/default/members/stranger/block", ""), 200)
	refused(t, r.askAs(Principal{User: "stranger", Role: workspace.RoleMember}, "GET", "workspaces/default", ""), 404, workspace.CodeNotFound)
	if m := decode[workspace.Member](t, r.ask("POST", "workspaces/default/members/stranger/unblock", ""), 200); m.Blocked || m.User != "stranger" {
		t.Errorf("%+v", m)
	}
}

// Usage, sums and ledger tell the same amounts.
func TestUsage(t *testing.T) {
	r := newRig(t)
	r.api.now = func() time.Time { return r.at }
	decode[workspace.Price](t, r.ask("PUT", "prices", `{"resource":"gpu","gpu_type":"*","amount_micro_usd_per_hour":3600000}`), 200)
	decode[workspace.Workspace](t, r.ask("PATCH", "workspaces/default", `{"daily_budget_micro_usd":100000000,"spending_limit_micro_usd":200000000}`), 200)
	inst := r.started("one")
	r.lives(inst.Run, workspace.PhaseSucceeded, 10_000) // 10 s of 1 USD per 1000 s
	const cost = 10_000

	u := decode[workspace.WorkspaceUsage](t, r.ask("GET", "workspaces/default/usage", ""), 200)
	if u.Spent != cost || u.Reserved != 0 || u.Slug != "default" || u.MonthlyRuns.Runs != 1 || u.Concurrency.Active != 0 {
		t.Errorf("%+v", u)
	}
	for _, b := range u.Budgets {
		if b.Spent != cost || b.Budget == "workspace_daily" && *b.Left != 100_000_000-cost {
			t.Errorf("%+v", b)
		}
	}
	w := decode[workspace.Workspace](t, r.ask("GET", "workspaces/default", ""), 200)
	all := decode[page[workspace.Workspace]](t, r.ask("GET", "workspaces", ""), 200)
	if s := w.Limits.Spending; s.Accrued != cost || s.Reserved != 0 || *all.Items[0].Limits.Spending != *s {
		t.Errorf("%+v", s)
	}

	for query, want := range map[string]int{"": 1, "?by=user": 1, "?by=workspace,day,gpu_type,project,user": 1, "?since=2026-01-02&until=2026-01-02": 1, "?since=2026-01-03&by=day": 0} {
		rep := decode[workspace.UsageReport](t, r.ask("GET", "usage"+query, ""), 200)
		sum := int64(want) * cost
		if len(rep.Items) != want || rep.Total.Spent != sum || want == 1 && (rep.Items[0].Spent != cost || rep.Items[0].MS != 10_000 || rep.Items[0].GPUMS != 10_000) {
			t.Errorf("%s: %+v", query, rep)
		}
		if strings.Contains(query, "gpu_type") {
			if row := rep.Items[0]; row.User != admin || row.GPUType != "A100-SXM4-80GB" || row.Day.String() != "2026-01-02" || row.Workspace != w.ID {
				t.Errorf("%+v", row)
			}
		}
	}

	a := r.ask("GET", "ledger?workspace=default&since=2026-01-02", "")
	if a.status != 200 || a.header.Get("Content-Type") != ndjson || a.header.Get(http.TrailerPrefix+errorTrailer) != "" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	sum, rows := int64(0), bufio.NewScanner(bytes.NewReader(a.body))
	for rows.Scan() {
		var e workspace.LedgerEntry
		if err := json.Unmarshal(rows.Bytes(), &e); err != nil || e.Run != inst.Run || !e.Final {
			t.Errorf("%s: %v", rows.Text(), err)
		}
		sum += e.Amount
	}
	if sum != cost {
		t.Errorf("the ledger has %d", sum)
	}
}

// The ledger of a workspace outlives it.
func TestUsageOfTheDeleted(t *testing.T) {
	r := newRig(t)
	w := decode[workspace.Workspace](t, r.ask("POST", "workspaces", `{"slug":"gone"}`), 201)
	r.as(workspace.RoleClusterAdmin, admin, &state.DeleteWorkspace{ID: w.ID})
	refused(t, r.ask("GET", "workspaces/gone/usage", ""), 404, workspace.CodeNotFound)
	for _, ref := range []string{"gone", w.ID} {
		decode[workspace.UsageReport](t, r.ask("GET", "usage?workspace="+ref, ""), 200)
		if a := r.ask("GET", "ledger?workspace="+ref, ""); a.status != 200 {
			t.Errorf("%s: %d %s", ref, a.status, a.body)
		}
	}
}

// Who isn't in a workspace learns nothing of its money.
func TestUsageIsTheWorkspaces(t *testing.T) {
	r := newRig(t)
	mallory := Principal{User: "mallory", Role: workspace.RoleMember}
	for _, path := range []string{"workspaces/default/usage", "usage", "usage?workspace=*", "ledger", "ledger?workspace=default", "workspaces/default/kill-switch"} {
		refused(t, r.askAs(mallory, "GET", path, ""), 404, workspace.CodeNotFound)
	}
}
