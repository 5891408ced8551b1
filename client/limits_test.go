package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"berth/workspace"
)

// What is absent isn't sent, what is null is.
func TestLimitRequests(t *testing.T) {
	amount, yes, three := int64(5), true, 3
	set := workspace.Optional[int64]{Set: true, Value: &amount}
	null := workspace.Optional[int64]{Set: true}
	cases := []struct {
		want string
		call func(ctx context.Context, c *Client) error
	}{
		{`PATCH /berth/v1/workspaces/w {"daily_budget_micro_usd":5,"user_daily_budget_micro_usd":null,"monthly_run_limit":0,"ceilings":{"max_concurrent_runs":3},"kill_switch":true,"is_default":true}`,
			func(ctx context.Context, c *Client) error {
				_, err := c.UpdateWorkspace(ctx, "w", workspace.WorkspaceChange{LimitsChange: workspace.LimitsChange{
					DailyBudget: set, UserDailyBudget: null, MonthlyRuns: workspace.Optional[int64]{Set: true, Value: new(int64)},
					Ceilings:   workspace.Optional[workspace.Ceilings]{Set: true, Value: &workspace.Ceilings{MaxConcurrentRuns: &three}},
					KillSwitch: &yes, IsDefault: &yes,
				}}, 0)
				return err
			}},
		{`POST /berth/v1/workspaces {"slug":"w","spending_limit_micro_usd":5}`, func(ctx context.Context, c *Client) error {
			_, err := c.CreateWorkspace(ctx, workspace.NewWorkspace{Slug: "w", LimitsChange: workspace.LimitsChange{SpendingLimit: set}})
			return err
		}},
		{`GET /berth/v1/cluster`, func(ctx context.Context, c *Client) error { _, err := c.Cluster(ctx); return err }},
		{`PATCH /berth/v1/cluster {"daily_budget_micro_usd":null,"max_concurrent_runs":3}`, func(ctx context.Context, c *Client) error {
			_, err := c.UpdateCluster(ctx, workspace.ClusterChange{DailyBudget: null, MaxConcurrentRuns: workspace.Optional[int]{Set: true, Value: &three}}, 0)
			return err
		}},
		{`GET /berth/v1/workspaces/w/kill-switch`, func(ctx context.Context, c *Client) error { _, err := c.KillSwitch(ctx, "w"); return err }},
		{`POST /berth/v1/workspaces/w/kill-switch {"active":false}`, func(ctx context.Context, c *Client) error { _, err := c.SetKillSwitch(ctx, "w", false); return err }},
		{`GET /berth/v1/cluster/kill-switch`, func(ctx context.Context, c *Client) error { _, err := c.ClusterKillSwitch(ctx); return err }},
		{`POST /berth/v1/cluster/kill-switch {"active":true}`, func(ctx context.Context, c *Client) error { _, err := c.SetClusterKillSwitch(ctx, true); return err }},
		{`POST /berth/v1/workspaces/w/members/u%2Fv/block`, func(ctx context.Context, c *Client) error { _, err := c.BlockUser(ctx, "w", "u/v", true); return err }},
		{`POST /berth/v1/workspaces/w/members/u/unblock`, func(ctx context.Context, c *Client) error { _, err := c.BlockUser(ctx, "w", "u", false); return err }},
		{`GET /berth/v1/prices`, func(ctx context.Context, c *Client) error { _, err := c.Prices(ctx); return err }},
		{`PUT /berth/v1/prices {"resource":"gpu","gpu_type":"*","amount_micro_usd_per_hour":5}`, func(ctx context.Context, c *Client) error {
			_, err := c.SetPrice(ctx, workspace.Price{Resource: "gpu", GPUType: "*", Amount: 5})
			return err
		}},
		{`DELETE /berth/v1/prices?gpu_type=a100&node=h&resource=gpu`, func(ctx context.Context, c *Client) error {
			return c.RemovePrice(ctx, workspace.Price{Resource: "gpu", GPUType: "a100", Node: "h"})
		}},
		{`GET /berth/v1/workspaces/w/usage`, func(ctx context.Context, c *Client) error { _, err := c.WorkspaceUsage(ctx, "w"); return err }},
		{`GET /berth/v1/usage?by=user%2Cday&since=2026-01-01&until=2026-01-31&workspace=w`, func(ctx context.Context, c *Client) error {
			_, err := c.Usage(ctx, UsageQuery{Workspace: "w", Since: "2026-01-01", Until: "2026-01-31", By: []string{"user", "day"}})
			return err
		}},
	}
	for _, k := range cases {
		t.Run(k.want, func(t *testing.T) {
			var got string
			c := daemon(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(body))
				fmt.Fprint(w, `{}`)
			}).client(t, Options{})
			if err := k.call(t.Context(), c); err != nil || got != k.want {
				t.Errorf("sent %s (%v)", got, err)
			}
		})
	}
}

// An answer that breaks off is an error, not a shorter ledger.
func TestLedger(t *testing.T) {
	const rows = `{"run":"r1","workspace":"w","user":"u","kind":"job","day":"2026-01-01","amount_micro_usd":5}` + "\n" +
		`{"run":"r2","workspace":"w","user":"u","kind":"job","day":"2026-01-02","amount_micro_usd":7}` + "\n"
	broken := `"{\"code\":\"unavailable\",\"message\":\"shutting down\"}"`
	for _, k := range []struct {
		name, body, trailer string
		rows                int
		sum                 int64
		code                workspace.Code
	}{
		{name: "whole", body: rows, rows: 2, sum: 12},
		{name: "empty"},
		{name: "told", body: rows, trailer: broken, rows: 2, sum: 12, code: workspace.CodeUnavailable},
		{name: "cut", body: rows[:len(rows)-20], rows: 1, sum: 5, code: workspace.CodeUnavailable},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := daemon(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RequestURI() != "/berth/v1/ledger?since=2026-01-01" {
					t.Errorf("asked %s", r.URL.RequestURI())
				}
				fmt.Fprint(w, k.body)
				if k.trailer != "" {
					w.Header().Set(http.TrailerPrefix+"X-Berth-Error", k.trailer)
				}
			}).client(t, Options{})
			n, sum, failed := 0, int64(0), error(nil)
			for e, err := range c.Ledger(t.Context(), UsageQuery{Since: "2026-01-01", By: []string{"day"}}) {
				if failed = err; err == nil {
					n, sum = n+1, sum+e.Amount
				}
			}
			if n != k.rows || sum != k.sum || workspace.CodeOf(failed) != k.code {
				t.Errorf("%d rows of %d, %v", n, sum, failed)
			}
		})
	}
	c := daemon(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 422, workspace.CodeInvalid, "since: isn't a UTC date")
	}).client(t, Options{})
	for _, err := range c.Ledger(t.Context(), UsageQuery{Since: "yesterday"}) {
		if workspace.CodeOf(err) != workspace.CodeInvalid {
			t.Errorf("refused with %v", err)
		}
	}
}
