package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testImage = "demo:latest"
	model     = "NVIDIA A100-PCIE-40GB"
)

// host is what outlives an agent: the runtime with its containers, the data
// directory and the boot clock. It also remembers what was created.
type host struct {
	*runtimetest.Fake
	t        *testing.T
	dir      string
	boot     time.Time
	gpus     *gputest.Fake
	volumes  *runtimetest.FakeVolumes
	networks *runtimetest.FakeNetworks
	cluster  *cluster
	guard    *fakeGuard
	conf     func(*Config) // changes the next daemon's; nil: nothing

	mu        sync.Mutex
	specs     []runtime.Spec
	processes map[int]Process
	terms     int             // SIGTERMs sent
	taskless  bool            // containers that weren't started have lost their task
	up        context.Context // ends when the runtime goes down
	goDown    context.CancelFunc
	log       io.Writer
}

func newHost(t *testing.T) *host {
	fake := runtimetest.New()
	h := &host{
		Fake: fake, t: t, dir: t.TempDir(), log: io.Discard,
		boot: time.Now().Add(-time.Hour), gpus: gputest.New(model, 2),
	}
	h.volumes, h.networks = runtimetest.NewFakeVolumes(t.TempDir()), runtimetest.NewFakeNetworks(t.TempDir())
	h.cluster = newCluster(h)
	h.guard = newFakeGuard(h)
	t.Cleanup(h.guard.stop)
	h.AddImage(testImage)
	h.startRuntime()
	return h
}

// startRuntime has the runtime answer; after goDown only Kill works, and
// containers go on.
func (h *host) startRuntime() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.up, h.goDown = context.WithCancel(context.Background())
}

// digest is that of a stored image.
func (h *host) digest(reference string) string {
	images, err := h.Images(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, image := range images {
		if image.Reference == reference {
			return image.Digest
		}
	}
	h.t.Fatalf("no image %s", reference)
	return ""
}

func (h *host) created() []runtime.Spec {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.specs)
}

// boottime is the host's boot clock.
func (h *host) boottime() time.Duration { return time.Since(h.boot) }

// daemon is one agent's life on a host. A crash cuts it off from everything at
// once, as SIGKILL does.
type daemon struct {
	*Agent
	crashed chan struct{}
	dead    atomic.Bool
	cancel  context.CancelFunc
	done    chan error
}

