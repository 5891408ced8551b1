// Package doctor looks a host over: whether it has what berth needs, and what
// an operator should know of it. Host is all that it asks a machine; the rest
// judges the answers, so that tests can bring machines of their own.
package doctor

import (
	"context"
	"fmt"
	"net/netip"

	"berth/workspace"
)

// Options say what of the host berth uses. The zero value stands for berthd's
// defaults, without asking the daemon.
type Options struct {
	DataDir string       // empty: /var/lib/berth
	Socket  string       // control socket; empty: /run/berth/berth.sock
	Subnet  netip.Prefix // of the containers' network; zero: 10.89.0.0/16
	Bridge  string       // of that network; empty: berth0

	// Daemon asks the berthd behind the control socket. It is called when the
	// socket is there; nil: berthd isn't asked.
	Daemon func(context.Context) (Daemon, error)
	// Guard asks the host's guard; nil: it isn't asked.
	Guard func(context.Context) (Guard, error)
}

// Daemon is what berthd says of itself and of its node.
type Daemon struct {
	Version string
	Node    string // its name; empty when this node isn't in the cluster yet
	Ready   bool
	Reason  string // why it isn't ready, as a code
	Message string // the same in a sentence
}

func (o Options) withDefaults() Options {
	if o.DataDir == "" {
		o.DataDir = "/var/lib/berth"
	}
	if o.Socket == "" {
		o.Socket = "/run/berth/berth.sock"
	}
	if !o.Subnet.IsValid() {
		o.Subnet = netip.MustParsePrefix("10.89.0.0/16")
	}
	if o.Bridge == "" {
		o.Bridge = "berth0"
	}
	return o
}

// Check looks the host over. It changes nothing but for a file of 40 KiB in the
// data directory, which it removes. Once ctx has ended its answer is worthless.
func Check(ctx context.Context, h Host, o Options) []workspace.Check {
	e := &exam{Host: h, Options: o.withDefaults()}
	for _, look := range []func(context.Context){
		e.user, e.kernel, e.features, e.cgroups, e.securityModules, e.openFiles,
		e.containerd, e.runc, e.toolkit, e.filesystemTools,
		e.firewall, e.forwarding, e.routes,
		e.gpus,
		e.disks, e.fsync, e.memory, e.clock,
		e.unit, e.mountNamespace, e.controlSocket, e.daemon, e.guard,
	} {
		look(ctx)
	}
	return e.checks
}

// exam is one look at a host.
type exam struct {
	Host
	Options
	checks []workspace.Check
}

func (e *exam) ok(name, format string, args ...any) {
	e.add(name, workspace.CheckOK, "", format, args...)
}

func (e *exam) warn(name, fix, format string, args ...any) {
	e.add(name, workspace.CheckWarn, fix, format, args...)
}

func (e *exam) fail(name, fix, format string, args ...any) {
	e.add(name, workspace.CheckFail, fix, format, args...)
}

func (e *exam) add(name string, status workspace.CheckStatus, fix, format string, args ...any) {
	e.checks = append(e.checks, workspace.Check{Name: name, Status: status, Message: fmt.Sprintf(format, args...), Fix: fix})
}

// needsRoot says so of a check that only root can make, and reports whether it
// has to be left out.
func (e *exam) needsRoot(name string) bool {
	if e.UID == 0 {
		return false
	}
	e.warn(name, asRoot, "not checked: it needs root")
	return true
}

const asRoot = "sudo berth doctor"

func (e *exam) user(context.Context) {
	if e.UID == 0 {
		e.ok("root", "berth doctor runs as root and can check everything")
		return
	}
	e.warn("root", asRoot, "berth doctor runs as uid %d: some checks need root and are left out", e.UID)
}
