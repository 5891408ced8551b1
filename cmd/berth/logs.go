package main

import (
	"errors"

	"github.com/spf13/cobra"

	"berth/client"
)

func (a *app) logsCommand() *cobra.Command {
	var o client.LogOptions
	var tail int
	c := &cobra.Command{
		Use:   "logs INSTANCE",
		Short: "Show what an instance has written to its output",
		Long: `Shows the output of an instance's latest run, or of the one that --run names, also
after it has ended, as long as the node keeps it. -f goes on until the run ends.`,
		Example: `  berth logs nb
  berth logs -f --tail 20 nb
  berth logs train --run 01980000-0000-7000-800d-000000000007`,
		Args:              takes("INSTANCE"),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if c.Flags().Changed("tail") {
				if tail < 0 {
					return usagef("--tail %d must be a number of lines", tail)
				}
				o.Tail = &tail
			}
			err := cl.Logs(c.Context(), args[0], o, a.stdout)
			if o.Follow && c.Context().Err() != nil && errors.Is(err, c.Context().Err()) {
				return nil // that is how one stops to follow
			}
			return err
		}),
	}
	f := c.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on until the run ends")
	f.IntVar(&tail, "tail", 0, "only so many lines from the end (default: all)")
	f.StringVar(&o.Run, "run", "", "id of an earlier run (berth run ls --instance NAME)")
	must(c.RegisterFlagCompletionFunc("run", a.complete(runIDs)))
	return c
}
