package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) workspaceCommand() *cobra.Command {
	return noun("workspace", "Tenants: who shares instances and limits", []string{"workspaces", "ws"},
		a.workspaceLs(), a.workspaceGet(), a.workspaceCreate(), a.workspaceSet(), a.workspaceUsage(), a.workspaceKillSwitch(),
		a.workspaceBlock(), a.workspaceUnblock(), a.workspaceArchive(), a.workspaceRm())
}

func workspaceKind(*names) kind[workspace.Workspace] {
	return kind[workspace.Workspace]{
		id:   func(w *workspace.Workspace) string { return w.ID },
		name: func(w *workspace.Workspace) string { return w.Slug },
		columns: []column[workspace.Workspace]{
			{title: "SLUG", cell: func(w *workspace.Workspace) string { return w.Slug }},
			{title: "NAME", cell: workspaceName},
			{title: "STATUS", cell: workspaceStatus},
			{title: "PLAN", cell: func(w *workspace.Workspace) string { return string(w.Plan) }},
			{title: "MAX RUNS", cell: func(w *workspace.Workspace) string { return strconv.Itoa(w.Limits.MaxConcurrentRuns) }},
			{title: "AGE", cell: func(w *workspace.Workspace) string { return age(w.CreatedAt) }},
			{title: "DAILY BUDGET", wide: true, cell: func(w *workspace.Workspace) string { return usdText(w.Limits.DailyBudget) }},
			{title: "ID", wide: true, cell: func(w *workspace.Workspace) string { return w.ID }},
			{title: "DESCRIPTION", wide: true, cell: func(w *workspace.Workspace) string { return w.Description }},
		},
		detail: workspaceDetail,
	}
}

func workspaceName(w *workspace.Workspace) string {
	if w.Name == nil {
		return ""
	}
	return *w.Name
}

func workspaceStatus(w *workspace.Workspace) string {
	switch {
	case w.Archived():
		return "archived"
	case w.KillSwitch:
		return "kill switch on"
	case w.IsDefault:
		return "default"
	}
	return "active"
}

func workspaceDetail(w *workspace.Workspace) []section {
	return slices.Concat([]section{
		{label: "Slug", text: w.Slug},
		{label: "Name", text: workspaceName(w)},
		{label: "ID", text: w.ID},
		{label: "Description", text: w.Description},
		{label: "Status", text: workspaceStatus(w)},
	}, limitsText(w), []section{
		{label: "Data retention", text: fmt.Sprintf("%d %s", w.Retention.Value, w.Retention.Unit)},
		{label: "Settings", text: string(w.Settings)},
		{label: "Created", text: moment(w.CreatedAt)},
		{label: "Updated", text: moment(w.UpdatedAt)},
		{label: "Archived", text: moment(w.ArchivedAt)},
	})
}

func (a *app) workspaceLs() *cobra.Command {
	var archived bool
	c := lsVerb(a, cobra.Command{
		Short: "List workspaces",
		Long:  `Lists workspaces: with --all archived ones too, deleted ones never.`,
		Example: `  berth workspace ls
  berth workspace ls --all`,
	}, source[workspace.Workspace]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Workspace, error) {
			items, err := all(ctx, cl.Workspaces, client.ListOptions{})
			return slices.DeleteFunc(items, func(w workspace.Workspace) bool { return w.Archived() && !archived }), err
		},
		kind: workspaceKind,
	})
	c.Flags().BoolVar(&archived, "all", false, "archived ones too")
	return c
}

func (a *app) workspaceGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:               "get SLUG",
		Short:             "Show one workspace and its limits",
		Example:           `  berth workspace get default -o json`,
		Args:              takes("SLUG"),
		ValidArgsFunction: a.completeOne(workspaceNames),
	}, func(ctx context.Context, cl *client.Client, ref string) (*workspace.Workspace, error) {
		return cl.Workspace(ctx, ref)
	}, workspaceKind)
}

