package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/client"
	"berth/workspace"
)

// cgroupParent keeps the containers of the tests apart from others on the host.
const cgroupParent = "/berth-e2e"

// networks counts the daemons that were made: each has a bridge and a subnet of
// its own, which no berth of this host has.
var networks atomic.Int32

const patience = 30 * time.Second

// daemon is a berthd with a data directory of its own, on the shared containerd.
type daemon struct {
	t      *testing.T
	dir    string
	at     string // its control socket
	args   []string
	bridge string
	subnet string
	wrap   func(*exec.Cmd) // changes how it is started; nil: doesn't
	client *client.Client
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	before counts        // what the host held before it
}

// newDaemon prepares one; nothing runs yet. What it leaves on the host when the
// test ends is a failure.
func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	if skipped != "" {
		t.Skip(skipped)
	}
	dir, err := os.MkdirTemp(host.dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	n := networks.Add(1)
	d := &daemon{
		t: t, dir: dir, at: filepath.Join(dir, "berth.sock"), args: args,
		bridge: fmt.Sprintf("berthe2e%d", n), subnet: fmt.Sprintf("10.212.%d.0/24", n%256),
	}
	d.before = leftovers(t)
	t.Cleanup(func() {
		d.cleanUp()
		if t.Failed() {
			t.Logf("log of berthd:\n%s", d.log())
		}
	})
	return d
}

func (d *daemon) socket() string { return d.at }
func (d *daemon) data() string   { return filepath.Join(d.dir, "data") }

func (d *daemon) log() string {
	raw, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(raw)
}

// commandLine is how the daemon is started.
func (d *daemon) commandLine() []string {
	return append([]string{"run", "--config", "/dev/null", "--data-dir", d.data(), "--socket", d.socket(),
		"--http-listen", "127.0.0.1:0", "--containerd-address", host.containerd, "--run-dir", filepath.Join(d.dir, "run"), "--network-bridge", d.bridge, "--network-subnet", d.subnet,
		"--containerd-cgroup-parent", cgroupParent, "--simulate-gpus", "A100-SXM4-80GB:8", "--log-level", "debug"}, d.args...)
}

// start runs the daemon without waiting for it.
func (d *daemon) start(env ...string) {
	d.t.Helper()
	var err error
	if d.client, err = client.New(client.Options{Socket: d.socket()}); err != nil {
		d.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(host.bin, "berthd"), d.commandLine()...)
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.wrap != nil {
		d.wrap(d.cmd)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(d.cmd, d.ended)
}

// up runs the daemon and waits until its node is ready.
func (d *daemon) up(env ...string) {
	d.t.Helper()
	d.start(env...)
	d.ready()
}

// ready waits until the daemon's node takes work.
func (d *daemon) ready() {
	d.t.Helper()
	d.eventually("the daemon is ready", func(ctx context.Context) error {
		s, err := d.client.Status(ctx)
		switch {
		case err != nil:
			return err
		case s.Nodes.Ready != 1:
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

// eventually retries until it holds; it gives up when the daemon has ended.
func (d *daemon) eventually(what string, holds func(context.Context) error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			d.t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-d.ended:
			d.t.Fatalf("%s: berthd ended (%v): %v", what, d.cmd.ProcessState, err)
		case <-tick.C:
		}
	}
}

func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	d.wait()
}

func (d *daemon) kill() { d.signal(syscall.SIGKILL) }

// wait until the process has ended.
func (d *daemon) wait() {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		d.t.Fatal("berthd didn't end")
	}
}

// cleanUp deletes every instance, then stops the daemon.
func (d *daemon) cleanUp() {
	if d.cmd == nil {
		return
	}
	select {
	case <-d.ended:
		d.up()
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for inst, err := range client.All(ctx, d.client.Instances, client.ListOptions{Workspace: "*"}) {
		if err != nil {
			d.t.Errorf("clean up: %v", err)
			break
		}
		if _, err := d.client.DeleteInstance(ctx, inst.ID); err != nil && workspace.CodeOf(err) != workspace.CodeNotFound {
			d.t.Errorf("clean up: %v", err)
		}
	}
	d.eventually("all runs are over", func(ctx context.Context) error {
		for run, err := range client.All(ctx, d.client.Runs, client.ListOptions{Workspace: "*"}) {
			if err != nil || !run.Phase.Terminal() || run.Unreleased {
				return fmt.Errorf("run %s is %s (%w)", run.ID, run.Phase, err)
			}
		}
		return nil
	})
	d.tidy()
	d.signal(syscall.SIGTERM)
	d.client.Close()
	d.cmd = nil
	d.clear()
}

// tidy waits until the host holds no more than before: the end of a run is told
// before its network and its volume are put away.
func (d *daemon) tidy() {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for leftovers(d.t) != d.before {
		if time.Now().After(deadline) {
			d.t.Errorf("left on the host:\nbefore %+v\nafter  %+v", d.before, leftovers(d.t))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// clear takes away what a host keeps between runs: the bridge and its rules, and
// the guard.
func (d *daemon) clear() {
	d.t.Helper()
	args := append([]string{"clear"}, d.commandLine()[1:]...)
	if out, err := exec.Command(filepath.Join(host.bin, "berthd"), args...).CombinedOutput(); err != nil {
		d.t.Errorf("berthd clear: %v\n%s", err, out)
	}
	if out, err := exec.Command("ip", "link", "show", d.bridge).CombinedOutput(); err == nil {
		d.t.Errorf("berthd clear left the bridge:\n%s", out)
	}
	if left := d.guards(); len(left) > 0 {
		d.t.Errorf("berthd clear left the guard: %v", left)
	}
}

// prepare imports the image and makes the template that tests start from.
func (d *daemon) prepare() {
	d.t.Helper()
	ctx := d.t.Context()
	if _, err := d.client.ImportImage(ctx, bytes.NewReader(host.archive), client.ImportOptions{}, nil); err != nil {
		d.t.Fatal(err)
	}
	d.template("demo")
}

// template makes a template that runs the workload with these arguments.
func (d *daemon) template(name string, args ...string) {
	d.t.Helper()
	if len(args) > 0 {
		args = append([]string{"/bin/workload"}, args...)
	}
	if _, err := d.client.PutTemplate(d.t.Context(), workspace.Template{
		Name: name, Image: imageName, Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 1, Command: args,
	}); err != nil {
		d.t.Fatal(err)
	}
}

// create makes and starts an instance with one GPU.
func (d *daemon) create(name, template string) *workspace.Instance {
	d.t.Helper()
	inst, err := d.client.CreateInstance(d.t.Context(), newInstance(name, template, 1))
	if err != nil {
		d.t.Fatal(err)
	}
	return inst
}

func newInstance(name, template string, gpus int) workspace.NewInstance {
	cpu, memory, storage := int64(500), int64(128), int64(64)
	return workspace.NewInstance{
		Name: name, Template: workspace.TemplateChoice{Name: template},
		Resources: workspace.ResourceRequest{GPUCount: &gpus, CPUMilli: &cpu, MemoryMiB: &memory, StorageMiB: &storage},
	}
}

func (d *daemon) waitFor(name, phase string) *workspace.Instance {
	d.t.Helper()
	inst, err := d.client.Wait(d.t.Context(), name, phase, patience, nil)
	if err != nil {
		d.t.Fatalf("%s %s: %v", name, phase, err)
	}
	return inst
}

// fails runs the daemon's command line and gives what it says when it ends with
// an error.
func (d *daemon) fails(args ...string) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(host.bin, "berthd"), append(d.commandLine(), args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		d.t.Fatalf("berthd ended with %v, not with exit code 1:\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
