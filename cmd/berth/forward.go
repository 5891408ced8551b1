package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/client"
	"berth/workspace"
)

func (a *app) portForwardCommand() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "port-forward INSTANCE [LOCAL:]PORT...",
		Short: "Reach ports of an instance from this machine",
		Long: `Listens on this machine and carries each connection to a port inside the instance's
container, through berthd: nothing need be published, and the instance's node need
not be reachable. PORT is a number or the name of a port of its template; LOCAL is
the same number unless given, 0 takes a free one. It goes on until ^C.`,
		Example: `  berth port-forward nb 8888
  berth port-forward nb 0:notebook 6006
  berth port-forward nb 9000:8888 --address 0.0.0.0`,
		Args:              takes("INSTANCE", "PORT..."),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			return a.forwardPorts(c.Context(), cl, args[0], args[1:], address)
		}),
	}
	c.Flags().StringVar(&address, "address", "127.0.0.1", "address of this machine to listen on")
	return c
}

// forwarding is one port being forwarded.
type forwarding struct {
	instance string // id
	remote   int
	listener net.Listener
}

func (a *app) forwardPorts(ctx context.Context, cl *client.Client, ref string, ports []string, address string) error {
	inst, err := cl.Instance(ctx, ref)
	if err != nil {
		return err
	}
	if inst.Status != workspace.StatusRunning {
		return workspace.Errorf(workspace.CodeConflict, "%s: there is nothing to connect to", stateText(inst))
	}
	run, err := cl.Run(ctx, inst.Run)
	if err != nil {
		return err
	}
	var all []*forwarding
	defer func() {
		for _, f := range all {
			f.listener.Close()
		}
	}()
	for _, port := range ports {
		local, remote, err := parsePorts(port, run.Spec.Ports)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(local)))
		if err != nil {
			return fmt.Errorf("%w: choose another local port, such as 0:%d", err, remote)
		}
		all = append(all, &forwarding{instance: inst.ID, remote: remote, listener: l})
	}
	for _, f := range all {
		a.say("Forwarding %s -> %s:%d", f.listener.Addr(), inst.Name, f.remote)
		if page := forwardedPage(ctx, cl, inst, run, f); page != "" {
			a.say("  %s", page)
		}
	}
	users, ctx := errgroup.WithContext(ctx)
	for _, f := range all {
		users.Go(func() error { return a.accept(ctx, cl, f) })
	}
	return users.Wait()
}

// parsePorts reads [LOCAL:]PORT.
func parsePorts(text string, named []workspace.Port) (local, remote int, err error) {
	here, there, both := strings.Cut(text, ":")
	if !both {
		there = here
	}
	if i := slices.IndexFunc(named, func(p workspace.Port) bool { return p.Name == there }); i >= 0 {
		there = named[i].Number
	}
	remote, err = strconv.Atoi(there)
	if err != nil || remote < 1 || remote > 65535 {
		names := each(named, func(p workspace.Port) string { return p.Name })
		return 0, 0, usagef("%q is no port: it is a number from 1 to 65535, or one of the instance's ports (%s)", there, orText(strings.Join(names, ", "), "it names none"))
	}
	if !both {
		return remote, remote, nil
	}
	local, err = strconv.Atoi(here)
	if err != nil || local < 0 || local > 65535 {
		return 0, 0, usagef("%q is no local port: it is a number from 0 to 65535; 0 takes a free one", here)
	}
	return local, remote, nil
}

// forwardedPage is the URL of a page at its local address, with its secret;
// empty where there is none.
func forwardedPage(ctx context.Context, cl *client.Client, inst *workspace.Instance, run *workspace.Run, f *forwarding) string {
	i := slices.IndexFunc(run.Spec.Ports, func(p workspace.Port) bool { return p.Number == strconv.Itoa(f.remote) })
	if i < 0 {
		return ""
	}
	access, err := cl.Access(ctx, inst.ID)
	if err != nil {
		return ""
	}
	for _, w := range access.Ways {
		if page, err := url.Parse(w.URL); err == nil && w.Name == run.Spec.Ports[i].Name && w.URL != "" {
			page.Host = localAddress(f.listener.Addr())
			return page.String()
		}
	}
	return ""
}

// localAddress is where a browser of this machine finds a listener.
func localAddress(listening net.Addr) string {
	a := listening.(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
	}
	return a.String()
}

// accept carries connections until ctx ends, which is no error.
func (a *app) accept(ctx context.Context, cl *client.Client, f *forwarding) error {
	var open errgroup.Group
	defer func() { _ = open.Wait() }() // each has told its own error
	defer context.AfterFunc(ctx, func() { f.listener.Close() })()
	for {
		conn, err := f.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", f.listener.Addr(), err)
		}
		open.Go(func() error {
			defer conn.Close() // once it is told why
			if err := carry(ctx, cl, f, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
				fmt.Fprintf(a.stderr, "connection of %s to port %d: %s\n", conn.RemoteAddr(), f.remote, sentence(err))
			}
			return nil
		})
	}
}

// carry joins a connection with one to the container until both ways are done.
func carry(ctx context.Context, cl *client.Client, f *forwarding, local *net.TCPConn) error {
	remote, err := cl.Forward(ctx, f.instance, f.remote)
	if err != nil {
		return err
	}
	defer remote.Close()
	both, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _, _ = local.Close(), remote.Close() })()
	both.Go(func() error { return pour(remote, local) })
	both.Go(func() error { return pour(local, remote) })
	return both.Wait()
}

// pour copies one way. A client that has gone away is no error.
func pour(to, from workspace.Stream) error {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
