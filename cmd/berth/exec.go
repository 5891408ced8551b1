package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/client"
	"berth/workspace"
)

// executing holds the flags of exec.
type executing struct {
	input, terminal bool
	env             []string
	dir             string
}

func (a *app) execCommand() *cobra.Command {
	e := &executing{}
	c := &cobra.Command{
		Use:   "exec [-i] [-t] INSTANCE [--] [COMMAND [ARGUMENT...]]",
		Short: "Run a process in an instance's container",
		Long: `Runs a process in the container of a running instance, as the container's user and
with its environment, and ends with the process's exit code. -i sends it standard
input, -t gives it a terminal. Without a command it is sh; on a terminal, -i and -t
are then understood.

berth's own flags stand before the instance's name, what stands after it is the
command.`,
		Example: `  berth exec nb
  berth exec nb -- nvidia-smi
  berth exec -it nb bash
  berth exec -i nb -- sh -c 'cat >/workspace/in.csv' <in.csv`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.complete(instanceNames)(c, args, start)
		},
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			instance, command, err := commandOf(c, args)
			if err != nil {
				return err
			}
			return a.exec(c.Context(), cl, instance, command, e)
		}),
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&e.input, "stdin", "i", false, "send standard input to the process")
	f.BoolVarP(&e.terminal, "tty", "t", false, "give the process a terminal")
	f.StringArrayVarP(&e.env, "env", "e", nil, "environment variable for it, as NAME=value; repeat for more")
	f.StringVar(&e.dir, "dir", "", "directory to start in (default: the container's)")
	return c
}

// commandOf takes the arguments apart.
func commandOf(c *cobra.Command, args []string) (instance string, command []string, err error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return "", nil, usagef("%s needs INSTANCE: see %s --help", c.CommandPath(), c.CommandPath())
	}
	instance, command = args[0], args[1:]
	switch {
	case len(command) > 0 && command[0] == "--":
		command = command[1:]
	case len(command) > 0 && strings.HasPrefix(command[0], "-"):
		return "", nil, usagef("%s: %q stands after the instance's name, where the command begins: put flags before the name, or -- before the command",
			c.CommandPath(), command[0])
	}
	return instance, command, nil
}

// exitStatus is the exit code of a process that ran as asked. It is passed on
// without a word.
type exitStatus struct{ code int }

func (e *exitStatus) Error() string {
	return fmt.Sprintf("the process ended with exit code %d", e.code)
}

func (a *app) exec(ctx context.Context, cl *client.Client, instance string, command []string, e *executing) error {
	if len(command) == 0 {
		command = []string{"sh"}
		if !e.input && !e.terminal {
			e.input = isTerminal(a.stdin) && isTerminal(a.stdout)
			e.terminal = e.input
		}
	}
	spec := workspace.ExecSpec{Command: command, Dir: e.dir, Terminal: e.terminal}
	for _, v := range e.env {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return usagef("--env %q must be NAME=value", v)
		}
		spec.Env = append(spec.Env, workspace.EnvVar{Name: name, Value: value})
	}
	streams := workspace.ExecStreams{Stdout: a.stdout, Stderr: a.stderr}
	if e.input {
		streams.Stdin = a.stdin
	}
	run := cl.Exec
	if e.terminal {
		run = a.onTerminal(cl)
	}
	code, err := run(ctx, instance, spec, streams)
	if err == nil && code != 0 {
		err = &exitStatus{code}
	}
	return err
}

// onTerminal runs a process on this terminal, which is raw all the while: what
// is typed, ^C too, goes to the process.
func (a *app) onTerminal(cl *client.Client) func(context.Context, string, workspace.ExecSpec, workspace.ExecStreams) (int, error) {
	return func(ctx context.Context, instance string, spec workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
		if !isTerminal(a.stdin) {
			return 0, usagef("-t needs a terminal on standard input: leave it out, or use -i alone")
		}
		fd := int(a.stdin.(descriptor).Fd())
		before, err := term.MakeRaw(fd)
		if err != nil {
			return 0, fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(fd, before) }() // nothing can be done about it
		sizes, stop := followSize(fd)
		defer stop()
		spec.Size, streams.Resize = sizeOf(fd), sizes
		spec.Env = append([]workspace.EnvVar{{Name: "TERM", Value: orText(os.Getenv("TERM"), "xterm")}}, spec.Env...)
		return cl.Exec(ctx, instance, spec, streams)
	}
}

func sizeOf(fd int) workspace.TerminalSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return workspace.TerminalSize{Columns: 80, Rows: 24}
	}
	return workspace.TerminalSize{Columns: uint16(columns), Rows: uint16(rows)}
}

// followSize tells the terminal's size whenever it has changed, until stop.
func followSize(fd int) (sizes <-chan workspace.TerminalSize, stop func()) {
	changed, out, done := make(chan os.Signal, 1), make(chan workspace.TerminalSize), make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			select {
			case out <- sizeOf(fd):
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(changed); close(done) }
}