func (a *app) workspaceCreate() *cobra.Command {
	var n workspace.NewWorkspace
	var file, retention string
	limits := &limitFlags{}
	c := &cobra.Command{
		Use:     "create [NAME]",
		Aliases: []string{"new"},
		Short:   "Make a workspace",
		Long: `Makes a workspace. Its slug, by which other commands know it, is made of the name
unless --slug says otherwise. -f reads the request from a file, YAML or JSON with
the keys of the API; flags go over it.`,
		Example: `  berth workspace create "Speech team"
  berth workspace create --slug vision --retention 36h --daily-budget 100`,
		Args:              takes("[NAME]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			var r workspace.NewWorkspace
			if file != "" {
				if err := readDocument(file, a.stdin, &r); err != nil {
					return err
				}
			}
			if len(args) > 0 {
				r.Name = &args[0]
			}
			r.Slug, r.Description = orText(n.Slug, r.Slug), orText(n.Description, r.Description)
			r.Plan = workspace.Plan(orText(limits.plan, string(r.Plan)))
			limits.over(c, &r.LimitsChange, r.Ceilings.Value)
			if retention != "" {
				parsed, err := parseRetention(retention)
				if err != nil {
					return err
				}
				r.Retention = parsed
			}
			w, err := cl.CreateWorkspace(c.Context(), r)
			if err != nil {
				return err
			}
			if err := did(a, workspaceKind(nil), w, "workspace %s created", w.Slug); err != nil {
				return err
			}
			return a.warnOfBudgets(c.Context(), cl, w.ID, &r.LimitsChange)
		}),
	}
	f := c.Flags()
	f.StringVarP(&file, "file", "f", "", "read the request from a file (- is standard input)")
	f.StringVar(&n.Slug, "slug", "", "slug: a-z, 0-9 and hyphens")
	f.StringVar(&n.Description, "description", "", "a text for people")
	f.StringVar(&retention, "retention", "", "how long result data outlives its run, such as 7d or 36h")
	limits.addTo(c)
	return c
}

func parseRetention(text string) (*workspace.Retention, error) {
	units := map[string]string{"h": "hours", "d": "days"}
	number, unit := strings.TrimRight(text, "hd"), strings.TrimLeft(text, "0123456789")
	value, err := strconv.Atoi(number)
	if err != nil || units[unit] == "" {
		return nil, usagef("--retention %q must be a number of days or hours, such as 7d or 36h", text)
	}
	return &workspace.Retention{Unit: units[unit], Value: value}, nil
}

func (a *app) workspaceSet() *cobra.Command {
	u := &updating{}
	c := &cobra.Command{
		Use:     "set SLUG",
		Aliases: []string{"update"},
		Short:   "Change a workspace's name, plan, limits or retention",
		Long: `Changes what is given of a workspace; the rest stays as it is. Budgets are in USD,
and none takes one away. Lowering a limit stops nothing that runs: nothing new
starts until there is room again. A spending limit can't be set below what is spent
and reserved.`,
		Example: `  berth workspace set vision --max-concurrent-runs 20
  berth workspace set vision --daily-budget 100 --user-daily-budget 12.50
  berth workspace set vision --spending-limit none`,
		Args:              takes("SLUG"),
		ValidArgsFunction: a.completeOne(workspaceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			change, err := u.change(c)
			if err != nil {
				return err
			}
			index, err := u.ceilingsOver(c, cl, args[0], &change)
			if err != nil {
				return err
			}
			w, err := cl.UpdateWorkspace(c.Context(), args[0], change, index)
			if err != nil {
				return err
			}
			if err := did(a, workspaceKind(nil), w, "workspace %s updated", w.Slug); err != nil {
				return err
			}
			return a.warnOfBudgets(c.Context(), cl, w.ID, &change.LimitsChange)
		}),
	}
	f := c.Flags()
	f.StringVar(&u.name, "name", "", "new name")
	f.BoolVar(&u.noName, "no-name", false, "take its name away")
	f.StringVar(&u.description, "description", "", "new text for people")
	f.StringVar(&u.retention, "retention", "", "how long result data outlives its run, such as 7d or 36h")
	u.limits.addTo(c)
	return c
}

// updating holds the flags of workspace set.
type updating struct {
	name, description, retention string
	noName                       bool
	limits                       limitFlags
}

// change is what the flags that were given ask for.
func (u *updating) change(c *cobra.Command) (workspace.WorkspaceChange, error) {
	change := workspace.WorkspaceChange{Name: workspace.Optional[string]{Set: u.noName}}
	given := c.Flags().Changed
	if err := exclusive(c, "name", "no-name"); err != nil {
		return change, err
	}
	if given("name") {
		change.Name = workspace.Optional[string]{Set: true, Value: &u.name}
	}
	if given("description") {
		change.Description = &u.description
	}
	if given("plan") {
		change.Plan = (*workspace.Plan)(&u.limits.plan)
	}
	if given("retention") {
		retention, err := parseRetention(u.retention)
		if err != nil {
			return change, err
		}
		change.Retention = retention
	}
	if !u.limits.given(c) && !slices.ContainsFunc([]string{"name", "no-name", "description", "retention"}, given) {
		return change, usagef("%s needs something to change: see %s --help", c.CommandPath(), c.CommandPath())
	}
	return change, nil
}
