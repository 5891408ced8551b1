package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// limitFlags are the flags of a workspace's limits, the same for a new one.
type limitFlags struct {
	change  workspace.LimitsChange
	plan    string
	maxRuns int
	def     bool

	ceilingDaily, ceilingUser workspace.Optional[int64]
	ceilingRuns               workspace.Optional[int]
}

var limitFlagNames = []string{"plan", "daily-budget", "user-daily-budget", "spending-limit", "monthly-runs", "max-concurrent-runs",
	"ceiling-daily-budget", "ceiling-user-daily-budget", "ceiling-max-concurrent-runs", "default"}

func (l *limitFlags) addTo(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.plan, "plan", "", "basic, pro, scale or enterprise")
	f.Var(moneyFlag{&l.change.DailyBudget}, "daily-budget", "most that it may spend on a UTC day, such as 100 or 12.50")
	f.Var(moneyFlag{&l.change.UserDailyBudget}, "user-daily-budget", "most that each user may spend in it on a UTC day")
	f.Var(moneyFlag{&l.change.SpendingLimit}, "spending-limit", "most that it may spend for ever")
	f.Var(countFlag[int64]{&l.change.MonthlyRuns}, "monthly-runs", "how many runs may begin in a UTC month; none: what its plan allows")
	f.IntVar(&l.maxRuns, "max-concurrent-runs", 0, "how many runs may be active at once")
	f.Var(moneyFlag{&l.ceilingDaily}, "ceiling-daily-budget", "highest daily budget that its owners may set")
	f.Var(moneyFlag{&l.ceilingUser}, "ceiling-user-daily-budget", "highest user's daily budget that its owners may set")
	f.Var(countFlag[int]{&l.ceilingRuns}, "ceiling-max-concurrent-runs", "most concurrent runs that its owners may set")
	f.BoolVar(&l.def, "default", false, "make it the default workspace")
	must(c.RegisterFlagCompletionFunc("plan", cobra.FixedCompletions(planNames, cobra.ShellCompDirectiveNoFileComp)))
}

var planNames = []string{"basic", "pro", "scale", "enterprise"}

// given reports whether any flag was.
func (l *limitFlags) given(c *cobra.Command) bool {
	return slices.ContainsFunc(limitFlagNames, c.Flags().Changed)
}

// over puts what was given over a change. old are the ceilings in force, which
// are replaced whole.
func (l *limitFlags) over(c *cobra.Command, change *workspace.LimitsChange, old *workspace.Ceilings) {
	for _, f := range []struct{ from, to *workspace.Optional[int64] }{
		{&l.change.DailyBudget, &change.DailyBudget}, {&l.change.UserDailyBudget, &change.UserDailyBudget},
		{&l.change.SpendingLimit, &change.SpendingLimit}, {&l.change.MonthlyRuns, &change.MonthlyRuns},
	} {
		if f.from.Set {
			*f.to = *f.from
		}
	}
	if c.Flags().Changed("max-concurrent-runs") {
		change.MaxConcurrentRuns = &l.maxRuns
	}
	if l.def {
		change.IsDefault = &l.def
	}
	if l.setsCeilings() {
		change.Ceilings = l.ceilings(old)
	}
}

func (l *limitFlags) setsCeilings() bool {
	return l.ceilingDaily.Set || l.ceilingUser.Set || l.ceilingRuns.Set
}

func (l *limitFlags) ceilings(old *workspace.Ceilings) workspace.Optional[workspace.Ceilings] {
	var n workspace.Ceilings
	if old != nil {
		n = *old
	}
	if l.ceilingDaily.Set {
		n.DailyBudget = l.ceilingDaily.Value
	}
	if l.ceilingUser.Set {
		n.UserDailyBudget = l.ceilingUser.Value
	}
	if l.ceilingRuns.Set {
		n.MaxConcurrentRuns = l.ceilingRuns.Value
	}
	if n == (workspace.Ceilings{}) {
		return workspace.Optional[workspace.Ceilings]{Set: true}
	}
	return workspace.Optional[workspace.Ceilings]{Set: true, Value: &n}
}

// ceilingsOver puts the limits into a change. Ceilings are replaced whole, so
// those that no flag names are read first: index is that of what was read.
func (u *updating) ceilingsOver(c *cobra.Command, cl *client.Client, ref string, change *workspace.WorkspaceChange) (index uint64, err error) {
	var old *workspace.Ceilings
	if u.limits.setsCeilings() {
		w, err := cl.Workspace(c.Context(), ref)
		if err != nil {
			return 0, err
		}
		old, index = w.Limits.Ceilings, w.ModifyIndex
	}
	u.limits.over(c, &change.LimitsChange, old)
	return index, nil
}

