package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) workspaceUsage() *cobra.Command {
	return &cobra.Command{
		Use:   "usage [WORKSPACE]",
		Short: "Show what a workspace has used of each of its limits",
		Long: `Shows each budget with what is spent, what is reserved for running runs, what is
left and when it begins anew; who holds the concurrent runs; the runs of the month;
and which limits have kept something from starting today. Days and months are UTC's.
What is reserved and not spent is given back when a run ends.`,
		Example: `  berth workspace usage
  berth workspace usage vision -o json`,
		Args:              takes("[WORKSPACE]"),
		ValidArgsFunction: a.completeOne(workspaceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			ref, err := a.workspaceRef(c.Context(), cl, args)
			if err != nil {
				return err
			}
			u, err := cl.WorkspaceUsage(c.Context(), ref)
			if err != nil {
				return err
			}
			if err := showOne(a, workspaceUsageKind(newNames(c.Context(), cl)), u); err != nil || a.machine() {
				return err
			}
			a.warnOfUsage(u)
			return nil
		}),
	}
}

func workspaceUsageKind(n *names) kind[workspace.WorkspaceUsage] {
	return kind[workspace.WorkspaceUsage]{
		name: func(u *workspace.WorkspaceUsage) string { return u.Slug },
		detail: func(u *workspace.WorkspaceUsage) []section {
			killed := ""
			if u.KillSwitch != "" {
				killed = "of the " + u.KillSwitch + " is ON: nothing starts"
			}
			return []section{
				{label: "Workspace", text: u.Slug},
				{label: "Kill switch", text: killed},
				{label: "Spent in all", text: workspace.FormatUSD(u.Spent)},
				{label: "Reserved", text: workspace.FormatUSD(u.Reserved)},
				{label: "Runs this month", text: monthText(u)},
				{label: "Concurrent runs", text: concurrencyText(&u.Concurrency)},
				{label: "Budgets (USD)", rows: budgetRows(u)},
				{label: "Active runs", rows: holderRows(n, u.Concurrency.Holders)},
				{label: "Denied today", rows: deniedRows(u.DeniedToday)},
			}
		},
	}
}

func monthText(u *workspace.WorkspaceUsage) string {
	m := &u.MonthlyRuns
	text := strconv.FormatInt(m.Runs, 10)
	if m.Limit != nil {
		text += fmt.Sprintf(" of %d", *m.Limit)
	}
	return text + ", begins anew " + resetText(u.At, m.ResetsAt)
}

func concurrencyText(c *workspace.ConcurrencyUsage) string {
	text := fmt.Sprintf("%d of %d", c.Active, c.Limit)
	if c.Waiting > 0 {
		text += fmt.Sprintf(", %d waiting", c.Waiting)
	}
	return text
}

// resetText is when something begins anew, by the cluster's clock.
func resetText(now, at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return fmt.Sprintf("in %s, at %s", formatDuration(at.Sub(now)), at.UTC().Format(time.RFC3339))
}

var budgetNames = map[string]string{
	"workspace_daily": "daily budget", "user_daily": "user daily budget",
	"spending_limit": "spending limit", "cluster_daily": "cluster's daily budget",
}

func budgetRows(u *workspace.WorkspaceUsage) [][]string {
	rows := [][]string{{"BUDGET", "USER", "LIMIT", "SPENT", "RESERVED", "LEFT", "BEGINS ANEW"}}
	for i := range u.Budgets {
		b := &u.Budgets[i]
		rows = append(rows, []string{orText(budgetNames[b.Budget], b.Budget), b.User, usdLimit(b.Limit), usdNumber(b.Spent),
			usdNumber(b.Reserved), usdLimit(b.Left), resetText(u.At, b.ResetsAt)})
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func holderRows(n *names, holders []workspace.ConcurrencyHolder) [][]string {
	rows := [][]string{{"NAME", "USER", "KIND", "PHASE", "NODE", "SINCE", "USD/HOUR", "PAID UNTIL"}}
	for i := range holders {
		h := &holders[i]
		paid := ""
		if !h.PaidUntil.IsZero() {
			paid = h.PaidUntil.UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{orText(h.Name, h.Run), h.User, string(h.Kind), string(h.Phase), n.node(h.Node),
			moment(h.Since), usdNumber(h.Rate), paid})
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func deniedRows(denied map[workspace.Code]int64) [][]string {
	var rows [][]string
	for _, code := range slices.Sorted(maps.Keys(denied)) {
		rows = append(rows, []string{string(code), strconv.FormatInt(denied[code], 10)})
	}
	return rows
}
