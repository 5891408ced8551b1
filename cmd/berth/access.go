package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) instanceAccess() *cobra.Command {
	return &cobra.Command{
		Use:   "access NAME",
		Short: "Show the ways into an instance, with the secrets that they take",
		Long: `Shows how to get into a running instance: the URLs of its pages with their tokens,
the line to log in with, and the secrets that were made for it. Whoever sees this
can get in.`,
		Example: `  berth instance access nb
  berth instance access nb -o json | jq -r '.ways[0].url'`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			access, err := cl.Access(c.Context(), args[0])
			if err != nil {
				return err
			}
			if len(access.Ways) == 0 && !a.machine() {
				fmt.Fprintf(a.stderr, "%s is %s and has no address: berth exec and berth port-forward need none while it runs\n", access.Name, access.Status)
			}
			if err := showOne(a, accessKind(), access); err != nil || a.machine() || a.output == "name" {
				return err
			}
			return a.hintForward(c.Context(), cl, access)
		}),
	}
}

func accessKind() kind[workspace.Access] {
	return kind[workspace.Access]{
		name: func(x *workspace.Access) string { return x.Name },
		detail: func(x *workspace.Access) []section {
			return []section{
				{label: "Name", text: x.Name},
				{label: "Status", text: string(x.Status)},
				{label: "Ways", rows: each(x.Ways, func(w workspace.Way) []string { return []string{w.Name, w.Protocol, wayText(w)} })},
				{label: "Secrets", rows: variableRows(x.Secrets)},
			}
		},
	}
}

// wayText is what one opens or types.
func wayText(w workspace.Way) string {
	switch {
	case w.URL != "":
		return w.URL
	case w.Command != "":
		return w.Command
	}
	return fmt.Sprintf("%s:%d", w.Host, w.Port)
}

// tellAccess says how to get into an instance that has just come up; without
// its secrets where they can't be had.
func (a *app) tellAccess(ctx context.Context, cl *client.Client, inst *workspace.Instance) error {
	if inst.Status != workspace.StatusRunning {
		return nil
	}
	access, err := cl.Access(ctx, inst.ID)
	if err != nil {
		for _, i := range inst.Access {
			a.say("  %s %s", accessURL(i), i.Name)
		}
		return nil
	}
	for _, w := range access.Ways {
		a.say("  %s", strings.TrimSpace(wayText(w)+" "+w.Name))
	}
	return a.hintForward(ctx, cl, access)
}

// hintForward says how to reach pages that are published on the loopback of
// another machine.
func (a *app) hintForward(ctx context.Context, cl *client.Client, access *workspace.Access) error {
	local := slices.IndexFunc(access.Ways, func(w workspace.Way) bool { return isLoopback(w.Host) })
	if local < 0 || !a.isElsewhere(ctx, cl, access.Instance) {
		return nil
	}
	names := each(access.Ways, func(w workspace.Way) string { return w.Name })
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	a.say("That address is another machine's own. From here: berth port-forward %s %s", access.Name, orText(strings.Join(names, " "), "PORT"))
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// isElsewhere reports whether an instance runs on another machine than this.
func (a *app) isElsewhere(ctx context.Context, cl *client.Client, instance string) bool {
	if u, err := url.Parse(cl.Address()); err == nil && u.Host != "" && !isLoopback(u.Hostname()) {
		return true
	}
	inst, err := cl.Instance(ctx, instance)
	if err != nil {
		return false
	}
	run, err := cl.Run(ctx, inst.Run)
	if err != nil {
		return false
	}
	status, err := cl.Status(ctx)
	return err == nil && status.Server != run.Node
}

// safePath is the path of a page without the part that would hold a secret.
func safePath(path string) string {
	if strings.Contains(path, "${") {
		path, _, _ = strings.Cut(path, "?")
	}
	if strings.Contains(path, "${") {
		return ""
	}
	return path
}
