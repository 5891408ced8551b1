package main

import (
	"os"

	"github.com/spf13/cobra"

	"berth/gpu/nvml"
)

// nvmlChild is the command by which berthd starts itself as the process that
// asks the GPU driver.
const nvmlChild = "nvml-child"

// nvmlChildCommand isn't for people: it speaks with berthd on standard input
// and output.
func nvmlChildCommand() *cobra.Command {
	return &cobra.Command{
		Use: nvmlChild, Short: "Ask the GPU driver for berthd", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return nvml.ChildMain(os.Stdin, os.Stdout) },
	}
}
