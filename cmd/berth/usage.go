package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// daysFlags choose days of the ledger.
type daysFlags struct{ since, until string }

func (d *daysFlags) addTo(c *cobra.Command) {
	c.Flags().StringVar(&d.since, "since", "", "first UTC day, such as 2026-01-01, or so many days ago, such as 7d")
	c.Flags().StringVar(&d.until, "until", "", "last UTC day, in the same forms")
}

// query with days as the daemon takes them; it refuses what is no date.
func (d *daysFlags) query(now time.Time) client.UsageQuery {
	return client.UsageQuery{Since: absoluteDay(now, d.since), Until: absoluteDay(now, d.until)}
}

func absoluteDay(now time.Time, text string) string {
	days, isRelative := strings.CutSuffix(text, "d")
	n, err := strconv.ParseUint(days, 10, 16)
	if !isRelative || err != nil {
		return text
	}
	return now.UTC().AddDate(0, 0, -int(n)).Format(time.DateOnly)
}

func (a *app) usageCommand() *cobra.Command {
	var days daysFlags
	var by []string
	dimensions := each(workspace.UsageDimensions, func(d string) string { return strings.ReplaceAll(d, "_", "-") })
	c := &cobra.Command{
		Use:   "usage",
		Short: "Sum up what was spent, by workspace, user, project, day or GPU type",
		Long: `Sums up what runs have cost, of all workspaces or of the one that --workspace names.
--by tells the sums apart. Days are UTC's, and both ends are included. TIME is that of
runs with a price, GPU TIME the same times the GPUs they had.

-o csv has amounts in USD and in millionths of it, and times in milliseconds.`,
		Example: `  berth usage --by workspace,user --since 30d
  berth usage --by day,gpu-type --since 2026-01-01 --until 2026-01-31 -o csv`,
		Annotations:       map[string]string{ownOutputs: "table wide json yaml csv"},
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			q := days.query(time.Now())
			for _, d := range by {
				if !slices.Contains(dimensions, d) {
					return usagef("--by %s is none of %s", d, strings.Join(dimensions, ", "))
				}
				q.By = append(q.By, strings.ReplaceAll(d, "-", "_"))
			}
			report, err := cl.Usage(c.Context(), q)
			if err != nil {
				return err
			}
			return a.showUsage(c.Context(), cl, report)
		}),
	}
	days.addTo(c)
	c.Flags().StringSliceVar(&by, "by", nil, "tell apart by "+strings.Join(dimensions, ", "))
	must(c.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(dimensions, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) showUsage(ctx context.Context, cl *client.Client, report *workspace.UsageReport) error {
	n := newNames(ctx, cl)
	switch {
	case a.machine():
		return a.writeDocument(report)
	case a.output == "csv":
		return a.writeUsageCSV(n, report)
	}
	columns := usageColumns(n, report.By)
	rows := report.Items
	if len(report.By) == 0 {
		rows = []workspace.UsageRow{report.Total}
	}
	t := a.newTable()
	if len(report.By) == 0 || a.noHeaders {
		writeRows(t, columns, rows)
		return nil
	}
	const total = "TOTAL"
	t.widths = []int{len(total)}
	writeRows(t, columns, rows)
	columns[0].cell = func(*workspace.UsageRow) string { return total }
	writeRows(t, columns, []workspace.UsageRow{report.Total})
	return nil
}

// dimensionCells are how a row is told apart, in the order asked for.
var dimensionCells = map[string]func(*names, *workspace.UsageRow) string{
	"workspace": func(n *names, r *workspace.UsageRow) string { return n.workspace(r.Workspace) },
	"user":      func(_ *names, r *workspace.UsageRow) string { return r.User },
	"project":   func(_ *names, r *workspace.UsageRow) string { return r.Project },
	"gpu_type":  func(_ *names, r *workspace.UsageRow) string { return r.GPUType },
	"day": func(_ *names, r *workspace.UsageRow) string {
		if r.Day == nil {
			return ""
		}
		return r.Day.String()
	},
}

func usageColumns(n *names, by []string) []column[workspace.UsageRow] {
	var columns []column[workspace.UsageRow]
	for _, d := range by {
		if cell := dimensionCells[d]; cell != nil {
			columns = append(columns, column[workspace.UsageRow]{title: strings.ToUpper(strings.ReplaceAll(d, "_", " ")),
				cell: func(r *workspace.UsageRow) string { return cell(n, r) }})
		}
	}
	return append(columns,
		column[workspace.UsageRow]{title: "SPENT", cell: func(r *workspace.UsageRow) string { return workspace.FormatUSD(r.Spent) }},
		column[workspace.UsageRow]{title: "TIME", cell: func(r *workspace.UsageRow) string { return longTime(r.MS) }},
		column[workspace.UsageRow]{title: "GPU TIME", cell: func(r *workspace.UsageRow) string { return longTime(r.GPUMS) }},
		column[workspace.UsageRow]{title: "RUNS", cell: func(r *workspace.UsageRow) string { return strconv.FormatInt(r.Runs, 10) }})
}

// longTime is milliseconds as hours, minutes and seconds, to the second below.
func longTime(ms int64) string {
	s := ms / 1000
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (a *app) writeUsageCSV(n *names, report *workspace.UsageReport) error {
	var header []string
	for _, d := range report.By {
		if d == "workspace" {
			header = append(header, "workspace_id")
		}
		header = append(header, d)
	}
	w := csv.NewWriter(a.stdout)
	if !a.noHeaders {
		_ = w.Write(append(header, "spent_usd", "spent_micro_usd", "charged_ms", "gpu_ms", "runs")) // Error tells
	}
	for i := range report.Items {
		r := &report.Items[i]
		var cells []string
		for _, d := range report.By {
			if d == "workspace" {
				cells = append(cells, r.Workspace)
			}
			cells = append(cells, dimensionCells[d](n, r))
		}
		_ = w.Write(append(cells, usdNumber(r.Spent), strconv.FormatInt(r.Spent, 10), strconv.FormatInt(r.MS, 10),
			strconv.FormatInt(r.GPUMS, 10), strconv.FormatInt(r.Runs, 10)))
	}
	w.Flush()
	return w.Error()
}
