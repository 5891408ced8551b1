package e2e

import (
	"slices"
	"testing"

	"berth/agent"
	"berth/workspace"
)

// TestCrashMatrix kills the daemon at each named point of a start and a stop.
// The next one must end with exactly one container, or none, and with a host
// that holds as much as before (newDaemon counts).
func TestCrashMatrix(t *testing.T) {
	points := agent.CrashPoints()
	stop := slices.Index(points, "before-term")
	for _, point := range points[:stop] {
		t.Run("start/"+point, func(t *testing.T) { crashInStart(t, point) })
	}
	for _, point := range points[stop:] {
		t.Run("stop/"+point, func(t *testing.T) { crashInStop(t, point) })
	}
}

func crashInStart(t *testing.T, point string) {
	d := newDaemon(t)
	d.up("BERTH_CRASH_AT=" + point)
	d.prepare()
	d.served("box", "count")
	d.create("box", "box")
	d.wait()
	d.up()
	inst := d.waitFor("box", "running")
	if inst.Attempts != 1 {
		t.Errorf("the crash cost %d runs instead of 1", inst.Attempts)
	}
	if n := lines(t, ctr("tasks", "ls", "-q")); n != 1 {
		t.Errorf("%d containers run, not 1", n)
	}
	d.stopAndCheck("box")
}

func crashInStop(t *testing.T, point string) {
	d := newDaemon(t)
	d.up("BERTH_CRASH_AT=" + point)
	d.prepare()
	// The one that ignores TERM passes every point of a stop.
	d.served("stubborn", "ignore-term")
	d.create("box", "stubborn")
	d.says(d.waitFor("box", "running").Run, "ready")
	// The daemon may die before it has answered.
	if _, err := d.client.StopInstance(t.Context(), "box"); err != nil && workspace.CodeOf(err) != workspace.CodeUnavailable {
		t.Fatal(err)
	}
	d.wait()
	d.up()
	d.stopAndCheck("box")
}

// served makes a template with all that a run can have: a volume, a port and a
// probe. The page is busybox's; behaviour is the workload's.
func (d *daemon) served(name, behaviour string) {
	d.t.Helper()
	if _, err := d.client.PutTemplate(d.t.Context(), workspace.Template{
		Name: name, Image: imageName, Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 1,
		Command:    []string{"/bin/sh", "-c", "echo hello >/tmp/index.html; httpd -p 8080 -h /tmp; exec /bin/workload " + behaviour},
		VolumePath: "/data", Ports: []workspace.Port{{Name: "page", Number: "8080", Protocol: "HTTP"}},
		Probe: &workspace.Probe{HTTPPath: "/", Port: "page"},
	}); err != nil {
		d.t.Fatal(err)
	}
}

// stopAndCheck stops an instance, if it hasn't been, and checks that nothing of
// it runs, that its GPU is free, and that it can start again.
func (d *daemon) stopAndCheck(name string) {
	d.t.Helper()
	if _, err := d.client.StopInstance(d.t.Context(), name); err != nil {
		d.t.Fatal(err)
	}
	inst := d.waitFor(name, "stopped")
	run, err := d.client.Run(d.t.Context(), inst.Run)
	if err != nil {
		d.t.Fatal(err)
	}
	if run.Phase != workspace.PhaseStopped {
		d.t.Errorf("the run ended %s (%s: %s), not stopped", run.Phase, run.Reason, run.Message)
	}
	if n := lines(d.t, ctr("containers", "ls", "-q")); n != 0 {
		d.t.Errorf("%d containers are left after the stop", n)
	}
	d.allFree()
	if _, err := d.client.StartInstance(d.t.Context(), name); err != nil {
		d.t.Fatal(err)
	}
	d.waitFor(name, "running")
}