// startDaemon runs an agent that crashes when it meets crashAt ("": never).
func (h *host) startDaemon(crashAt string) *daemon {
	d := &daemon{crashed: make(chan struct{}), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	conf := Config{
		Node: "node-1", BootID: "boot-1", Dir: h.dir,
		Cluster:  &link{cluster: h.cluster, daemon: d},
		Runtime:  &hostRuntime{Fake: h.Fake, host: h, daemon: d},
		Volumes:  &hostVolumes{Volumes: h.volumes, host: h, daemon: d},
		Networks: &hostNetworks{Networks: h.networks, host: h, daemon: d},
		Publish:  Publish{Address: "127.0.0.1", First: 30000, Last: 30009},
		GPU:      h.gpus,
		DeviceOf: func(info gpu.Info) runtime.Device { return runtime.Device{Name: info.UUID} },
		Facts:    workspace.NodeFacts{Name: "alpha"},
		Boottime: h.boottime, ProcessOf: h.processOf, ProcessStart: h.processStart, CgroupsOf: h.cgroupsOf,
		Guard: &guardLink{h.guard, d},
		Log:   slog.New(slog.NewTextHandler(h.log, nil)),
		Crash: func(point string) {
			if point == crashAt && d.dead.CompareAndSwap(false, true) {
				cancel()
				close(d.crashed)
			}
			if d.dead.Load() {
				goruntime.Goexit()
			}
		},
	}
	if h.conf != nil {
		h.conf(&conf)
	}
	agent, err := New(conf)
	if err != nil {
		h.t.Fatal(err)
	}
	d.Agent = agent
	go func() { d.done <- agent.Run(ctx) }()
	return d
}

// stop ends the agent as SIGTERM does.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	d.cancel()
	if err := <-d.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// link is a daemon's connection to the cluster.
type link struct {
	*cluster
	daemon *daemon
}

var errDead = errors.New("the daemon is dead")

func (l *link) Assignments(ctx context.Context, after gpu.Epoch) (workspace.AssignmentView, error) {
	return l.assignments(ctx, after)
}

func (l *link) Report(_ context.Context, report workspace.Report) error {
	time.Sleep(l.set(nil).reportTakes)
	if l.daemon.dead.Load() {
		return errDead
	}
	return l.report(report)
}

func (l *link) Beat(_ context.Context, beat workspace.Beat) error {
	if l.daemon.dead.Load() {
		return errDead
	}
	return l.beat(beat)
}

func (l *link) GoAhead(ctx context.Context, run string, sent workspace.Stamp) (workspace.GoAheadAnswer, error) {
	if l.daemon.dead.Load() {
		return workspace.GoAheadAnswer{}, errDead
	}
	return l.goAhead(ctx, run, sent)
}

// hostRuntime is a daemon's connection to the runtime.
type hostRuntime struct {
	*runtimetest.Fake
	host   *host
	daemon *daemon
}

func (r *hostRuntime) alive() error {
	if r.daemon.dead.Load() {
		return errDead
	}
	if r.upNow().Err() != nil {
		return fmt.Errorf("containerd doesn't answer: %w", runtime.ErrUnavailable)
	}
	return nil
}

func (r *hostRuntime) upNow() context.Context {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	return r.host.up
}

func (r *hostRuntime) Info(ctx context.Context) (runtime.Info, error) {
	if err := r.alive(); err != nil {
		return runtime.Info{}, err
	}
	return r.Fake.Info(ctx)
}

func (r *hostRuntime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	if err := r.alive(); err != nil {
		return runtime.Exit{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := r.upNow()
	defer context.AfterFunc(up, cancel)()
	exit, err := r.Fake.Wait(ctx, id)
	if up.Err() != nil {
		return runtime.Exit{}, r.alive()
	}
	return exit, err
}

func (r *hostRuntime) Create(ctx context.Context, spec runtime.Spec) (runtime.Created, error) {
	if err := r.alive(); err != nil {
		return runtime.Created{}, err
	}
	created, err := r.Fake.Create(ctx, spec)
	if err == nil {
		r.host.mu.Lock()
		r.host.specs = append(r.host.specs, spec)
		r.host.mu.Unlock()
	}
	return created, err
}

func (r *hostRuntime) Pull(ctx context.Context, source runtime.ImageSource, progress func(runtime.PullProgress)) (runtime.Image, error) {
	if err := r.alive(); err != nil {
		return runtime.Image{}, err
	}
	return r.Fake.Pull(ctx, source, progress)
}

func (r *hostRuntime) Inspect(ctx context.Context, id string) (runtime.Container, error) {
	if err := r.alive(); err != nil {
		return runtime.Container{}, err
	}
	c, err := r.Fake.Inspect(ctx, id)
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	if r.host.taskless && c.State == runtime.StateCreated {
		c.Pid = 0
	}
	return c, err
}

func (r *hostRuntime) Start(ctx context.Context, id string) (runtime.Process, error) {
	if err := r.alive(); err != nil {
		return runtime.Process{}, err
	}
	process, err := r.Fake.Start(ctx, id)
	if err == nil {
		r.host.cluster.started(id)
	}
	return process, err
}

func (r *hostRuntime) Signal(ctx context.Context, id string, signal int) error {
	if err := r.alive(); err != nil {
		return err
	}
	err := r.Fake.Signal(ctx, id, signal)
	if err == nil {
		r.host.mu.Lock()
		r.host.terms++
		r.host.mu.Unlock()
	}
	return err
}

func (r *hostRuntime) Kill(ctx context.Context, id string) error {
	if r.daemon.dead.Load() {
		return errDead
	}
	return r.Fake.Kill(ctx, id)
}

func (r *hostRuntime) Delete(ctx context.Context, id string) error {
	if err := r.alive(); err != nil {
		return err
	}
	return r.Fake.Delete(ctx, id)
}

// inBubble runs a test on a host of its own, in simulated time.
func inBubble(t *testing.T, test func(t *testing.T, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newHost(t)) })
}

// settle lets everything that can happen at this moment happen.
func settle() { synctest.Wait() }

// pass lets simulated time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	settle()
}

// containers lists ids and states.
func (h *host) containers() map[string]runtime.State {
	list, err := h.List(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	states := map[string]runtime.State{}
	for _, c := range list {
		states[c.ID] = c.State
	}
	return states
}

// uuid is the name of the host's n-th device.
func uuid(n int) string { return fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", n) }
