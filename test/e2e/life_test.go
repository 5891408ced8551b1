package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/client"
	"berth/gpu"
	"berth/workspace"
)

// pid is the container's first process, from its cgroup.
func pid(t *testing.T, run string) int {
	t.Helper()
	for _, path := range []string{"/sys/fs/cgroup/pids" + cgroupParent + "/" + run, "/sys/fs/cgroup" + cgroupParent + "/" + run} {
		raw, err := os.ReadFile(path + "/cgroup.procs")
		if err != nil {
			continue
		}
		lowest := 0
		for _, field := range strings.Fields(string(raw)) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			if lowest == 0 || n < lowest {
				lowest = n
			}
		}
		return lowest
	}
	t.Fatalf("run %s has no cgroup", run)
	return 0
}

func startTime(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return strings.Fields(rest)[19]
}

// allFree waits until every GPU is free: the release follows the end of a run.
func (d *daemon) allFree() {
	d.t.Helper()
	d.eventually("all GPUs are free", func(ctx context.Context) error {
		n := 0
		for dev, err := range client.All(ctx, d.client.Devices, client.ListOptions{}) {
			if err != nil {
				return err
			}
			if dev.State == gpu.Free {
				n++
			}
		}
		if n != 8 {
			return fmt.Errorf("%d of 8 are", n)
		}
		return nil
	})
}

// says waits until a run's log holds a text.
func (d *daemon) says(run, text string) {
	d.t.Helper()
	d.eventually("the container says "+text, func(context.Context) error {
		raw, err := os.ReadFile(filepath.Join(d.data(), "logs", run+".log"))
		if err == nil && !strings.Contains(string(raw), text) {
			err = fmt.Errorf("it says %q", raw)
		}
		return err
	})
}

func TestLifeOfAnInstance(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	created := d.create("box", "demo")
	if created.Status != workspace.StatusPending || created.Run == "" {
		t.Errorf("created: %s, run %q", created.Status, created.Run)
	}
	first := d.waitFor("box", "running")
	run, err := d.client.Run(t.Context(), first.Run)
	if err != nil {
		t.Fatal(err)
	}
	if run.Phase != workspace.PhaseRunning || len(run.Devices) != 1 || run.Times.Running.IsZero() {
		t.Errorf("run: %+v", run)
	}
	d.stopAndCheck("box")
	if _, err := d.client.RestartInstance(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	d.eventually("a third run is running", func(ctx context.Context) error {
		inst, err := d.client.Instance(ctx, "box")
		if err != nil || inst.Attempts != 3 || inst.Status != workspace.StatusRunning {
			return fmt.Errorf("%+v %w", inst, err)
		}
		return nil
	})
	if _, err := d.client.DeleteInstance(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	d.waitFor("box", "deleted")
	d.allFree()
}

func TestKilledDaemonAdopts(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			d := newDaemon(t)
			d.up()
			d.prepare()
			d.create("box", "demo")
			inst := d.waitFor("box", "running")
			before := pid(t, inst.Run)
			started := startTime(t, before)
			d.signal(sig)
			if pid(t, inst.Run) != before {
				t.Fatal("the container ended with the daemon")
			}
			d.up()
			again := d.waitFor("box", "running")
			if again.Run != inst.Run || pid(t, again.Run) != before || startTime(t, before) != started {
				t.Errorf("it isn't the same container: run %s, then %s", inst.Run, again.Run)
			}
		})
	}
}

// A container that ends while no daemon watches is seen by the next one.
func TestEndWhileTheDaemonIsDown(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.create("box", "demo")
	inst := d.waitFor("box", "running")
	first := pid(t, inst.Run)
	d.eventually("its workload counts", func(context.Context) error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/tmp/counter", first))
		return err
	})
	d.kill()
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.up()
	d.eventually("the end is seen", func(ctx context.Context) error {
		run, err := d.client.Run(ctx, inst.Run)
		if err != nil || !run.Phase.Terminal() {
			return fmt.Errorf("%+v %w", run, err)
		}
		return nil
	})
	d.allFree()
}

func TestContainerThatExitsAtOnce(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.template("exits", "exit", "3")
	d.create("box", "exits")
	d.eventually("it has failed", func(ctx context.Context) error {
		inst, err := d.client.Instance(ctx, "box")
		switch {
		case err != nil:
			return err
		case inst.Status != workspace.StatusFailed:
			return fmt.Errorf("it is %s", inst.Status)
		case !strings.Contains(inst.Message, "3"):
			t.Errorf("the message doesn't tell the exit code: %s", inst.Message)
		}
		return nil
	})
	d.allFree()
}

func TestContainerThatIgnoresTERM(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.template("stubborn", "ignore-term")
	d.create("box", "stubborn")
	d.says(d.waitFor("box", "running").Run, "ready")
	d.stopAndCheck("box")
}

// Nine instances for eight GPUs: the ninth waits, says why, and runs when one
// is free.
func TestTheNinthWaits(t *testing.T) {
	d := newDaemon(t, "--node-cpu-milli", "16000")
	d.up()
	d.prepare()
	for i := range 9 {
		d.create(fmt.Sprintf("box-%d", i), "demo")
	}
	ninth, err := d.client.Instance(t.Context(), "box-8")
	if err != nil {
		t.Fatal(err)
	}
	if ninth.Status != workspace.StatusPending || ninth.Reason != "waiting_for_gpu" {
		t.Fatalf("the ninth is %s (%s: %s)", ninth.Status, ninth.Reason, ninth.Message)
	}
	d.waitFor("box-0", "running")
	if _, err := d.client.StopInstance(t.Context(), "box-0"); err != nil {
		t.Fatal(err)
	}
	d.waitFor("box-8", "running")
}
