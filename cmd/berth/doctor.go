package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"berth/agent/guard"
	"berth/client"
	"berth/doctor"
	"berth/workspace"
)

func (a *app) doctorCommand() *cobra.Command {
	var o doctor.Options
	var subnet, runDir string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host has what berth needs",
		Long: `Checks the host that it runs on: kernel, cgroups, containerd, runc and the known
holes of their versions, firewall, subnet, NVIDIA driver, disks, memory, clock, the
systemd unit, the control socket, and berthd and its guard where they run. It changes
nothing.

Run it as root: the firewall, containerd's socket, the data directory and berthd's
mounts can't be seen by others, and are said to be left out. berthd needn't run.

A check is ok, warn (berth works, but know this) or fail (mend it first). The exit
code is 0 when nothing failed, else 1.`,
		Example: `  sudo berth doctor
  sudo berth doctor --data-dir /srv/berth --subnet 10.200.0.0/16
  berth doctor -o json | jq -r '.[] | select(.status == "fail") | .message'`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", "/var/lib/berth", "berthd's data_dir")
	f.StringVar(&runDir, "run-dir", "/run/berth", "berthd's run_dir")
	f.StringVar(&subnet, "subnet", "10.89.0.0/16", "berthd's network.subnet")
	f.StringVar(&o.Bridge, "bridge", "berth0", "berthd's network.bridge")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if a.addr != "" {
			return usagef("berth doctor looks at the host that it runs on: run it there, without --addr")
		}
		var err error
		if o.Subnet, err = netip.ParsePrefix(subnet); err != nil || !o.Subnet.Addr().Is4() {
			return usagef("--subnet %q is no IPv4 network such as 10.89.0.0/16", subnet)
		}
		o.Socket = orText(orText(a.socket, os.Getenv("BERTH_SOCKET")), client.DefaultSocket)
		o.Daemon = a.askDaemon(o.Socket)
		o.Guard = askGuard(filepath.Join(runDir, "guard", "guard.sock"))
		checks := doctor.Check(c.Context(), doctor.ThisHost(), o)
		if err := c.Context().Err(); err != nil {
			return fmt.Errorf("the checks were interrupted: %w", err)
		}
		return a.showChecks(checks)
	}
	return c
}

// askDaemon asks the daemon of this host, whatever address the environment
// names.
func (a *app) askDaemon(socket string) func(context.Context) (doctor.Daemon, error) {
	return func(ctx context.Context) (d doctor.Daemon, err error) {
		cl, err := client.New(client.Options{Socket: socket, Token: orText(a.token, os.Getenv("BERTH_TOKEN"))})
		if err != nil {
			return d, err
		}
		defer cl.Close()
		s, err := cl.Status(ctx)
		if err != nil {
			return d, err
		}
		d.Version = s.Version
		node, err := cl.Node(ctx, s.Server)
		switch {
		case workspace.CodeOf(err) == workspace.CodeNotFound:
			return d, nil
		case err != nil:
			return d, err
		}
		d.Node, d.Ready, d.Reason, d.Message = node.Name, node.Ready, node.Reason, node.Message
		return d, nil
	}
}

func askGuard(socket string) func(context.Context) (doctor.Guard, error) {
	return func(ctx context.Context) (doctor.Guard, error) {
		cl := guard.NewClient(socket)
		s, err := cl.Status(ctx)
		if err != nil {
			return doctor.Guard{}, err
		}
		d := doctor.Guard{Pid: s.Pid, Lacks: s.Lacks, Damaged: s.Damaged}
		entries, err := cl.List(ctx)
		for i := range entries {
			if e := &entries[i]; e.Error != "" {
				d.Error = "run " + e.Run + ": " + e.Error
			}
		}
		return d, err
	}
}

func checkKind() kind[workspace.Check] {
	return kind[workspace.Check]{
		columns: []column[workspace.Check]{
			{title: "CHECK", cell: func(c *workspace.Check) string { return c.Name }},
			{title: "STATUS", cell: func(c *workspace.Check) string { return string(c.Status) }},
			{title: "MESSAGE", cell: func(c *workspace.Check) string { return c.Message }},
		},
		id:   func(c *workspace.Check) string { return c.Name },
		name: func(c *workspace.Check) string { return c.Name },
	}
}

// showChecks shows all checks, and what to do about those that aren't ok. An
// error says that some failed.
func (a *app) showChecks(checks []workspace.Check) error {
	if err := showList(a, checkKind(), checks); err != nil {
		return err
	}
	counts := map[string]int{}
	var failed []string
	var advice [][]string
	for _, c := range checks {
		counts[string(c.Status)]++
		if c.Status == workspace.CheckFail {
			failed = append(failed, c.Name)
		}
		if c.Status != workspace.CheckOK && c.Fix != "" {
			advice = append(advice, []string{c.Name, c.Fix})
		}
	}
	if !a.machine() && a.output != "name" {
		a.say("")
		a.writeSections([]section{{label: "What to do", rows: advice}})
		a.say("%d checks: %s", len(checks), countsText(counts, []string{"ok", "warn", "fail"}))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d checks failed: %s", len(failed), len(checks), strings.Join(failed, ", "))
	}
	return nil
}
