package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// killSwitch is one that a command turns: how to look at it, how to turn it, and
// whose it is.
type killSwitch struct {
	look func(context.Context, *client.Client) (*workspace.KillSwitch, error)
	turn func(context.Context, *client.Client, bool) (*workspace.KillSwitch, error)
	of   string // "workspace" or "cluster"
}

func (a *app) workspaceKillSwitch() *cobra.Command {
	c := killSwitchCommand("[WORKSPACE]", "a workspace")
	c.Example = `  berth workspace kill-switch on vision
  berth workspace kill-switch off vision`
	c.ValidArgsFunction = a.completeSwitch(workspaceNames)
	return a.killSwitchVerb(c, takes("on|off", "[WORKSPACE]"), func(ctx context.Context, cl *client.Client, args []string) (killSwitch, error) {
		ref, err := a.workspaceRef(ctx, cl, args)
		return killSwitch{of: "workspace",
			look: func(ctx context.Context, cl *client.Client) (*workspace.KillSwitch, error) {
				return cl.KillSwitch(ctx, ref)
			},
			turn: func(ctx context.Context, cl *client.Client, on bool) (*workspace.KillSwitch, error) {
				return cl.SetKillSwitch(ctx, ref, on)
			},
		}, err
	})
}

func (a *app) clusterKillSwitch() *cobra.Command {
	c := killSwitchCommand("", "the cluster, in all workspaces")
	c.Example = `  berth cluster kill-switch on --yes
  berth cluster kill-switch off`
	c.ValidArgsFunction = a.completeSwitch(nil)
	return a.killSwitchVerb(c, takes("on|off"), func(context.Context, *client.Client, []string) (killSwitch, error) {
		return killSwitch{of: "cluster",
			look: func(ctx context.Context, cl *client.Client) (*workspace.KillSwitch, error) {
				return cl.ClusterKillSwitch(ctx)
			},
			turn: func(ctx context.Context, cl *client.Client, on bool) (*workspace.KillSwitch, error) {
				return cl.SetClusterKillSwitch(ctx, on)
			},
		}, nil
	})
}

func killSwitchCommand(what, of string) *cobra.Command {
	return &cobra.Command{
		Use:   strings.TrimSpace("kill-switch on|off " + what),
		Short: "Stop all that runs in " + of + " and let nothing start",
		Long: `on stops all that runs in ` + of + `, each run with its grace time, and nothing
starts until it is off again. Jobs that wait stay in the queue. off restarts nothing
that was stopped. Runs on a host that can't be reached stop when it reconnects.

on shows what it will stop and asks first. Without a terminal it needs --yes.`,
	}
}

// completeSwitch offers on and off, then names.
func (a *app) completeSwitch(names lookup) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return []cobra.Completion{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
		case len(args) == 1 && names != nil:
			return a.complete(names)(c, args, start)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) killSwitchVerb(c *cobra.Command, args cobra.PositionalArgs, find func(context.Context, *client.Client, []string) (killSwitch, error)) *cobra.Command {
	var yes bool
	c.Args = args
	c.RunE = a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
		if args[0] != "on" && args[0] != "off" {
			return usagef("%s takes on or off, not %q", c.CommandPath(), args[0])
		}
		k, err := find(c.Context(), cl, args[1:])
		if err != nil {
			return err
		}
		on := args[0] == "on"
		if on && !yes {
			if err := a.confirmKill(c, cl, k); err != nil {
				return err
			}
		}
		done, err := k.turn(c.Context(), cl, on)
		if err != nil {
			return err
		}
		return a.tellKill(done, k.of)
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}

// confirmKill shows what will be stopped and asks.
func (a *app) confirmKill(c *cobra.Command, cl *client.Client, k killSwitch) error {
	will, err := k.look(c.Context(), cl)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s %s: %s", k.of, will.Name, killText(will, "will be stopped"))
	if !isTerminal(a.stdin) {
		return usagef("%s; there is no terminal to ask on, so nothing was done: say --yes", what)
	}
	fmt.Fprintln(a.stderr, printable(what))
	return a.confirm("Turn the kill switch of %s %s on?", k.of, will.Name)
}

func (a *app) tellKill(k *workspace.KillSwitch, of string) error {
	switch {
	case a.machine():
		return a.writeDocument(k)
	case a.output == "name":
		a.say("%s", k.Name)
	case k.Active:
		a.say("the kill switch of %s %s is on: %s", of, k.Name, killText(k, "stopping"))
	default:
		a.say("the kill switch of %s %s is off: jobs that wait go on, nothing that was stopped is restarted", of, k.Name)
	}
	return nil
}

// killText counts and names the runs that a kill switch stops.
func killText(k *workspace.KillSwitch, how string) string {
	var parts []string
	if len(k.Runs) > 0 {
		parts = append(parts, stoppedText(k.Runs, how))
	}
	if len(k.Unreachable) > 0 {
		parts = append(parts, stoppedText(k.Unreachable, "on hosts that can't be reached, stopped when they reconnect"))
	}
	return orText(strings.Join(parts, "; "), "nothing runs")
}

func stoppedText(runs []workspace.StoppedRun, how string) string {
	noun := "runs"
	if len(runs) == 1 {
		noun = "run"
	}
	return fmt.Sprintf("%d %s %s: %s", len(runs), noun, how, strings.Join(each(runs, stoppedName), ", "))
}

// stoppedName is one run: its instance's name, its user and its host.
func stoppedName(r workspace.StoppedRun) string {
	about := r.User
	if host := orText(r.NodeName, r.Node); host != "" {
		about += " on " + host
	}
	return fmt.Sprintf("%s (%s)", orText(r.Name, r.Run), about)
}
