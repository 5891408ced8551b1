package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// waiting holds the flags of commands that can wait for an end.
type waiting struct {
	on      bool
	timeout time.Duration
}

const defaultWait = 5 * time.Minute

func (w *waiting) addFlags(c *cobra.Command, end string) {
	c.Flags().BoolVar(&w.on, "wait", false, "wait until it is "+end+", with its progress on standard error")
	c.Flags().DurationVar(&w.timeout, "timeout", defaultWait, "how long --wait waits")
}

// waitFor waits until an instance is as wanted and tells how it goes on
// standard error.
func (a *app) waitFor(ctx context.Context, cl *client.Client, ref, phase string, timeout time.Duration) (*workspace.Instance, error) {
	p := newProgress(a.stderr)
	defer p.done()
	inst, err := cl.Wait(ctx, ref, phase, timeout, func(i *workspace.Instance) { p.show(progressText(p, i)) })
	if ctx.Err() != nil {
		return nil, fmt.Errorf("interrupted: %s goes on without being waited for", ref)
	}
	return inst, err
}

// stateText is an instance's state in a line.
func stateText(i *workspace.Instance) string {
	text := i.Name + ": " + string(i.Status)
	if i.Reason != "" {
		text += " (" + i.Reason + ")"
	}
	if i.Message != "" {
		text += ": " + i.Message
	}
	return text
}

// progressText is stateText, with a bar on a terminal while an image is pulled.
func progressText(p *progress, i *workspace.Instance) string {
	if percent, ok := pulled(i); ok && p.live {
		return i.Name + ": " + bar(percent) + " " + i.Message
	}
	return stateText(i)
}

// pulled is how much of its image an instance has that waits for it.
func pulled(i *workspace.Instance) (percent int, ok bool) {
	if i.Reason != workspace.ReasonPulling {
		return 0, false
	}
	_, err := fmt.Sscanf(i.Message, "%d %%", &percent)
	return percent, err == nil
}

// action is a verb that changes instances.
type action struct {
	do    func(*client.Client, context.Context, string) (*workspace.Instance, error)
	phase string // what it leads to
	asks  bool   // on a terminal, before it ends a running one
}

// actOn carries an action out on each name in turn, and ends at the first that
// fails.
func (a *app) actOn(ctx context.Context, cl *client.Client, refs []string, act action, w waiting) error {
	for _, ref := range refs {
		inst, err := act.do(cl, ctx, ref)
		if err != nil {
			return err
		}
		if w.on {
			// By id: a deleted instance's name is free at once.
			last, err := a.waitFor(ctx, cl, inst.ID, act.phase, w.timeout)
			if err != nil {
				return err
			}
			if act.phase == "deleted" {
				last = inst
			}
			inst = last
		}
		if err := a.tellState(ctx, cl, inst, w.on && act.phase == "deleted"); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) tellState(ctx context.Context, cl *client.Client, inst *workspace.Instance, gone bool) error {
	k := instanceKind(newNames(ctx, cl), false)
	if gone {
		return did(a, k, inst, "%s is gone", inst.Name)
	}
	if err := did(a, k, inst, "%s", stateText(inst)); err != nil || a.machine() || a.output == "name" {
		return err
	}
	return a.tellAccess(ctx, cl, inst)
}

func (a *app) instanceAction(c cobra.Command, act action) *cobra.Command {
	var w waiting
	var yes bool
	c.Args, c.ValidArgsFunction = takes("NAME..."), a.complete(instanceNames)
	c.RunE = a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
		if act.asks && !yes && isTerminal(a.stdin) {
			if err := a.confirmDelete(c.Context(), cl, args); err != nil {
				return err
			}
		}
		return a.actOn(c.Context(), cl, args, act, w)
	})
	w.addFlags(&c, act.phase)
	if act.asks {
		c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	}
	return &c
}

