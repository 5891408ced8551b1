package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

// What can't be is refused with the field and the rule, and nothing of the
// request is done.
func TestBadLimits(t *testing.T) {
	r := newRig(t)
	ws := func() workspace.Workspace {
		return decode[workspace.Workspace](t, r.ask("GET", "workspaces/default", ""), 200)
	}
	cluster := func() workspace.Cluster { return decode[workspace.Cluster](t, r.ask("GET", "cluster", ""), 200) }
	wasWorkspace, wasCluster, was := ws(), cluster(), len(decode[page[workspace.Workspace]](t, r.ask("GET", "workspaces", ""), 200).Items)
	const money = "daily_budget_micro_usd"
	for _, k := range []struct{ method, path, body, field, rule string }{
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":-1}`, money, ">= 0, not -1"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":1.5}`, money, "integer, not 1.5"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":9007199254740992}`, money, "<= 9007199254740991, not 9007199254740992"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":9223372036854775808}`, money, "<= 9007199254740991, not 9223372036854775808"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":1e400}`, "", ""},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":"12"}`, money, "integer"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":true}`, money, "integer"},
		{"PATCH", "workspaces/default", `{"description":"d","user_daily_budget_micro_usd":-1}`, "user_daily_budget_micro_usd", ">= 0"},
		{"PATCH", "workspaces/default", `{"description":"d","spending_limit_micro_usd":9007199254740992}`, "spending_limit_micro_usd", "<="},
		{"PATCH", "workspaces/default", `{"description":"d","monthly_run_limit":-1}`, "monthly_run_limit", ">= 0"},
		{"PATCH", "workspaces/default", `{"description":"d","monthly_run_limit":0.5}`, "monthly_run_limit", "integer"},
		{"PATCH", "workspaces/default", `{"description":"d","max_concurrent_runs":0}`, "max_concurrent_runs", ">= 1"},
		{"PATCH", "workspaces/default", `{"description":"d","max_concurrent_runs":2.5}`, "max_concurrent_runs", "integer"},
		{"PATCH", "workspaces/default", `{"description":"d","max_concurrent_runs":9223372036854775808}`, "max_concurrent_runs", "<="},
		{"PATCH", "workspaces/default", `{"description":"d","ceilings":{"daily_budget_micro_usd":-1}}`, "ceilings.daily_budget_micro_usd", ">= 0"},
		{"PATCH", "workspaces/default", `{"description":"d","ceilings":{"budget":1}}`, "ceilings.budget", "unexpected"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget_micro_usd":1e2}`, "body", "1e2 isn't a whole number"},
		{"PATCH", "workspaces/default", `{"description":"d","ceilings":7}`, "ceilings", "object"},
		{"PATCH", "workspaces/default", `{"description":"d","plan":"gold"}`, "plan", "basic"},
		{"PATCH", "workspaces/default", `{"description":"d","is_default":false}`, "is_default", "another"},
		{"PATCH", "workspaces/default", `{"description":"d","daily_budget":1}`, "daily_budget", "unexpected"},
		{"POST", "workspaces", `{"slug":"new","daily_budget_micro_usd":-1}`, money, ">= 0"},
		{"POST", "workspaces", `{"slug":"new","max_concurrent_runs":0}`, "max_concurrent_runs", ">= 1"},
		{"POST", "workspaces", `{"slug":"new","is_default":false}`, "is_default", "another"},
		{"PATCH", "cluster", `{"name":"n","daily_budget_micro_usd":-1}`, money, ">= 0"},
		{"PATCH", "cluster", `{"name":"n","max_concurrent_runs":0}`, "max_concurrent_runs", ">= 1"},
		{"PATCH", "cluster", `{"name":"n","max_concurrent_runs":1.5}`, "max_concurrent_runs", "integer"},
		{"PATCH", "cluster", `{"name":"n","new_workspace_defaults":{"plan":"gold"}}`, "new_workspace_defaults.plan", "basic"},
		{"PATCH", "cluster", `{"name":"n","spending_limit_micro_usd":1}`, "spending_limit_micro_usd", "unexpected"},
		{"POST", "workspaces/default/kill-switch", `{}`, "body", "required property active"},
		{"POST", "workspaces/default/kill-switch", `{"active":"yes"}`, "active", "boolean"},
		{"POST", "workspaces/default/kill-switch", `{"active":null}`, "active", "boolean"},
		{"POST", "cluster/kill-switch", `{"on":true}`, "on", "unexpected"},
		{"PUT", "prices", `{"resource":"gpu","gpu_type":"*","amount_micro_usd_per_hour":-1}`, "amount_micro_usd_per_hour", ">= 0"},
		{"PUT", "prices", `{"resource":"gpu","gpu_type":"*","amount_micro_usd_per_hour":0.5}`, "amount_micro_usd_per_hour", "integer"},
		{"PUT", "prices", `{"resource":"disk","amount_micro_usd_per_hour":1}`, "resource", "gpu"},
		{"PUT", "prices", `{"resource":"cpu","node":"nowhere","amount_micro_usd_per_hour":1}`, "node", "berth node ls"},
		{"PUT", "prices", `{"resource":"cpu"}`, "body", "required property amount_micro_usd_per_hour"},
		{"PUT", "prices", `{"resource":"cpu","amount_micro_usd_per_hour":1000000000001}`, "amount_micro_usd_per_hour", "<="},
		{"PUT", "prices", `{"amount_micro_usd_per_hour":1}`, "body", "required property resource"},
		{"DELETE", "prices", "", "query.resource", "required"},
		{"GET", "usage?since=2026-01-31T00:00:00Z", "", "since", "UTC date"},
		{"GET", "usage?since=2026-01-31%2B02:00", "", "since", "UTC date"},
		{"GET", "usage?until=2026-02-30", "", "until", "UTC date"},
		{"GET", "usage?since=2026-02-01&until=2026-01-31", "", "until", "before since"},
		{"GET", "usage?by=colour", "", "query.by", "workspace"},
		{"GET", "usage?by=user,user", "", "by", "twice"},
		{"GET", "usage?to=2026-01-31", "", "query.to", "unknown"},
		{"GET", "ledger?since=31.01.2026", "", "since", "UTC date"},
	} {
		a := r.ask(k.method, k.path, k.body)
		status, code := http.StatusUnprocessableEntity, workspace.CodeInvalid
		if k.field == "" {
			status, code = http.StatusBadRequest, workspace.CodeMalformed
		}
		p := refused(t, a, status, code)
		rule, named := "", k.field == ""
		for field, text := range p.Fields {
			if field == k.field || strings.HasPrefix(field, k.field+"[") {
				rule, named = text, true
			}
		}
		if !named || !strings.Contains(rule, k.rule) {
			t.Errorf("%s %s %s: %v (%s), want field %q with %q", k.method, k.path, k.body, p.Fields, p.Detail, k.field, k.rule)
		}
	}
	if diff := cmp.Diff(wasWorkspace, ws()) + cmp.Diff(wasCluster, cluster()); diff != "" {
		t.Errorf("something was done:\n%s", diff)
	}
	if all := decode[page[workspace.Workspace]](t, r.ask("GET", "workspaces", ""), 200); len(all.Items) != was {
		t.Errorf("workspaces %+v", all.Items)
	}
}
