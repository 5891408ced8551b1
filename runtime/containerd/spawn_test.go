package containerd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// TestRestartOfContainerd: containers go on, and the same Runtime works again.
func TestRestartOfContainerd(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	process := f.start(shell("survivor", "sleep 600"))
	f.start(shell("ends", "while [ ! -e /tmp/end ]; do sleep 0.02; done"))
	ends, err := f.Inspect(t.Context(), "ends")
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := f.Wait(context.Background(), "survivor")
		waited <- err
	}()
	if err := Stop(t.Context(), shared.spawnConfig().Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := f.List(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("List while containerd is down: %v", err)
	}
	if err := <-waited; !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Wait when containerd went away: %v", err)
	}
	if err := os.WriteFile(inside(ends.Pid, "/tmp/end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the second container ended meanwhile", func() bool {
		return len(f.cgroups.processes(f.newCgroup("ends"))) == 0
	})
	if _, err := Spawn(t.Context(), shared.spawnConfig()); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the connection is back", func() bool {
		c, err := f.Inspect(t.Context(), "survivor")
		return err == nil && c.State == runtime.StateRunning && c.Pid == process.Pid
	})
	exit, err := f.Wait(t.Context(), "ends")
	if err != nil || (exit.Known && exit.Code != 0 && exit.Code != 137) {
		t.Errorf("the one that ended meanwhile: %+v, %v", exit, err)
	}
}

// TestClear takes away a containerd with a running container.
func TestClear(t *testing.T) {
	shared.open(t)
	own := host{dir: filepath.Join(shared.dir, "2"), parent: shared.parent}
	spawn := own.spawnConfig()
	t.Cleanup(func() { // for when the test fails half-way
		if err := Clear(context.Background(), spawn.Dir, own.parent); err != nil {
			t.Error(err)
		}
	})
	var err error
	if own.address, err = Spawn(t.Context(), spawn); err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), Config{
		Address: own.address, Namespace: own.namespace(), Helper: shared.helper(), CDIDir: filepath.Join(own.dir, "cdi"),
		CgroupParent: own.parent, Log: spawn.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Import(t.Context(), bytes.NewReader(demoArchive(t, ociarchive.Options{})), demo); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), shell("cleared", "sleep 600")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), "cleared"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // idempotent
		if err := Clear(t.Context(), spawn.Dir, "/none"); err != nil { // each container says itself where it is
			t.Fatal(err)
		}
	}
	left := append(own.processes(), r.cgroups.dirs(r.newCgroup("cleared"))...)
	if _, err := os.Stat(filepath.Join(runcState, own.namespace(), "cleared")); err == nil {
		left = append(left, "runc's state")
	}
	if mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(own.dir)); err != nil || len(mounts) > 0 || len(left) > 0 {
		t.Errorf("left: %v, mounts %v, %v", left, mounts, err)
	}
	if err := os.RemoveAll(own.dir); err != nil {
		t.Error(err)
	}
}

func TestSpawn(t *testing.T) {
	shared.open(t)
	again, err := Spawn(t.Context(), shared.spawnConfig())
	if err != nil || again != shared.address {
		t.Errorf("a second Spawn gives %q, %v; want the running one", again, err)
	}
	cfg := shared.spawnConfig()
	cfg.Dir = filepath.Join(t.TempDir(), strings.Repeat("long/", 20))
	if _, err := Spawn(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "shorter data directory") {
		t.Errorf("Spawn with a long path: %v", err)
	}
	cfg.Dir, cfg.Binary = filepath.Join(shared.dir, "none"), "no-such-containerd"
	if _, err := Spawn(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "install the package containerd") {
		t.Errorf("Spawn without containerd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("LISTEN_FDS", "1")
	cfg.Binary = filepath.Join(t.TempDir(), "says-its-environment")
	if err := os.WriteFile(cfg.Binary, []byte("#!/bin/sh\nexec env\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Spawn(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "PATH=") ||
		strings.Contains(err.Error(), "NOTIFY_SOCKET") || strings.Contains(err.Error(), "WATCHDOG_") || strings.Contains(err.Error(), "LISTEN_") {
		t.Errorf("its environment: %v; want it without what is the service manager's", err)
	}
	cfg.Binary = "/bin/false"
	if _, err := Spawn(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("Spawn of what ends at once: %v", err)
	}
}

// TestCrashOfContainerd: after kill -9 and another Spawn all is as before.
func TestCrashOfContainerd(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := runtime.Spec{ID: "survivor", Image: demo, Args: []string{"/bin/sh", "-c",
		"echo before; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after; sleep 600"}}
	spec.LogPath = filepath.Join(t.TempDir(), "log")
	process := f.start(spec)
	if err := end(t.Context(), ownPid(shared.spawnConfig().Dir), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := Spawn(t.Context(), shared.spawnConfig()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(shared.spawnConfig().Dir, logName+".1")); err != nil || info.Size() == 0 {
		t.Errorf("what it wrote before it ended: %v, %v", info, err)
	}
	runtimetest.Eventually(t, "the connection is back", func() bool {
		c, err := f.Inspect(t.Context(), spec.ID)
		return err == nil && c.State == runtime.StateRunning && c.Pid == process.Pid
	})
	if err := os.WriteFile(inside(process.Pid, "/tmp/go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "its log goes on", func() bool {
		content, _ := os.ReadFile(spec.LogPath)
		return string(content) == "before\nafter\n"
	})
	if err := f.Delete(t.Context(), spec.ID); !errors.Is(err, runtime.ErrInUse) {
		t.Errorf("Delete of a running container: %v", err)
	}
	if err := f.Kill(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if exit, err := f.Wait(t.Context(), spec.ID); err != nil || !exit.Known || exit.Code != 137 {
		t.Errorf("Wait gives %+v, %v; want 137", exit, err)
	}
	if err := f.Delete(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}

// TestSpawnBesideAnother: a containerd that is ending is waited for, and one that
// doesn't answer is killed; there is never a second one beside it.
func TestSpawnBesideAnother(t *testing.T) {
	shared.open(t)
	spawn := shared.spawnConfig()
	for name, state := range map[string]struct {
		signal   unix.Signal
		patience time.Duration
	}{"ends": {unix.SIGTERM, 0}, "hangs": {unix.SIGSTOP, 5 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			before := ownPid(spawn.Dir)
			if before == 0 { // a signal to 0 would go to this test and all beside it
				t.Fatal("there is no containerd to begin with")
			}
			if err := unix.Kill(before, state.signal); err != nil {
				t.Fatal(err)
			}
			spawn.Patience = state.patience
			address, err := Spawn(t.Context(), spawn)
			if err != nil || address != shared.address {
				t.Fatalf("Spawn: %q, %v", address, err)
			}
			if pids := processesWith("--config", filepath.Join(spawn.Dir, configName)); len(pids) != 1 || pids[0] == before {
				t.Errorf("containerds are %v, before it was %d; want another one", pids, before)
			}
		})
	}
}
