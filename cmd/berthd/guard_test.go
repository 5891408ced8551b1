package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/agent/guard"
)

// guards stands for what starts a guard: it runs in this process.
type guards struct {
	t       *testing.T
	config  Config
	started int
}

func newGuards(t *testing.T) *guards {
	t.Helper()
	return &guards{t: t, config: Config{RunDir: t.TempDir()}}
}

func (g *guards) start(ctx context.Context) error {
	g.started++
	server := guard.Server{
		Dir: guardDir(g.config), Socket: guardSocket(g.config), BootID: "boot", Protection: guard.Protection{Lacks: []string{"a lock"}},
	}
	serve, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := guard.ErrTaken // by one that is ending: it has no socket any more, and the lock still
		for errors.Is(err, guard.ErrTaken) {
			err = server.Run(serve)
		}
		ended <- err
	}()
	g.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
	})
	return ctx.Err()
}

func (g *guards) host(log *strings.Builder) *hostGuard {
	return &hostGuard{Client: guard.NewClient(guardSocket(g.config)), start: g.start, log: slog.New(slog.NewTextHandler(log, nil))}
}

func TestGuardIsStartedWhenItIsGone(t *testing.T) {
	g := newGuards(t)
	var log strings.Builder
	h := g.host(&log)
	for range 3 {
		h.ensure(t.Context())
	}
	if g.started != 1 || strings.Count(log.String(), "a lock") != 1 {
		t.Errorf("started %d times; log:\n%s", g.started, &log)
	}
	if err := h.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for ; g.started < 2 && t.Context().Err() == nil; h.ensure(t.Context()) {
	}
	if _, err := h.Status(t.Context()); err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.supervise(over); err != nil {
		t.Error(err)
	}
}

// TestGuardThatDoesNotStart doesn't keep the daemon from starting, and says why.
func TestGuardThatDoesNotStart(t *testing.T) {
	g := newGuards(t)
	helper := filepath.Join(t.TempDir(), "berth-helper")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\necho no, $*; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	client, _ := ensureGuard(t.Context(), g.config, helper, slog.New(slog.NewTextHandler(&log, nil)))
	if want := "no, guard --dir " + guardDir(g.config) + " --socket " + guardSocket(g.config) + " --daemon"; !strings.Contains(log.String(), want) {
		t.Errorf("log:\n%s\nwant %q in it", &log, want)
	}
	if err := client.Clear(t.Context(), "r"); !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("its client: %v", err)
	}
}

func TestClearGuard(t *testing.T) {
	g := newGuards(t)
	if err := clearGuard(t.Context(), g.config); err != nil {
		t.Errorf("where there is none: %v", err)
	}
	var log strings.Builder
	h := g.host(&log)
	h.ensure(t.Context())
	if err := h.Set(t.Context(), guard.Deadline{Run: "r", BootID: "boot", Kill: 1 << 60, Cgroups: []string{"/sys/fs/cgroup/none/such"}}); err != nil {
		t.Fatal(err)
	}
	if err := clearGuard(t.Context(), g.config); err != nil {
		t.Error(err)
	}
	if err := h.Clear(t.Context(), "r"); !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("it goes on: %v", err)
	}
}

func TestGuardHasUnit(t *testing.T) {
	t.Setenv("INVOCATION_ID", "")
	if guardHasUnit(Config{RunDir: guardUnitRun}) {
		t.Error("without systemd it has a unit")
	}
	t.Setenv("INVOCATION_ID", "x")
	if guardHasUnit(Config{RunDir: "/elsewhere"}) {
		t.Error("with another run directory it has the package's unit")
	}
}
