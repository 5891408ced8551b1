package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/client"
	"berth/workspace"
)

func (a *app) registryCommand() *cobra.Command {
	return noun("registry", "Logins to image registries", []string{"registries"},
		a.registryLs(), a.registryLogin(), a.registryLogout())
}

func registryKind(*names) kind[workspace.Registry] {
	return kind[workspace.Registry]{
		id:   func(r *workspace.Registry) string { return r.Host },
		name: func(r *workspace.Registry) string { return r.Host },
		columns: []column[workspace.Registry]{
			{title: "HOST", cell: func(r *workspace.Registry) string { return r.Host }},
			{title: "USERNAME", cell: func(r *workspace.Registry) string { return r.Username }},
			{title: "AGE", cell: func(r *workspace.Registry) string { return age(r.UpdatedAt) }},
		},
	}
}

func (a *app) registryLs() *cobra.Command {
	return lsVerb(a, cobra.Command{
		Short:   "List the registries that the cluster logs in to",
		Example: `  berth registry ls`,
	}, source[workspace.Registry]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Registry, error) {
			return all(ctx, cl.Registries, client.ListOptions{})
		},
		kind: registryKind,
	})
}

func (a *app) registryLogin() *cobra.Command {
	var user string
	var fromStdin bool
	c := &cobra.Command{
		Use:   "login HOST -u USER --password-stdin",
		Short: "Keep a login to a registry, for all pulls of the cluster",
		Long: `Keeps a user and a password or token for a registry, sealed in the cluster's state:
every node pulls with it from then on. It isn't tried out: the next pull does that.
The password comes from standard input, or is asked for on a terminal; a flag would
show it to other users.`,
		Example: `  berth registry login ghcr.io -u alice --password-stdin <token.txt
  berth registry login registry.lab:5000 -u alice`,
		Args:              takes("HOST"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if user == "" {
				return usagef("%s needs -u USER", c.CommandPath())
			}
			password, err := a.password(args[0], user, fromStdin)
			if err != nil {
				return err
			}
			r, err := cl.SetRegistry(c.Context(), args[0], workspace.RegistryLoginChange{Username: user, Password: password})
			if err != nil {
				return err
			}
			return did(a, registryKind(nil), r, "pulls from %s are made as %s", r.Host, r.Username)
		}),
	}
	c.Flags().StringVarP(&user, "username", "u", "", "user of the registry")
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password or token from standard input")
	return c
}

// maxPassword bounds what is read; tokens of some registries have kilobytes.
const maxPassword = 64 << 10

// password is the first line of standard input, or what is typed unseen.
func (a *app) password(host, user string, fromStdin bool) (string, error) {
	var password string
	switch {
	case fromStdin:
		line, err := bufio.NewReader(io.LimitReader(a.stdin, maxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		password = strings.TrimRight(line, "\r\n")
	case isTerminal(a.stdin):
		fmt.Fprintf(a.stderr, "Password of %s at %s: ", printable(user), printable(host))
		typed, err := term.ReadPassword(int(a.stdin.(descriptor).Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		password = string(typed)
	default:
		return "", usagef("the password is needed: give it on standard input with --password-stdin")
	}
	if password == "" {
		return "", usagef("the password is empty")
	}
	return password, nil
}

func (a *app) registryLogout() *cobra.Command {
	return &cobra.Command{
		Use:               "logout HOST...",
		Aliases:           []string{"rm"},
		Short:             "Forget logins to registries",
		Example:           `  berth registry logout ghcr.io`,
		Args:              takes("HOST..."),
		ValidArgsFunction: a.complete(registryHosts),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			for _, host := range args {
				if err := cl.RemoveRegistry(c.Context(), host); err != nil {
					return err
				}
				a.say("the login to %s is forgotten", host)
			}
			return nil
		}),
	}
}
