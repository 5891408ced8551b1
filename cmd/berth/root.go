package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
)

// app is what every command shares: the streams and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	socket, addr, token string
	workspace           string
	output              string
	noHeaders           bool
}

// The groups of berth --help, by what people come for.
const (
	groupWork    = "work"
	groupInside  = "inside"
	groupCluster = "cluster"
	groupOther   = "other"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "berth",
		Version: version,
		Short:   "GPU workspaces on your own hosts",
		Long: `berth talks to berthd, the daemon on each host, and through it to the cluster.

It finds the daemon by --socket or --addr, else by BERTH_SOCKET or BERTH_ADDR,
else at ` + client.DefaultSocket + `. BERTH_TOKEN and BERTH_WORKSPACE stand for
--token and --workspace.

Exit codes: 0 done, 1 error, 2 wrong usage or value, 3 not found, 4 denied,
5 conflict or limit, 6 berthd or the cluster isn't available.`,
		Example: `  berth status
  berth image import demo.tar
  berth instance create demo --template demo --gpus 1 --wait
  berth exec demo
  berth instance ls`,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.checkFlags(c) },
		RunE:              helpOrUnknown,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	a.addGlobalFlags(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%v: see %s --help", err, c.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: groupWork, Title: "Work:"},
		&cobra.Group{ID: groupInside, Title: "In and out of an instance:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupOther, Title: "Other:"})
	root.SetHelpCommandGroupID(groupOther)
	grouped(root, groupWork, a.instanceCommand(), a.jobCommand(), a.runCommand(), a.templateCommand(), a.imageCommand(), a.volumeCommand(), a.externalCommand(), a.workspaceCommand())
	grouped(root, groupInside, a.execCommand(), a.logsCommand(), a.portForwardCommand(), a.cpCommand())
	grouped(root, groupCluster, a.statusCommand(), a.nodeCommand(), a.deviceCommand(), a.clusterCommand(), a.priceCommand(), a.usageCommand(), a.ledgerCommand(),
		a.registryCommand(), a.eventsCommand(), a.doctorCommand())
	grouped(root, groupOther, a.versionCommand(), completionCommand(), manCommand())
	return root
}

func grouped(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

var outputs = []string{"table", "wide", "json", "yaml", "name"}

func (a *app) addGlobalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", "", "berthd's control socket (BERTH_SOCKET; default "+client.DefaultSocket+")")
	f.StringVar(&a.addr, "addr", "", "berthd's address, such as http://127.0.0.1:7180 (BERTH_ADDR)")
	f.StringVar(&a.token, "token", "", "API key; BERTH_TOKEN hides it from other users' process lists")
	f.StringVarP(&a.workspace, "workspace", "w", "", "workspace by slug or id (BERTH_WORKSPACE; default: the default workspace)")
	f.StringVarP(&a.output, "output", "o", "table", "one of "+strings.Join(outputs, ", "))
	f.BoolVar(&a.noHeaders, "no-headers", false, "tables without their first line")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("workspace", a.complete(workspaceNames)))
}

// exclusive refuses two flags together.
func exclusive(c *cobra.Command, x, y string) error {
	if c.Flags().Changed(x) && c.Flags().Changed(y) {
		return usagef("--%s and --%s exclude each other", x, y)
	}
	return nil
}

// must holds what can only fail through a slip in this program.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// ownOutputs is the annotation of a command that has other outputs than most.
const ownOutputs = "outputs"

func (a *app) checkFlags(c *cobra.Command) error {
	possible := outputs
	if own, ok := c.Annotations[ownOutputs]; ok && c.Flags().Changed("output") {
		possible = strings.Fields(own)
	}
	if !slices.Contains(possible, a.output) {
		return usagef("-o %s is none of %s", a.output, strings.Join(possible, ", "))
	}
	return nil
}

// client of the daemon that the flags name, else the environment. A flag beats
// the environment also where it names the other way to the daemon.
func (a *app) client() (*client.Client, error) {
	o := client.Options{Socket: a.socket, Addr: a.addr, Token: a.token, Workspace: a.workspace}
	if o.Socket == "" && o.Addr == "" {
		o.Socket, o.Addr = os.Getenv("BERTH_SOCKET"), os.Getenv("BERTH_ADDR")
	}
	if o.Socket != "" && o.Addr != "" {
		return nil, usagef("a socket (%s) and an address (%s) are named: choose one, with --socket or --addr", o.Socket, o.Addr)
	}
	if o.Token == "" {
		o.Token = os.Getenv("BERTH_TOKEN")
	}
	if o.Workspace == "" {
		o.Workspace = os.Getenv("BERTH_WORKSPACE")
	}
	return client.New(o)
}

// with gives a command's function a client.
func (a *app) with(do func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		cl, err := a.client()
		if err != nil {
			return err
		}
		defer cl.Close()
		return do(c, cl, args)
	}
}

// noun makes the command of a noun, with a verb for each thing to do with it.
func noun(use, short string, aliases []string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Aliases: aliases, Args: cobra.ArbitraryArgs, RunE: helpOrUnknown}
	c.AddCommand(verbs...)
	return c
}

// helpOrUnknown is what a command does that only has subcommands.
func helpOrUnknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := "it has " + strings.Join(names, ", ")
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s has no command %q: %s", c.CommandPath(), args[0], hint)
}

// takes checks the number of arguments and says what they are: "NAME" is one,
// "NAME..." one or more, "[NAME]" one or none.
func takes(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		least, most := 0, len(names)
		for _, name := range names {
			if !strings.HasPrefix(name, "[") {
				least++
			}
			if strings.HasSuffix(name, "...") {
				most = len(args)
			}
		}
		switch {
		case len(args) < least:
			return usagef("%s needs %s: see %s --help", c.CommandPath(), strings.Join(names[len(args):least], " and "), c.CommandPath())
		case len(args) > most:
			return usagef("%s doesn't take %q: see %s --help", c.CommandPath(), args[most], c.CommandPath())
		}
		return nil
	}
}

// age is how long ago something was, in the one or two largest units.
func age(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return formatDuration(time.Since(at))
}

func formatDuration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
