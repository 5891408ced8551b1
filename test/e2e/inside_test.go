package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/workspace"
)

// inside runs a shell's line in an instance's container and gives its exit code
// and what it wrote.
func (d *daemon) inside(name, line string) (code int, said string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	code, err := d.client.Exec(ctx, name, workspace.ExecSpec{Command: []string{"/bin/sh", "-c", line + " 2>&1"}}, workspace.ExecStreams{Stdout: &out})
	if err != nil {
		d.t.Fatalf("exec %q in %s: %v", line, name, err)
	}
	return code, strings.TrimSpace(out.String())
}

// must is inside for a line that succeeds.
func (d *daemon) must(name, line string) string {
	d.t.Helper()
	code, said := d.inside(name, line)
	if code != 0 {
		d.t.Fatalf("%q in %s: exit code %d: %s", line, name, code, said)
	}
	return said
}

// berth runs the command line against the daemon.
func (d *daemon) berth(args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(host.bin, "berth"), append([]string{"--socket", d.socket()}, args...)...).CombinedOutput()
	return string(out), err
}

// stop an instance and wait until it is.
func (d *daemon) stop(name string) {
	d.t.Helper()
	if _, err := d.client.StopInstance(d.t.Context(), name); err != nil {
		d.t.Fatal(err)
	}
	d.waitFor(name, "stopped")
}

// startAgain starts an instance and waits until it runs.
func (d *daemon) startAgain(name string) *workspace.Instance {
	d.t.Helper()
	if _, err := d.client.StartInstance(d.t.Context(), name); err != nil {
		d.t.Fatal(err)
	}
	return d.waitFor(name, "running")
}

// status waits until an instance has a status, and a reason if one is given.
func (d *daemon) status(name string, want workspace.Status, reason string) *workspace.Instance {
	d.t.Helper()
	var inst *workspace.Instance
	d.eventually(fmt.Sprintf("%s is %s (%s)", name, want, reason), func(ctx context.Context) (err error) {
		inst, err = d.client.Instance(ctx, name)
		if err == nil && (inst.Status != want || reason != "" && inst.Reason != reason) {
			err = fmt.Errorf("it is %s (%s: %s)", inst.Status, inst.Reason, inst.Message)
		}
		return err
	})
	return inst
}

// made makes a template; what isn't given is as template has it.
func (d *daemon) made(t workspace.Template) {
	d.t.Helper()
	if t.Image == "" {
		t.Image = imageName
	}
	if t.Kind == "" {
		t.Kind = workspace.KindInteractive
	}
	t.Stoppable, t.StopGrace = true, 1
	if _, err := d.client.PutTemplate(d.t.Context(), t); err != nil {
		d.t.Fatal(err)
	}
}

func shell(line string) []string { return []string{"/bin/sh", "-c", line} }

// asked makes and starts an instance without a GPU, changed by the caller.
func (d *daemon) asked(name, template string, change func(*workspace.NewInstance)) *workspace.Instance {
	d.t.Helper()
	n := newInstance(name, template, 0)
	if change != nil {
		change(&n)
	}
	inst, err := d.client.CreateInstance(d.t.Context(), n)
	if err != nil {
		d.t.Fatal(err)
	}
	return inst
}

// What a command in a container did, and that nothing of it stays.
func TestExec(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.asked("box", "demo", nil)
	run := d.waitFor("box", "running").Run

	if code, said := d.inside("box", "echo out; exit 7"); code != 7 || said != "out" {
		t.Errorf("exit code %d, %q", code, said)
	}
	_, err := d.client.Exec(t.Context(), "box", workspace.ExecSpec{Command: []string{"/bin/none"}}, workspace.ExecStreams{})
	if workspace.CodeOf(err) != workspace.CodeInvalid {
		t.Errorf("a command that isn't there: %v", err)
	} else {
		says(t, err.Error(), "/bin/none", run)
	}

	// A client that is killed takes its process along, and only that.
	before := pid(t, run)
	cmd := exec.Command(filepath.Join(host.bin, "berth"), "--socket", d.socket(), "exec", "box", "--", "/bin/sh", "-c", "sleep 98765; true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sleeping := func(want bool) func(context.Context) error {
		return func(context.Context) error {
			if _, list := d.inside("box", "ps -o args"); strings.Contains(strings.ReplaceAll(list, "ps -o args", ""), "sleep 98765") != want {
				return fmt.Errorf("the container has\n%s", list)
			}
			return nil
		}
	}
	d.eventually("the process runs", sleeping(true))
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	d.eventually("the process of the killed client is gone", sleeping(false))
	if pid(t, run) != before {
		t.Error("the container's own process is another")
	}

	d.stop("box")
	_, err = d.client.Exec(t.Context(), "box", workspace.ExecSpec{Command: []string{"true"}}, workspace.ExecStreams{})
	if workspace.CodeOf(err) != workspace.CodeConflict {
		t.Fatalf("exec into a stopped instance: %v", err)
	}
	says(t, err.Error(), "box", "STOPPED", "berth instance start box")
	out, err := d.berth("exec", "box", "--", "true")
	if code := exitCode(err); code != 5 {
		t.Errorf("berth exec into a stopped instance: exit code %d", code)
	}
	says(t, out, "STOPPED", "berth instance start box")
}
