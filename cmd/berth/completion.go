package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
)

// completionTime bounds what a press of the tab key may take.
const completionTime = time.Second

type lookup func(context.Context, *client.Client) ([]string, error)

// complete offers names from the daemon, each once on a command line. A daemon
// that doesn't answer offers nothing: a shell has nowhere to show an error.
func (a *app) complete(names lookup) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		cl, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(c.Context(), completionTime)
		defer cancel()
		found, err := names(ctx, cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return without(found, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOne is complete for a command that takes one name.
func (a *app) completeOne(names lookup) cobra.CompletionFunc {
	many := a.complete(names)
	return func(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return many(c, args, start)
	}
}

func without(names, used []string) []string {
	taken := map[string]bool{}
	for _, u := range used {
		taken[u] = true
	}
	var left []string
	for _, n := range names {
		if !taken[n] {
			left = append(left, n)
		}
	}
	return left
}

func completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Write a completion script for a shell",
		Long: `Writes a script that makes the tab key complete commands, flags, and the names
of instances, workspaces, templates and nodes, which it asks the daemon for.`,
		Example: `  berth completion bash >/etc/bash_completion.d/berth
  source <(berth completion zsh)
  berth completion fish >~/.config/fish/completions/berth.fish`,
		Args:              takes("SHELL"),
		ValidArgsFunction: cobra.FixedCompletions(shells, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usagef("%q is no shell that berth can complete in: it knows bash, zsh, fish, powershell", args[0])
		},
	}
}
