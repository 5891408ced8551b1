package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) clusterCommand() *cobra.Command {
	return noun("cluster", "The cluster: limits of all workspaces together, its kill switch", nil,
		a.clusterGet(), a.clusterSet(), a.clusterKillSwitch())
}

func clusterKind() kind[workspace.Cluster] {
	return kind[workspace.Cluster]{
		id:     func(c *workspace.Cluster) string { return c.ID },
		name:   func(c *workspace.Cluster) string { return c.Name },
		detail: clusterDetail,
	}
}

func clusterDetail(c *workspace.Cluster) []section {
	killed := "off"
	if c.KillSwitch {
		killed = "ON: nothing starts"
	}
	return []section{
		{label: "Name", text: c.Name},
		{label: "ID", text: c.ID},
		{label: "Kill switch", text: killed},
		{label: "Daily budget", text: usdText(c.Limits.DailyBudget)},
		{label: "Max concurrent runs", text: countText(c.Limits.MaxConcurrentRuns, none)},
		{label: "Created", text: moment(c.CreatedAt)},
		{label: "New workspaces", rows: [][]string{
			{"Plan", orText(string(c.Defaults.Plan), string(workspace.PlanScale))},
			{"Daily budget", usdText(c.Defaults.DailyBudget)},
			{"User daily budget", usdText(c.Defaults.UserDailyBudget)},
			{"Max concurrent runs", countText(c.Defaults.MaxConcurrentRuns, "what the plan gives")},
		}},
	}
}

// countText is a number, or a word for 0.
func countText(n int, zero string) string {
	if n == 0 {
		return zero
	}
	return strconv.Itoa(n)
}

func (a *app) clusterGet() *cobra.Command {
	return &cobra.Command{
		Use:               "get",
		Aliases:           []string{"show"},
		Short:             "Show the cluster's limits and what new workspaces begin with",
		Example:           `  berth cluster get -o json`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			cluster, err := cl.Cluster(c.Context())
			if err != nil {
				return err
			}
			return showOne(a, clusterKind(), cluster)
		}),
	}
}

// clusterFlags are those of cluster set.
type clusterFlags struct {
	change              workspace.ClusterChange
	name, plan          string
	daily, user         workspace.Optional[int64] // of new workspaces
	newWorkspaceMaxRuns workspace.Optional[int]
}

func (a *app) clusterSet() *cobra.Command {
	s := &clusterFlags{}
	c := &cobra.Command{
		Use:   "set",
		Short: "Change the cluster's name, its limits or what new workspaces begin with",
		Long: `Changes what is given; the rest stays as it is. Budgets are in USD, and none takes
one away. The limits hold for all workspaces together; the defaults are for
workspaces made from now on.`,
		Example: `  berth cluster set --daily-budget 500 --max-concurrent-runs 40
  berth cluster set --default-plan pro --default-daily-budget 50`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			change, index, err := s.asked(c, cl)
			if err != nil {
				return err
			}
			cluster, err := cl.UpdateCluster(c.Context(), change, index)
			if err != nil {
				return err
			}
			return did(a, clusterKind(), cluster, "cluster %s updated", cluster.Name)
		}),
	}
	f := c.Flags()
	f.StringVar(&s.name, "name", "", "new name")
	f.Var(moneyFlag{&s.change.DailyBudget}, "daily-budget", "most that all workspaces together may spend on a UTC day")
	f.Var(countFlag[int]{&s.change.MaxConcurrentRuns}, "max-concurrent-runs", "how many runs may be active at once in all workspaces together")
	f.StringVar(&s.plan, "default-plan", "", "plan of new workspaces")
	f.Var(moneyFlag{&s.daily}, "default-daily-budget", "daily budget of new workspaces")
	f.Var(moneyFlag{&s.user}, "default-user-daily-budget", "user's daily budget of new workspaces")
	f.Var(countFlag[int]{&s.newWorkspaceMaxRuns}, "default-max-concurrent-runs", "concurrent runs of new workspaces; none: what the plan gives")
	must(c.RegisterFlagCompletionFunc("default-plan", cobra.FixedCompletions(planNames, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// asked is what the flags ask for. The defaults are replaced whole, so those
// that no flag names are read first: index is that of what was read.
func (s *clusterFlags) asked(c *cobra.Command, cl *client.Client) (change workspace.ClusterChange, index uint64, err error) {
	change = s.change
	given := c.Flags().Changed
	if given("name") {
		change.Name = &s.name
	}
	defaults := given("default-plan") || s.daily.Set || s.user.Set || s.newWorkspaceMaxRuns.Set
	switch {
	case change == (workspace.ClusterChange{}) && !defaults:
		return change, 0, usagef("%s needs something to change: see %s --help", c.CommandPath(), c.CommandPath())
	case !defaults:
		return change, 0, nil
	}
	old, err := cl.Cluster(c.Context())
	if err != nil {
		return change, 0, err
	}
	d := old.Defaults
	if given("default-plan") {
		d.Plan = workspace.Plan(s.plan)
	}
	if s.daily.Set {
		d.DailyBudget = s.daily.Value
	}
	if s.user.Set {
		d.UserDailyBudget = s.user.Value
	}
	if s.newWorkspaceMaxRuns.Set {
		d.MaxConcurrentRuns = 0
		if n := s.newWorkspaceMaxRuns.Value; n != nil {
			d.MaxConcurrentRuns = *n
		}
	}
	change.Defaults = &d
	return change, old.ModifyIndex, nil
}
