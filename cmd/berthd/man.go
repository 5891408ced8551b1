package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is for who packages berth.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages to a directory", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true // the same pages each time
			return doc.GenManTree(root, &doc.GenManHeader{Title: "BERTHD", Section: "8", Source: "berth", Manual: "berth"}, args[0])
		},
	}
}
