package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) workspaceArchive() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "archive SLUG",
		Short: "End a workspace for good: what runs in it is stopped",
		Long: `Archives a workspace: what waits is cancelled, what runs is stopped, nothing starts
in it again. There is no way back, so it says what it stops and asks first. Without
a terminal it needs --yes.`,
		Example:           `  berth workspace archive vision --yes`,
		Args:              takes("SLUG"),
		ValidArgsFunction: a.completeOne(workspaceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if err := a.confirmEnd(c.Context(), cl, "Archive", args[0], yes); err != nil {
				return err
			}
			w, err := cl.ArchiveWorkspace(c.Context(), args[0])
			if err != nil {
				return err
			}
			return did(a, workspaceKind(nil), w, "workspace %s archived", w.Slug)
		}),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}

func (a *app) workspaceRm() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:     "rm SLUG",
		Aliases: []string{"delete", "remove"},
		Short:   "Archive a workspace and take it out of lists",
		Long: `Archives a workspace, if it isn't yet, and takes it out of lists. What it has cost
stays in the ledger, and its slug isn't used again. There is no way back, so it says
what it stops and asks first. Without a terminal it needs --yes.`,
		Example:           `  berth workspace rm vision --yes`,
		Args:              takes("SLUG"),
		ValidArgsFunction: a.completeOne(workspaceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if err := a.confirmEnd(c.Context(), cl, "Delete", args[0], yes); err != nil {
				return err
			}
			if err := cl.DeleteWorkspace(c.Context(), args[0]); err != nil {
				return err
			}
			a.say("workspace %s deleted", args[0])
			return nil
		}),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}

// confirmEnd says what the end of a workspace stops, and asks.
func (a *app) confirmEnd(ctx context.Context, cl *client.Client, verb, ref string, yes bool) error {
	if yes {
		return nil
	}
	w, err := cl.Workspace(ctx, ref)
	if err != nil {
		return err
	}
	stops, err := whatStops(ctx, cl, w.ID)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s workspace %s for good? That %s.", verb, w.Slug, stops)
	if !isTerminal(a.stdin) {
		return usagef("%s There is no terminal to ask on, so nothing was done: say --yes", what)
	}
	return a.confirm("%s", what)
}

// whatStops says what the end of a workspace would stop and cancel.
func whatStops(ctx context.Context, cl *client.Client, id string) (string, error) {
	runs, err := all(ctx, cl.Runs, client.ListOptions{Workspace: id, Latest: true})
	if err != nil {
		return "", err
	}
	var stopped, cancelled int
	for i := range runs {
		switch {
		case runs[i].Phase == workspace.PhasePending:
			cancelled++
		case runs[i].Phase.Active():
			stopped++
		}
	}
	var parts []string
	if stopped > 0 {
		parts = append(parts, fmt.Sprintf("stops %s", counted(stopped, "run")))
	}
	if cancelled > 0 {
		parts = append(parts, fmt.Sprintf("cancels %s in the queue", counted(cancelled, "run")))
	}
	return orText(strings.Join(parts, " and "), "stops nothing"), nil
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
