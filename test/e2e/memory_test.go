package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"berth/workspace"
)

// Whoever uses more memory than was asked for is told so, whichever process the
// kernel chose; the policy restarts it with a wait that is shown, and so often.
func TestOutOfMemory(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	const hungry = "dd if=/dev/zero of=/dev/null bs=300M count=1"
	d.made(workspace.Template{Name: "main", Command: shell("exec " + hungry)})
	d.made(workspace.Template{Name: "child", Command: shell(hungry + "; exit 3")})
	d.made(workspace.Template{Name: "survivor", Command: shell(hungry + "; exit 0")})
	twice := func(n *workspace.NewInstance) {
		n.RestartPolicy = workspace.RestartPolicy{Mode: workspace.RestartOnFailure, MaxRestarts: 1}
	}
	d.asked("main", "main", twice)
	d.asked("called-off", "main", twice)
	d.asked("child", "child", nil)
	d.asked("survivor", "survivor", nil)

	waiting := d.status("main", workspace.StatusPending, workspace.ReasonRestartBackoff)
	says(t, waiting.Message, "restart 1 of 1", "128 MiB")
	off := d.status("called-off", workspace.StatusPending, workspace.ReasonRestartBackoff)
	stopped := time.Now()
	d.stop("called-off")
	if took := time.Since(stopped); took > workspace.FirstRestartDelay {
		t.Errorf("the stop of what waits for a restart took %s", took)
	}

	says(t, d.status("child", workspace.StatusFailed, "child_oom_killed").Message, "memory limit of 128 MiB", "exit code 3", "more memory")
	run := d.over("survivor")
	if run.Phase != workspace.PhaseSucceeded || !run.OOM {
		t.Errorf("a run that outlived its killed child: %s, OOM %t: %s", run.Phase, run.OOM, run.Message)
	}
	says(t, run.Message, "128 MiB")

	given := d.status("main", workspace.StatusFailed, "oom_killed")
	says(t, given.Message, "memory limit of 128 MiB", "more memory", "max_restarts")
	if given.Attempts != 2 {
		t.Errorf("%d runs were made, not 2", given.Attempts)
	}
	if run := d.over("main"); !run.OOM || run.Times.Assigned.Sub(run.Times.Created) < workspace.FirstRestartDelay-time.Second {
		t.Errorf("the second run: OOM %t, made %s, placed %s", run.OOM, run.Times.Created, run.Times.Assigned)
	}
	after, err := d.client.Instance(t.Context(), "called-off")
	if err != nil {
		t.Fatal(err)
	}
	if after.Status != workspace.StatusStopped || after.Attempts != off.Attempts || after.Run != off.Run {
		t.Errorf("stopped while it waited, it is %s after %d runs, of which it had %d", after.Status, after.Attempts, off.Attempts)
	}
}

// over waits until an instance's latest run has ended, and gives it.
func (d *daemon) over(name string) *workspace.Run {
	d.t.Helper()
	var run *workspace.Run
	d.eventually("the run of "+name+" is over", func(ctx context.Context) error {
		inst, err := d.client.Instance(ctx, name)
		if err != nil {
			return err
		}
		run, err = d.client.Run(ctx, inst.Run)
		if err == nil && !run.Phase.Terminal() {
			err = fmt.Errorf("it is %s (%s: %s)", run.Phase, run.Reason, run.Message)
		}
		return err
	})
	return run
}

// A program that never gets ready is ended in time, with what it said last; a job
// that ends at once has ended, and isn't started again.
func TestProbeAndJob(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	ports := []workspace.Port{{Name: "page", Number: "8080", Protocol: "HTTP"}}
	// busybox's httpd runs a script below cgi-bin, whose own word is the status.
	broken := "mkdir -p /tmp/w/cgi-bin; printf '#!/bin/sh\\nprintf \"Status: 503 Busy\\\\r\\\\n\\\\r\\\\nno\"\\n' >/tmp/w/cgi-bin/x; chmod +x /tmp/w/cgi-bin/x; exec httpd -f -p 8080 -h /tmp/w"
	d.made(workspace.Template{Name: "silent", Command: shell("exec sleep 1000"), Ports: ports, Probe: &workspace.Probe{HTTPPath: "/", Port: "page", Timeout: 2}})
	d.made(workspace.Template{Name: "broken", Command: shell(broken), Ports: ports, Probe: &workspace.Probe{HTTPPath: "/cgi-bin/x", Port: "page", Timeout: 3}})
	d.made(workspace.Template{Name: "batch", Kind: workspace.KindJob, Command: shell("exit 0")})
	d.made(workspace.Template{Name: "bad-batch", Kind: workspace.KindJob, Command: shell("echo why >&2; exit 9")})
	for _, name := range []string{"silent", "broken", "batch", "bad-batch"} {
		d.asked(name, name, nil)
	}
	says(t, d.status("silent", workspace.StatusFailed, "not_ready").Message, "2s", "GET /", "8080", "last answer", "refused")
	says(t, d.status("broken", workspace.StatusFailed, "not_ready").Message, "3s", "GET /cgi-bin/x", "last answer", "503")
	if run := d.over("batch"); run.Phase != workspace.PhaseSucceeded || run.ExitCode == nil || *run.ExitCode != 0 {
		t.Errorf("the job: %s: %s", run.Phase, run.Message)
	}
	if run := d.over("bad-batch"); run.Phase != workspace.PhaseFailed || run.ExitCode == nil || *run.ExitCode != 9 {
		t.Errorf("the job that fails: %s: %s", run.Phase, run.Message)
	} else {
		says(t, run.Message, "exit code 9", "log")
	}
	for _, name := range []string{"batch", "bad-batch"} {
		inst, err := d.client.Instance(t.Context(), name)
		if err != nil || inst.Attempts != 1 {
			t.Errorf("%s: %d runs (%v)", name, inst.Attempts, err)
		}
	}
}