// warnOfBudgets tells what is odd about the budgets that a change has set.
func (a *app) warnOfBudgets(ctx context.Context, cl *client.Client, ref string, change *workspace.LimitsChange) error {
	if change.DailyBudget.Value == nil && change.UserDailyBudget.Value == nil && change.SpendingLimit.Value == nil {
		return nil
	}
	u, err := cl.WorkspaceUsage(ctx, ref)
	if err != nil {
		return err
	}
	a.warnOfUsage(u)
	return nil
}

func (a *app) warnOfUsage(u *workspace.WorkspaceUsage) {
	for _, warning := range u.Warnings {
		fmt.Fprintln(a.stderr, printable("WARNING: "+warning))
	}
}

// limitsText is the part of get that is about limits.
func limitsText(w *workspace.Workspace) []section {
	l := &w.Limits
	return []section{
		{label: "Plan", text: string(w.Plan)},
		{label: "Daily budget", text: usdText(l.DailyBudget)},
		{label: "User daily budget", text: usdText(l.UserDailyBudget)},
		{label: "Spending limit", text: spendingText(l.Spending)},
		{label: "Runs a month", text: monthlyText(l.MonthlyRuns)},
		{label: "Max concurrent runs", text: strconv.Itoa(l.MaxConcurrentRuns)},
		{label: "Ceilings", text: ceilingsText(l.Ceilings)},
	}
}

func spendingText(s *workspace.SpendingLimit) string {
	if s == nil {
		return none
	}
	return fmt.Sprintf("%s for ever: %s spent, %s reserved", workspace.FormatUSD(s.Amount),
		workspace.FormatUSD(s.Accrued), workspace.FormatUSD(s.Reserved))
}

func monthlyText(limit *int64) string {
	if limit == nil {
		return "what its plan allows"
	}
	return strconv.FormatInt(*limit, 10)
}

func ceilingsText(c *workspace.Ceilings) string {
	if c == nil {
		return none
	}
	var parts []string
	if c.DailyBudget != nil {
		parts = append(parts, "daily budget "+workspace.FormatUSD(*c.DailyBudget))
	}
	if c.UserDailyBudget != nil {
		parts = append(parts, "user daily budget "+workspace.FormatUSD(*c.UserDailyBudget))
	}
	if c.MaxConcurrentRuns != nil {
		parts = append(parts, fmt.Sprintf("%d concurrent runs", *c.MaxConcurrentRuns))
	}
	return orText(strings.Join(parts, ", "), none)
}

// workspaceRef is the workspace that an argument names, else --workspace, else
// the default one.
func (a *app) workspaceRef(ctx context.Context, cl *client.Client, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if named := orText(a.workspace, os.Getenv("BERTH_WORKSPACE")); named != "" {
		return named, nil
	}
	workspaces, err := all(ctx, cl.Workspaces, client.ListOptions{})
	if err != nil {
		return "", err
	}
	for i := range workspaces {
		if workspaces[i].IsDefault {
			return workspaces[i].Slug, nil
		}
	}
	return "", workspace.Errorf(workspace.CodeNotFound, "you see no default workspace: name one with --workspace")
}

func (a *app) workspaceBlock() *cobra.Command {
	return a.blockVerb(cobra.Command{
		Use:   "block USER",
		Short: "Let a user start nothing more in a workspace",
		Long: `Keeps a user from starting anything in a workspace. What runs goes on: stop it, or
turn the kill switch on, to end it.`,
		Example: `  berth workspace block mallory -w vision`,
	}, true, "%s may not start anything in workspace %s; what runs goes on")
}

func (a *app) workspaceUnblock() *cobra.Command {
	return a.blockVerb(cobra.Command{
		Use:     "unblock USER",
		Short:   "Let a user start things again",
		Example: `  berth workspace unblock mallory -w vision`,
	}, false, "%s may start things in workspace %s again")
}

func (a *app) blockVerb(c cobra.Command, blocked bool, done string) *cobra.Command {
	c.Args, c.ValidArgsFunction = takes("USER"), cobra.NoFileCompletions
	c.RunE = a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
		ref, err := a.workspaceRef(c.Context(), cl, nil)
		if err != nil {
			return err
		}
		m, err := cl.BlockUser(c.Context(), ref, args[0], blocked)
		if err != nil {
			return err
		}
		member := kind[workspace.Member]{name: func(m *workspace.Member) string { return m.User }}
		return did(a, member, m, done, m.User, ref)
	})
	return &c
}
