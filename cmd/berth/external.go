package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) externalCommand() *cobra.Command {
	return noun("external", "Runs of other programs, which ask for leave", nil,
		a.externalLs(), a.externalStart(), a.externalRenew(), a.externalEnd())
}

// externalKind shows external runs in a list; alone, one is shown as any run.
func externalKind(n *names) kind[workspace.Run] {
	k := runKind(n)
	k.columns = []column[workspace.Run]{
		{title: "ID", cell: func(r *workspace.Run) string { return r.ID }},
		{title: "NAME", cell: func(r *workspace.Run) string { return r.Name }},
		{title: "USER", cell: func(r *workspace.Run) string { return r.User }},
		{title: "PHASE", cell: func(r *workspace.Run) string { return string(r.Phase) }},
		{title: "REASON", cell: func(r *workspace.Run) string { return r.Reason }},
		{title: "RATE", cell: rateText},
		{title: "COST", cell: costText},
		{title: "LEASE ENDS", cell: runEndText},
		{title: "AGE", cell: func(r *workspace.Run) string { return age(r.Times.Created) }},
		{title: "WORKSPACE", wide: true, cell: func(r *workspace.Run) string { return n.workspace(r.Workspace) }},
		{title: "MESSAGE", wide: true, cell: func(r *workspace.Run) string { return r.Message }},
	}
	return k
}

func (a *app) externalLs() *cobra.Command {
	var everywhere bool
	var phase string
	c := lsVerb(a, cobra.Command{
		Short: "List external runs, denied and ended ones too",
		Example: `  berth external ls
  berth external ls --phase running`,
	}, source[workspace.Run]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Run, error) {
			o := client.ListOptions{Kind: string(workspace.KindExternal), Phase: phase}
			if everywhere {
				o.Workspace = "*"
			}
			return all(ctx, cl.Runs, o)
		},
		kind: externalKind,
	})
	c.Flags().BoolVarP(&everywhere, "all-workspaces", "A", false, "of all workspaces")
	c.Flags().StringVar(&phase, "phase", "", "only those in a phase, such as running")
	return c
}

func (a *app) externalStart() *cobra.Command {
	var n workspace.NewExternalRun
	var rate string
	var lease *time.Duration
	c := &cobra.Command{
		Use:   "start [NAME]",
		Short: "Ask for leave to run something elsewhere",
		Long: `Asks whether something may run that berth doesn't run itself: it takes a slot of the
workspace's concurrency, and money if it has a rate. It is admitted at once or
denied, with exit code 5; a denied one is kept as failed for a day and counts
nowhere. Its slot is kept until its lease ends: renew begins that anew.`,
		Example: `  berth external start nightly-eval --rate 1.50
  id=$(berth external start -o name) && run-it; berth external end $id --exit-code $?`,
		Args:              takes("[NAME]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if len(args) > 0 {
				n.Name = args[0]
			}
			if rate != "" {
				micro, err := workspace.ParseUSD("--rate", rate)
				if err != nil {
					return err
				}
				n.Rate = micro
			}
			if lease != nil {
				n.LeaseSeconds = int64((*lease + time.Second - 1) / time.Second)
			}
			run, err := cl.StartExternal(c.Context(), n)
			if err != nil {
				return err
			}
			return did(a, externalKind(newNames(c.Context(), cl)), run, "%s", admittedText(run))
		}),
	}
	c.Flags().StringVar(&n.User, "user", "", "whose it is (default: yours)")
	c.Flags().StringVar(&rate, "rate", "", "what an hour of it costs in USD, such as 1.50")
	c.Flags().Var(spanFlag{&lease}, "lease", "how long its slot is kept without a renewal (default 24h)")
	return c
}

func admittedText(r *workspace.Run) string {
	return fmt.Sprintf("%s: running, until %s unless it is renewed: berth external renew %s", orText(r.Name, "external run"), moment(r.ExpiresAt), r.ID)
}

func (a *app) externalRenew() *cobra.Command {
	return &cobra.Command{
		Use:               "renew ID",
		Short:             "Keep the slot of an external run: its lease begins anew",
		Long:              `Begins the lease of an external run anew. Looking at it (berth run get) renews nothing.`,
		Example:           `  berth external renew 01980000-0000-7000-800d-000000000007`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeOne(externalIDs),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			run, err := cl.RenewExternal(c.Context(), args[0])
			if err != nil {
				return err
			}
			return did(a, externalKind(newNames(c.Context(), cl)), run, "%s", admittedText(run))
		}),
	}
}

func (a *app) externalEnd() *cobra.Command {
	var phase, message string
	var exitCode int
	c := &cobra.Command{
		Use:   "end ID",
		Short: "Say that an external run is over",
		Long: `Says that an external run is over, which gives its slot free. Without --phase it has
succeeded, or failed when --exit-code isn't 0.`,
		Example: `  berth external end 01980000-0000-7000-800d-000000000007
  berth external end 01980000-0000-7000-800d-000000000007 --exit-code 3 --message 'out of disk'`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeOne(externalIDs),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			end := workspace.ExternalEnd{Phase: workspace.Phase(phase), Message: message}
			if c.Flags().Changed("exit-code") {
				end.ExitCode = &exitCode
				if exitCode != 0 && phase == "" {
					end.Phase = workspace.PhaseFailed
				}
			}
			run, err := cl.EndExternal(c.Context(), args[0], end)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%s: %s", orText(run.Name, "external run "+run.ID), run.Phase)
			if run.Cost > 0 {
				text += ", it cost " + workspace.FormatUSD(run.Cost)
			}
			return did(a, externalKind(newNames(c.Context(), cl)), run, "%s", text)
		}),
	}
	c.Flags().StringVar(&phase, "phase", "", "how it ended: succeeded, failed or stopped")
	c.Flags().StringVar(&message, "message", "", "a text for people")
	c.Flags().IntVar(&exitCode, "exit-code", 0, "its process's exit code")
	must(c.RegisterFlagCompletionFunc("phase", cobra.FixedCompletions([]string{"succeeded", "failed", "stopped"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func externalIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Runs, client.ListOptions{Kind: string(workspace.KindExternal), Phase: string(workspace.PhaseRunning)})
	return each(items, func(r workspace.Run) string { return r.ID }), err
}
