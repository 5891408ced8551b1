// Command berthd is berth's daemon: one per host. It reads its configuration,
// builds the graph of parts (wire.go), runs them, and stops them in order.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

var version = "dev" // set by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main for tests: it gives the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout, stderr)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "berthd: %v\n", err)
		return 1
	}
	return 0
}

func command(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "berthd", Short: "berth's daemon: runs GPU workspaces on this host",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), configCommand(), containerdCommand(), clearCommand(), versionCommand(), manCommand(), nvmlChildCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "berthd", version) },
	}
}

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Run the daemon in the foreground", Args: cobra.NoArgs,
		Example: "  berthd run --config /etc/berth/berthd.toml\n" +
			"  berthd run --data-dir ./data --socket ./berth.sock --simulate-gpus A100-SXM4-80GB:8",
	}
	load := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := load()
		if err != nil {
			return err
		}
		return serve(cmd.Context(), config, newLog(config, cmd.ErrOrStderr()))
	}
	return cmd
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	check := &cobra.Command{
		Use: "check", Short: "Say whether the configuration can be used, and what it comes to", Args: cobra.NoArgs,
	}
	load := configFlags(check)
	check.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := load()
		if err != nil {
			return err
		}
		printKeys(cmd.OutOrStdout(), &config)
		return nil
	}
	keys := &cobra.Command{
		Use: "keys", Short: "List every key with its flag, its variable and its default", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { listKeys(cmd.OutOrStdout()) },
	}
	cmd.AddCommand(check, keys)
	return cmd
}

// configFlags adds --config and a flag per key, and gives the function that
// loads the configuration once the flags are read.
func configFlags(cmd *cobra.Command) func() (Config, error) {
	defaults := defaultConfig()
	path := cmd.Flags().String("config", defaultConfigFile, "configuration file (TOML)")
	for _, k := range configKeys(&defaults) {
		cmd.Flags().String(k.flag(), k.String(), k.help)
	}
	return func() (Config, error) {
		given := map[string]string{}
		for _, k := range configKeys(&defaults) {
			if f := cmd.Flags().Lookup(k.flag()); f.Changed {
				given[k.flag()] = f.Value.String()
			}
		}
		return loadConfig(*path, cmd.Flags().Changed("config"), os.LookupEnv, given)
	}
}

func printKeys(w io.Writer, c *Config) {
	for _, k := range configKeys(c) {
		fmt.Fprintf(w, "%s = %v\n", k.path, k)
	}
}

func listKeys(w io.Writer) {
	c := defaultConfig()
	for _, k := range configKeys(&c) {
		fmt.Fprintf(w, "%s (default %q)\n    --%s  %s\n    %s\n", k.path, k.String(), k.flag(), k.env(), k.help)
	}
}
