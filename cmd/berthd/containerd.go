package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"berth/runtime/containerd"
)

// containerdCommand looks after the containerd that berthd starts where the
// host has none. It is a process of its own: it outlives berthd.
func containerdCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "containerd", Short: "Look after the containerd that berthd started itself"}
	stop := &cobra.Command{
		Use: "stop", Short: "Stop it; containers go on without it", Args: cobra.NoArgs,
	}
	load := configFlags(stop)
	stop.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := load()
		if err != nil {
			return err
		}
		unlock, err := lockDataDir(config.DataDir)
		if err != nil {
			return fmt.Errorf("stop berthd first: %w", err)
		}
		defer unlock()
		choice, err := readChoice(config.DataDir)
		if err != nil {
			return err
		}
		if choice == nil {
			cmd.Printf("nothing to stop: berthd has never run on %s\n", config.DataDir)
			return nil
		}
		if !choice.Own {
			cmd.Printf("nothing to stop: %s uses the containerd at %s, which berthd didn't start\n", config.DataDir, choice.Address)
			return nil
		}
		return containerd.Stop(cmd.Context(), containerdDir(config))
	}
	cmd.AddCommand(stop)
	return cmd
}
