package main

import (
	"fmt"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// versions are of both sides of the socket.
type versions struct {
	Client string                 `json:"client"`
	Go     string                 `json:"go_version"`
	Daemon *workspace.VersionInfo `json:"daemon,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the versions of berth and of the daemon",
		Long: `Shows the version of this program and of the daemon it talks to. A daemon that
doesn't answer is told on standard error and is no failure.`,
		Example:           `  berth version -o json`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			v := versions{Client: version, Go: goruntime.Version()}
			var err error
			if v.Daemon, err = cl.Version(c.Context()); err != nil {
				fmt.Fprintf(a.stderr, "the daemon's version is unknown: %s\n", sentence(err))
			}
			if a.machine() {
				return a.writeDocument(v)
			}
			a.say("berth %s", v.Client)
			if v.Daemon != nil && a.output != "name" {
				a.say("berthd %s", v.Daemon.Version)
			}
			return nil
		}),
	}
}
