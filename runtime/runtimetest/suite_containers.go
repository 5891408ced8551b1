package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

func (s *suite) info(t *testing.T) {
	info, err := s.Runtime.Info(t.Context())
	if err != nil || info.Name == "" || info.Version == "" || info.Address == "" {
		t.Errorf("Info is %+v, %v; want all fields", info, err)
	}
}

func (s *suite) createDoesNotStart(t *testing.T) {
	spec := s.spec(t, "count")
	created := s.mustCreate(t, spec)
	if created.Pid == 0 || created.CgroupPath == "" {
		t.Errorf("Created is %+v, want a pid and a cgroup", created)
	}
	container := s.mustInspect(t, spec.ID)
	if container.State != runtime.StateCreated || container.Pid != created.Pid || container.CgroupPath != created.CgroupPath {
		t.Errorf("after Create it is %+v", container)
	}
}

func (s *suite) exitCode(t *testing.T) {
	spec := s.spec(t, "exit", "7")
	s.mustCreate(t, spec)
	before := time.Now().Add(-time.Second)
	process, err := s.Runtime.Start(t.Context(), spec.ID)
	if err != nil || process.Pid == 0 || process.StartedAt.Before(before) {
		t.Fatalf("Start gives %+v, %v", process, err)
	}
	exit := s.mustWait(t, spec.ID)
	if !exit.Known || exit.Code != 7 || exit.OOM || exit.At.Before(before) {
		t.Errorf("exit is %+v, want code 7", exit)
	}
	if again := s.mustWait(t, spec.ID); again.Code != 7 {
		t.Errorf("a second Wait gives %+v", again)
	}
	if c := s.mustInspect(t, spec.ID); c.State != runtime.StateExited || c.Exit.Code != 7 || c.Pid != 0 {
		t.Errorf("after its end it is %+v", c)
	}
	for range 2 { // idempotent
		if err := s.Runtime.Delete(t.Context(), spec.ID); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	_, err = s.Runtime.Inspect(t.Context(), spec.ID)
	wantError(t, "Inspect of a deleted container", err, runtime.ErrNotFound)
	_, err = s.Runtime.Wait(t.Context(), spec.ID)
	wantError(t, "Wait for a deleted container", err, runtime.ErrNotFound)
}

func (s *suite) startUnknown(t *testing.T) {
	_, err := s.Runtime.Start(t.Context(), "nobody")
	wantError(t, "Start", err, runtime.ErrNotFound)
	wantError(t, "Signal", s.Runtime.Signal(t.Context(), "nobody", int(unix.SIGTERM)), runtime.ErrNotFound)
	if err := s.Runtime.Kill(t.Context(), "nobody"); err != nil {
		t.Errorf("Kill of nothing: %v", err)
	}
}

func (s *suite) term(t *testing.T) {
	spec := s.spec(t, "count")
	s.mustRun(t, spec)
	if err := s.Runtime.Signal(t.Context(), spec.ID, int(unix.SIGTERM)); err != nil {
		t.Fatalf("Signal: %v", err)
	}
	if exit := s.mustWait(t, spec.ID); !exit.Known || exit.Code != 0 {
		t.Errorf("exit is %+v, want the code 0 of a command that heeds TERM", exit)
	}
}

func (s *suite) signals(t *testing.T) {
	spec := s.spec(t, "ignore-term")
	s.mustRun(t, spec)
	if err := s.Runtime.Signal(t.Context(), spec.ID, int(unix.SIGTERM)); err != nil {
		t.Errorf("TERM: %v", err)
	}
	if c := s.mustInspect(t, spec.ID); c.State != runtime.StateRunning {
		t.Errorf("after an ignored TERM it is %s", c.State)
	}
	if err := s.Runtime.Signal(t.Context(), spec.ID, int(unix.SIGKILL)); err != nil {
		t.Errorf("KILL: %v", err)
	}
	if exit := s.mustWait(t, spec.ID); exit.Code != 137 {
		t.Errorf("exit is %+v, want code 137", exit)
	}
	err := s.Runtime.Signal(t.Context(), spec.ID, int(unix.SIGTERM))
	wantError(t, "Signal after the end", err, runtime.ErrNotRunning)
}

func (s *suite) kill(t *testing.T) {
	spec := s.spec(t, "ignore-term")
	s.mustRun(t, spec)
	for range 2 { // the second finds nothing to kill
		if err := s.Runtime.Kill(t.Context(), spec.ID); err != nil {
			t.Fatalf("Kill: %v", err)
		}
	}
	if exit := s.mustWait(t, spec.ID); !exit.Known || exit.Code != 137 || exit.OOM {
		t.Errorf("exit is %+v, want code 137", exit)
	}
}

func (s *suite) killChildren(t *testing.T) {
	spec := s.spec(t, "children")
	s.mustRun(t, spec)
	if err := s.Runtime.Kill(t.Context(), spec.ID); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	// No Wait: Delete must cope with a runtime that hasn't noticed yet. The
	// leftovers tell whether a child lives on.
	if err := s.Runtime.Delete(t.Context(), spec.ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func (s *suite) deleteRunning(t *testing.T) {
	spec := s.spec(t, "count")
	process := s.mustRun(t, spec)
	wantError(t, "Delete", s.Runtime.Delete(t.Context(), spec.ID), runtime.ErrInUse)
	if c := s.mustInspect(t, spec.ID); c.State != runtime.StateRunning || c.Pid != process.Pid {
		t.Errorf("after a refused Delete it is %+v", c)
	}
}

func (s *suite) deleteCreated(t *testing.T) {
	spec := s.spec(t, "count")
	s.mustCreate(t, spec)
	if err := s.Runtime.Delete(t.Context(), spec.ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func (s *suite) createTwice(t *testing.T) {
	spec := s.spec(t, "count")
	created := s.mustCreate(t, spec)
	_, err := s.Runtime.Create(t.Context(), spec)
	wantError(t, "second Create", err, runtime.ErrExists)
	if c := s.mustInspect(t, spec.ID); c.Pid != created.Pid {
		t.Errorf("the first one's pid became %d, was %d", c.Pid, created.Pid)
	}
}

// refused runs a Create that must fail and leave nothing.
func (s *suite) refused(t *testing.T, spec runtime.Spec, class error) {
	t.Helper()
	_, err := s.Runtime.Create(t.Context(), spec)
	wantError(t, "Create", err, class)
	if _, err := s.Runtime.Inspect(t.Context(), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("after a refused Create, Inspect says %v", err)
	}
}

func (s *suite) createAbsentImage(t *testing.T) {
	spec := s.spec(t, "count")
	spec.Image = "absent:latest"
	s.refused(t, spec, runtime.ErrNotFound)
}

func (s *suite) createOtherDigest(t *testing.T) {
	spec := s.spec(t, "count")
	spec.Digest = digestOf([]byte("another"))
	s.refused(t, spec, runtime.ErrNotFound)
}

func (s *suite) createUnknownDevice(t *testing.T) {
	device := runtime.Device{Name: "GPU-1", Nodes: []runtime.DeviceNode{{Path: "/dev/nvidia0", Major: 195}}}
	if err := s.Runtime.SetDevices(t.Context(), []runtime.Device{device}); err != nil {
		t.Fatalf("SetDevices: %v", err)
	}
	spec := s.spec(t, "count")
	spec.Devices = []string{"GPU-1", "GPU-2"}
	s.refused(t, spec, runtime.ErrInvalid)

	spec.Devices = []string{"GPU-1"}
	s.mustCreate(t, spec)
	s.remove(t, spec.ID)

	// Devices are replaced, not added, and may be none.
	if err := s.Runtime.SetDevices(t.Context(), nil); err != nil {
		t.Fatalf("SetDevices to none: %v", err)
	}
	s.refused(t, spec, runtime.ErrInvalid)
}

func (s *suite) createBadID(t *testing.T) {
	for _, id := range []string{"", "../x", "a/b", "a b"} {
		spec := s.spec(t, "count")
		spec.ID = id
		_, err := s.Runtime.Create(t.Context(), spec)
		wantError(t, fmt.Sprintf("Create with id %q", id), err, runtime.ErrInvalid)
	}
}

func (s *suite) list(t *testing.T) {
	var specs []runtime.Spec
	for i, behaviour := range [][]string{{"count"}, {"count"}, {"exit", "3"}} {
		spec := s.spec(t, behaviour...)
		spec.ID = fmt.Sprintf("list-%d", i)
		spec.Labels = map[string]string{"berth.dev/run": spec.ID, "other": "x y=z"}
		specs = append(specs, spec)
		s.mustCreate(t, spec)
	}
	for _, spec := range specs[1:] {
		if _, err := s.Runtime.Start(t.Context(), spec.ID); err != nil {
			t.Fatalf("Start: %v", err)
		}
	}
	s.mustWait(t, specs[2].ID)
	list, err := s.Runtime.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	want := []runtime.State{runtime.StateCreated, runtime.StateRunning, runtime.StateExited}
	for i, spec := range specs {
		at := slices.IndexFunc(list, func(c runtime.Container) bool { return c.ID == spec.ID })
		if at < 0 {
			t.Fatalf("List has %v, not %s", ids(list), spec.ID)
		}
		c := list[at]
		if c.State != want[i] || c.Image != suiteImage || c.CreatedAt.IsZero() || (c.Pid == 0) != (want[i] == runtime.StateExited) {
			t.Errorf("List gives %+v, want state %s", c, want[i])
		}
		if diff := cmp.Diff(spec.Labels, c.Labels); diff != "" {
			t.Errorf("labels of %s (-want +got):\n%s", c.ID, diff)
		}
		if diff := cmp.Diff(s.mustInspect(t, c.ID), c); diff != "" {
			t.Errorf("Inspect and List differ:\n%s", diff)
		}
	}
}

func (s *suite) reopenRunning(t *testing.T) {
	spec := s.spec(t, "count")
	process := s.mustRun(t, spec)
	again := s.Reopen(t)
	defer again.Close()
	if c, err := again.Inspect(t.Context(), spec.ID); err != nil || c.State != runtime.StateRunning || c.Pid != process.Pid {
		t.Errorf("another client sees %+v, %v; want pid %d running", c, err, process.Pid)
	}
	if err := again.Signal(t.Context(), spec.ID, int(unix.SIGTERM)); err != nil {
		t.Errorf("another client's Signal: %v", err)
	}
	if exit := s.mustWait(t, spec.ID); exit.Code != 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func (s *suite) reopenEnded(t *testing.T) {
	spec := s.spec(t, "exit", "4")
	s.mustCreate(t, spec)
	if _, err := s.Runtime.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	s.mustWait(t, spec.ID)
	again := s.Reopen(t)
	defer again.Close()
	exit, err := again.Wait(t.Context(), spec.ID)
	if err != nil || (exit.Known && exit.Code != 4) {
		t.Errorf("another client's Wait gives %+v, %v; want code 4, or not known", exit, err)
	}
}

func (s *suite) waitGivesUp(t *testing.T) {
	spec := s.spec(t, "count")
	s.mustRun(t, spec)
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() {
		_, err := s.Runtime.Wait(ctx, spec.ID)
		waited <- err
	}()
	cancel()
	wantError(t, "Wait", <-waited, context.Canceled)
}

func (s *suite) several(t *testing.T) {
	var group errgroup.Group
	for i := range 5 {
		spec := s.spec(t, "exit", fmt.Sprint(i))
		spec.ID = fmt.Sprintf("several-%d", i)
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			if _, err := s.Runtime.Create(ctx, spec); err != nil {
				return err
			}
			if _, err := s.Runtime.Start(ctx, spec.ID); err != nil {
				return err
			}
			exit, err := s.Runtime.Wait(ctx, spec.ID)
			if err != nil {
				return err
			}
			if !exit.Known || exit.Code != i {
				return fmt.Errorf("container %d ended with %+v", i, exit)
			}
			return s.Runtime.Delete(ctx, spec.ID)
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
