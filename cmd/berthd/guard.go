package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"berth/agent/guard"
)

// guardUnit is the unit of the package for the guard. It serves the package's
// directory only.
const (
	guardUnit    = "berth-guard.service"
	guardUnitRun = "/run/berth"
)

const (
	// guardEvery is how soon a guard that has ended is started again: until then
	// no run's end is kept.
	guardEvery = 2 * time.Second
	// guardStart is how long a start may take.
	guardStart = 30 * time.Second
	guardPoll  = 20 * time.Millisecond
)

func guardDir(c Config) string    { return filepath.Join(c.RunDir, "guard") }
func guardSocket(c Config) string { return filepath.Join(guardDir(c), "guard.sock") }

// openGuard is ensureGuard with the helper that is configured.
func openGuard(ctx context.Context, c Config, log *slog.Logger) (*guard.Client, func(context.Context) error, error) {
	helper, err := findHelper(c)
	if err != nil {
		return nil, nil, err
	}
	client, supervise := ensureGuard(ctx, c, helper, log)
	return client, supervise, nil
}

// ensureGuard starts the guard of this host's runs, unless it works already. The
// guard is a process of its own that outlives this daemon. That it can't be
// started is no reason not to start: the log says why, and supervise, which keeps
// it running until its context ends, tries again.
func ensureGuard(ctx context.Context, c Config, helper string, log *slog.Logger) (client *guard.Client, supervise func(context.Context) error) {
	h := &hostGuard{Client: guard.NewClient(guardSocket(c)), log: log, start: startGuardProcess(c, helper)}
	if guardHasUnit(c) {
		h.start = startGuardUnit
	}
	h.ensure(ctx)
	return h.Client, h.supervise
}

// guardHasUnit: systemd started this daemon from the package.
func guardHasUnit(c Config) bool {
	if os.Getenv("INVOCATION_ID") == "" || c.RunDir != guardUnitRun {
		return false
	}
	_, err := os.Stat(filepath.Join("/lib/systemd/system", guardUnit))
	return err == nil
}

// hostGuard is the guard with the way it is started.
type hostGuard struct {
	*guard.Client
	start func(context.Context) error
	log   *slog.Logger
	pid   int // of the one that answered last
}

func (h *hostGuard) supervise(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			h.ensure(ctx)
		}
	}
}

func (h *hostGuard) ensure(ctx context.Context) {
	status, err := h.Status(ctx)
	if err != nil && ctx.Err() == nil {
		start, cancel := context.WithTimeout(ctx, guardStart)
		defer cancel()
		if err = h.start(start); err == nil {
			status, err = h.answer(start)
		}
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.log.Error("the guard doesn't work; no run with a lease can start until it does", "err", err)
	case status.Pid != h.pid:
		h.pid = status.Pid
		h.log.Info("the guard works", "pid", status.Pid, "entries", status.Entries)
		for _, lack := range status.Lacks {
			h.log.Warn("the guard isn't protected as it should be", "lacks", lack)
		}
	}
}

// answer waits until it answers, or ctx ends.
func (h *hostGuard) answer(ctx context.Context) (guard.Status, error) {
	tick := time.NewTicker(guardPoll)
	defer tick.Stop()
	for {
		status, err := h.Status(ctx)
		if err == nil {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, err
		case <-tick.C:
		}
	}
}

func startGuardUnit(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "systemctl", "start", guardUnit).CombinedOutput()
	if err != nil {
		return fmt.Errorf("start %s: %w: %s; journalctl -u %s says why", guardUnit, err, bytes.TrimSpace(out), guardUnit)
	}
	return nil
}

// startGuardProcess starts one that is nobody's child.
func startGuardProcess(c Config, helper string) func(context.Context) error {
	return func(ctx context.Context) error {
		// #nosec G204 -- berth's own program
		cmd := exec.CommandContext(ctx, helper, "guard", "--dir", guardDir(c), "--socket", guardSocket(c), "--daemon")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("start the guard: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}
}

// clearGuard ends the guard of a host on which no container of berth is left.
// systemd starts that of the package again, which holds nothing then.
func clearGuard(ctx context.Context, c Config) error {
	client := guard.NewClient(guardSocket(c))
	entries, err := client.List(ctx)
	if guardGone(err) {
		return nil
	}
	errs := []error{err}
	for i := range entries {
		errs = append(errs, client.Clear(ctx, entries[i].Run))
	}
	status, err := client.Status(ctx)
	errs = append(errs, err, client.Quit(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the guard: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, guardStart)
	defer cancel()
	for {
		now, err := client.Status(ctx)
		if guardGone(err) || err == nil && now.Pid != status.Pid {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the guard, pid %d, was told to end and doesn't", status.Pid)
		case <-time.After(guardPoll):
		}
	}
}

// guardGone: nobody listens there. One that is paused is still there.
func guardGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