func (a *app) instanceStart() *cobra.Command {
	var fresh bool
	cmd := a.instanceAction(cobra.Command{
		Use:   "start NAME...",
		Short: "Start stopped or failed instances",
		Long: `Starts instances that are stopped or failed; running ones stay as they are. When
no GPU is free the instance waits its turn: berth instance explain says why.

--fresh-volume begins with an empty volume, for one that is lost or whose node is
away. The old one is detached: berth volume ls shows it until its policy ends.`,
		Example: `  berth instance start demo
  berth instance start demo --wait --timeout 2m`,
	}, action{do: func(cl *client.Client, ctx context.Context, ref string) (*workspace.Instance, error) {
		if fresh {
			return cl.StartFresh(ctx, ref)
		}
		return cl.StartInstance(ctx, ref)
	}, phase: "running"})
	cmd.Flags().BoolVar(&fresh, "fresh-volume", false, "begin with an empty volume; the old one is detached")
	return cmd
}

func (a *app) instanceStop() *cobra.Command {
	return a.instanceAction(cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop instances; their volumes stay",
		Long: `Stops instances: TERM, the template's grace time, then KILL. Their volumes stay,
and start brings them back.`,
		Example: `  berth instance stop demo --wait`,
	}, action{do: (*client.Client).StopInstance, phase: "stopped"})
}

func (a *app) instanceRestart() *cobra.Command {
	return a.instanceAction(cobra.Command{
		Use:     "restart NAME...",
		Short:   "Stop instances and start them again",
		Long:    `Stops instances and starts each again, as a new run, once its container has ended.`,
		Example: `  berth instance restart demo --wait`,
	}, action{do: (*client.Client).RestartInstance, phase: "running"})
}

func (a *app) instanceRm() *cobra.Command {
	return a.instanceAction(cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete instances",
		Long: `Deletes instances: their containers are stopped and removed, their volumes go by
the storage policy. On a terminal it asks before it deletes a running one.`,
		Example: `  berth instance rm demo
  berth instance rm demo --yes --wait`,
	}, action{do: (*client.Client).DeleteInstance, phase: "deleted", asks: true})
}

func (a *app) confirmDelete(ctx context.Context, cl *client.Client, refs []string) error {
	for _, ref := range refs {
		inst, err := cl.Instance(ctx, ref)
		if err != nil {
			return err
		}
		if inst.Status == workspace.StatusRunning {
			if err := a.confirm("Instance %s is running. Delete it and its container?", inst.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// confirm asks a question; anything but yes is an error.
func (a *app) confirm(format string, args ...any) error {
	fmt.Fprintf(a.stderr, "%s [y/N] ", printable(fmt.Sprintf(format, args...)))
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n') // no answer is no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("not confirmed: nothing was done")
}

func (a *app) instanceWait() *cobra.Command {
	var phase string
	var timeout time.Duration
	phases := []string{"running", "stopped", "deleted"}
	c := &cobra.Command{
		Use:   "wait NAME",
		Short: "Wait until an instance is running, stopped or deleted",
		Long: `Waits until an instance is as wanted and shows its progress on standard error. It
ends early, with exit code 5, when the instance can't get there, such as when it
has failed; with exit code 6 when the time is up.`,
		Example: `  berth instance wait demo
  berth instance wait demo --for stopped --timeout 30s`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if !slices.Contains(phases, phase) {
				return usagef("--for %s is none of %s", phase, strings.Join(phases, ", "))
			}
			inst, err := a.waitFor(c.Context(), cl, args[0], phase, timeout)
			switch {
			case err != nil:
				return err
			case inst == nil:
				a.say("%s is gone", args[0])
				return nil
			}
			return a.tellState(c.Context(), cl, inst, phase == "deleted")
		}),
	}
	c.Flags().StringVar(&phase, "for", "running", "what to wait for: "+strings.Join(phases, ", "))
	c.Flags().DurationVar(&timeout, "timeout", defaultWait, "how long to wait")
	must(c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(phases, cobra.ShellCompDirectiveNoFileComp)))
	return c
}
