package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/workspace"
)

// A second of one GPU costs one USD here, so that budgets run out while a test
// waits. failover is the least that an instance may ask for, and with it the
// shortest grant.
const (
	usdPerHour = "3600"
	rate       = 3_600_000_000 // micro-USD an hour
	failover   = 30            // seconds
)

// TestBudgetRunsOut: the containers of runs whose budget is spent are gone a
// second after what was paid, whatever has become of berthd meanwhile, and what
// the ledger says is what was granted and lived.
func TestBudgetRunsOut(t *testing.T) {
	for name, c := range map[string]struct {
		budget string // USD a day, for two GPUs
		after  func(*daemon)
		before func(*daemon)
	}{
		"with berthd running": {budget: "80", after: func(*daemon) {}, before: func(*daemon) {}},
		"with berthd paused": {
			budget: "60",
			after:  func(d *daemon) { _ = d.cmd.Process.Signal(syscall.SIGSTOP) },
			before: func(d *daemon) { _ = d.cmd.Process.Signal(syscall.SIGCONT) },
		},
		"with berthd killed": {budget: "60", after: (*daemon).kill, before: func(d *daemon) { d.up() }},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			d.up()
			d.prepare()
			d.template("stubborn", "ignore-term")
			d.does("price", "set", "gpu", "*", usdPerHour)
			d.does("workspace", "set", "default", "--daily-budget", c.budget)
			polite, stubborn := d.leased("polite", "demo"), d.leased("stubborn", "stubborn")
			d.warned(polite)
			d.warned(stubborn)
			ends := map[string]int64{polite: d.leaseEnd(polite), stubborn: d.leaseEnd(stubborn)}
			c.after(d)
			for run, end := range ends {
				d.emptyBy(run, end)
			}
			c.before(d)
			d.settled(polite, stubborn)
		})
	}
}

// leased starts an instance with a lease and gives its run.
func (d *daemon) leased(name, template string) string {
	d.t.Helper()
	n := newInstance(name, template, 1)
	n.FailoverAfter = failover
	if _, err := d.client.CreateInstance(d.t.Context(), n); err != nil {
		d.t.Fatal(err)
	}
	return d.waitFor(name, "running").Run
}

// warned waits until a run is known to get no more time.
func (d *daemon) warned(run string) {
	d.t.Helper()
	d.eventually("run "+run+" is warned", func(ctx context.Context) error {
		r, err := d.client.Run(ctx, run)
		switch {
		case err != nil:
			return err
		case r.Warning == nil:
			return fmt.Errorf("it is %s and has no warning: lease %+v", r.Phase, r.Lease)
		case r.Warning.Reason != string(workspace.CodeWorkspaceBudget):
			d.t.Fatalf("it is warned of %+v", r.Warning)
		}
		return nil
	})
}

// leaseEnd is when a run's lease ends, in ms of the boot clock.
func (d *daemon) leaseEnd(run string) int64 {
	d.t.Helper()
	r, err := d.client.Run(d.t.Context(), run)
	if err != nil || r.Lease == nil || !r.Lease.Hard || r.Lease.End.BootID == "" {
		d.t.Fatalf("run %s has no deadline: %+v (%v)", run, r, err)
	}
	return r.Lease.End.BoottimeMS
}

func boottimeMS(t *testing.T) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Sec*1000 + ts.Nsec/1_000_000
}

// emptyBy waits until a run's cgroup is empty and says how long after the end
// that was.
func (d *daemon) emptyBy(run string, end int64) {
	d.t.Helper()
	limit := end + patience.Milliseconds()
	for !emptyCgroup(d.t, run) {
		if boottimeMS(d.t) > limit {
			d.t.Fatalf("run %s is still there %s after its end", run, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
	late := time.Duration(boottimeMS(d.t)-end) * time.Millisecond
	d.t.Logf("the cgroup of run %s was seen empty %s after its end", run, late)
	if late > time.Second {
		d.t.Errorf("run %s was there for %s after its end", run, late)
	}
}

func emptyCgroup(t *testing.T, run string) bool {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		raw, err := os.ReadFile(filepath.Join(dir+cgroupParent, run, "cgroup.procs"))
		if err == nil && strings.TrimSpace(string(raw)) != "" {
			return false
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			t.Fatal(err)
		}
	}
	return true
}

// settled waits until both runs have ended and checks their money.
func (d *daemon) settled(polite, stubborn string) {
	d.t.Helper()
	ended := map[string]*workspace.Run{}
	d.eventually("both runs have ended", func(ctx context.Context) error {
		for _, id := range []string{polite, stubborn} {
			r, err := d.client.Run(ctx, id)
			if err != nil || !r.Phase.Terminal() {
				return fmt.Errorf("%+v %w", r, err)
			}
			ended[id] = r
		}
		return nil
	})
	var cost int64
	for id, r := range ended {
		d.t.Logf("run %s: %s (%s): %d ms charged, %s, %d ms unpaid: %s", id, r.Phase, r.Reason, r.ChargedMS, workspace.FormatUSD(r.Cost), r.UnpaidMS, r.Message)
		if r.Phase != workspace.PhaseStopped || r.Reason != string(workspace.CodeWorkspaceBudget) {
			d.t.Errorf("run %s is %s (%s): %s", id, r.Phase, r.Reason, r.Message)
		}
		if r.Cost != workspace.Cost(rate, r.ChargedMS) || r.ChargedMS < 10_000 {
			d.t.Errorf("run %s has cost %d for %d ms", id, r.Cost, r.ChargedMS)
		}
		if r.UnpaidMS > 1000 {
			d.t.Errorf("run %s has lived %d ms unpaid", id, r.UnpaidMS)
		}
		cost += r.Cost
	}
	if ended[stubborn].ChargedMS <= ended[polite].ChargedMS-1000 {
		d.t.Errorf("the run that ignores TERM was charged %d ms, the one that heeds it %d", ended[stubborn].ChargedMS, ended[polite].ChargedMS)
	}
	u := reads[workspace.WorkspaceUsage](d, "workspace", "usage", "default")
	if u.Spent != cost || u.Reserved != 0 || u.Budgets[0].Spent > *u.Budgets[0].Limit {
		d.t.Errorf("the workspace has spent %d and reserved %d, its runs have cost %d: %+v", u.Spent, u.Reserved, cost, u.Budgets)
	}
	var ledger int64
	for _, line := range strings.Split(strings.TrimSpace(d.does("ledger", "export", "-o", "json")), "\n") {
		e := decoded(d.t, line)
		ledger += e.Amount
	}
	equal(d.t, "the sum of the ledger", ledger, cost)
	d.allFree()
}

// TestStoppedByTheKillSwitch: what runs stops, nothing starts, and what is off
// again restarts nothing.
func TestStoppedByTheKillSwitch(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.create("box", "demo")
	first := d.waitFor("box", "running").Run
	if r := d.types("", "workspace", "kill-switch", "on", "default"); r.code != 2 {
		t.Errorf("without an answer to its question: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	d.does("workspace", "kill-switch", "on", "default", "--yes")
	d.waitFor("box", "stopped")
	if _, err := d.client.StartInstance(t.Context(), "box"); workspace.CodeOf(err) != workspace.CodeKillSwitch {
		t.Errorf("a start gives %v", err)
	}
	d.does("workspace", "kill-switch", "off", "default", "--yes")
	if inst := d.waitFor("box", "stopped"); inst.Run != first {
		t.Errorf("it was started again: run %s", inst.Run)
	}
	d.allFree()
}

func decoded(t *testing.T, line string) (e workspace.LedgerEntry) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return e
}
