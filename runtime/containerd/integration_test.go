package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// fixture is a Runtime with an image, which checks at the end that nothing is
// left.
type fixture struct {
	*Runtime
	t *testing.T
}

const demo = "demo:latest"

func newFixture(t *testing.T, options ociarchive.Options) *fixture {
	t.Helper()
	f := &fixture{Runtime: shared.open(t), t: t}
	if _, err := f.Import(t.Context(), bytes.NewReader(demoArchive(t, options)), demo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left := shared.settled(t, f.Runtime)
		if len(left) > 0 {
			t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
		}
		if err := f.RemoveImage(context.Background(), demo); err != nil {
			t.Error(err)
		}
	})
	return f
}

// start creates and starts a container, to be removed at the end.
func (f *fixture) start(spec runtime.Spec) runtime.Process {
	f.t.Helper()
	f.create(spec)
	process, err := f.Start(f.t.Context(), spec.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	return process
}

func (f *fixture) create(spec runtime.Spec) {
	f.t.Helper()
	if _, err := f.Create(f.t.Context(), spec); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(f.Kill(ctx, spec.ID), f.Delete(ctx, spec.ID)); err != nil {
			f.t.Error(err)
		}
	})
}

// output runs a container to its end and gives what it wrote.
func (f *fixture) output(spec runtime.Spec) string {
	f.t.Helper()
	spec.LogPath = filepath.Join(f.t.TempDir(), "log")
	f.start(spec)
	if _, err := f.Wait(f.t.Context(), spec.ID); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Delete(f.t.Context(), spec.ID); err != nil { // the logger has written all by then
		f.t.Fatal(err)
	}
	content, err := os.ReadFile(spec.LogPath)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(content)
}

func shell(id, script string) runtime.Spec {
	return runtime.Spec{ID: id, Image: demo, Args: []string{"/bin/sh", "-c", script}}
}

func TestLimits(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := shell("limits", "sleep 60")
	spec.Limits = runtime.Limits{CPUMilli: 500, MemoryMiB: 48, Pids: 77, ShmMiB: 3}
	process := f.start(spec)

	want := map[string]string{
		"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000",
		"memory/memory.limit_in_bytes": "50331648", "pids/pids.max": "77",
	}
	if f.cgroups.limitsSwap() {
		want["memory/memory.memsw.limit_in_bytes"] = "50331648"
	}
	if f.cgroups.unified {
		want = map[string]string{"cpu.max": "50000 100000", "memory.max": "50331648", "memory.swap.max": "0", "pids.max": "77"}
	}
	for file, value := range want {
		controller, name := filepath.Split(file)
		content, err := os.ReadFile(filepath.Join(f.cgroups.root, controller, f.newCgroup("limits"), name))
		if got := strings.TrimSpace(string(content)); err != nil || got != value {
			t.Errorf("%s is %q (%v), want %s", file, got, err, value)
		}
	}
	if got := readTrimmed(t, process.Pid, "oom_score_adj"); got != "500" {
		t.Errorf("oom_score_adj is %s", got)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(inside(process.Pid, "/dev/shm"), &stat); err != nil || int64(stat.Blocks)*stat.Bsize != 3*mib {
		t.Errorf("/dev/shm has %d bytes, %v", int64(stat.Blocks)*stat.Bsize, err)
	}
	limits := readTrimmed(t, process.Pid, "limits")
	if open := fmt.Sprintf("Max open files            %-20d %-20d", f.rlimits.nofileSoft, f.rlimits.nofileHard); !strings.Contains(limits, open) {
		t.Errorf("limits are\n%s\nwant %s", limits, open)
	}
}

func TestConfinement(t *testing.T) {
	f := newFixture(t, ociarchive.Options{User: "berth", Env: []string{"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_REQUIRE_CUDA=x", "FROM_IMAGE=1"}})
	spec := shell("confined", `
		cat /proc/1/comm; id; env
		grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
		ip -o addr; ls -d /proc/[0-9]* | wc -l
		touch /proc/sys/kernel/x; cat /proc/kcore | head -c 1 | wc -c
		touch /.berth/x; mknod /tmp/null c 1 3; hostname`)
	spec.Env = []string{"NVIDIA_DRIVER_CAPABILITIES=all", "MINE=a=b"}
	spec.Hostname = "workspace-1"
	output := f.output(spec)
	for _, want := range []string{
		"helper\n", "uid=1000(berth) gid=1000(berth)", "44(video)",
		"FROM_IMAGE=1\n", "MINE=a=b\n", "HOME=/tmp\n", "NVIDIA_VISIBLE_DEVICES=void\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t00000000a00405fb\n", "CapEff:\t0000000000000000\n",
		"inet 127.0.0.1/8", "mknod: /tmp/null: Operation not permitted", "workspace-1\n",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("the container's output lacks %q", want)
		}
	}
	for _, bad := range []string{"NVIDIA_DRIVER", "NVIDIA_REQUIRE", "eth0"} {
		if strings.Contains(output, bad) {
			t.Errorf("the container's output has %q", bad)
		}
	}
	if t.Failed() {
		t.Log(output)
	}
}

// TestDevices: simulated GPUs are numbers without a driver behind them. The
// kernel asks the device cgroup first: ENXIO says allowed, EPERM says no.
func TestDevices(t *testing.T) {
	f := newFixture(t, ociarchive.Options{User: "berth"})
	var devices []runtime.Device
	for minor := range int64(2) {
		devices = append(devices, runtime.Device{
			Name:  fmt.Sprintf("GPU-0000000%d", minor),
			Nodes: []runtime.DeviceNode{{Path: fmt.Sprintf("/dev/nvidia%d", minor), Major: 195, Minor: minor}},
			Env:   map[string]string{"GPU_UUID": fmt.Sprintf("GPU-0000000%d", minor)},
		})
	}
	if err := f.SetDevices(t.Context(), devices); err != nil {
		t.Fatal(err)
	}
	spec := shell("devices", `echo "$GPU_UUID"; ls /dev/nvidia*; cat /dev/nvidia1; while [ ! -e /dev/foreign ]; do sleep 0.02; done; cat /dev/foreign`)
	spec.LogPath = filepath.Join(t.TempDir(), "log")
	spec.Devices = []string{"GPU-00000001"}
	process := f.start(spec)
	foreign := inside(process.Pid, "/dev/foreign")
	if err := unix.Mknod(foreign, unix.S_IFCHR|0o666, int(unix.Mkdev(195, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	output, _ := os.ReadFile(spec.LogPath)
	// stdout and stderr come by pipes of their own: their lines may change places.
	lines := slices.Sorted(strings.Lines(string(output)))
	want := []string{
		"/dev/nvidia1\n", "GPU-00000001\n",
		"cat: can't open '/dev/foreign': Operation not permitted\n", "cat: can't open '/dev/nvidia1': No such device or address\n",
	}
	for i, line := range lines {
		lines[i] = strings.Replace(line, "Permission denied", "Operation not permitted", 1)
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the container wrote\n%s", output)
	}
	if err := f.SetDevices(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	log := filepath.Join(t.TempDir(), "of the/run?a=1&b.log")
	spec := runtime.Spec{ID: "log", Image: demo, Args: []string{"/bin/workload", "fill-log", "10"}, LogPath: log}
	spec.Limits.LogBytes = 1 << 20
	// The process that made the container has gone before it writes a byte.
	maker := shared.open(t)
	if _, err := maker.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	process, err := maker.Start(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	maker.Close()
	runtimetest.Eventually(t, "10 MiB are written", func() bool {
		_, err := os.Stat(inside(process.Pid, "/tmp/filled"))
		return err == nil
	})
	if err := f.Signal(t.Context(), spec.ID, int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{log, log + ".1"} {
		if info, err := os.Stat(file); err != nil || info.Size() > spec.Limits.LogBytes || info.Size() == 0 {
			t.Errorf("%s: %v, %v; want it to be there, with at most a MiB", file, info, err)
		}
	}
	content, _ := os.ReadFile(log)
	if !strings.Contains(string(content), "asked to stop") {
		t.Errorf("the last line isn't in the log, it ends in %q", content[max(0, len(content)-100):])
	}
}

func TestOutOfMemory(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := runtime.Spec{ID: "oom", Image: demo, Args: []string{"/bin/workload", "allocate", "200"}}
	spec.Limits.MemoryMiB = 32
	f.start(spec)
	exit, err := f.Wait(t.Context(), "oom")
	if err != nil || !exit.OOM || !exit.Known || exit.Code == 0 {
		t.Errorf("exit is %+v, %v; want out of memory", exit, err)
	}
	if c, err := f.Inspect(t.Context(), "oom"); err != nil || !c.Exit.OOM {
		t.Errorf("Inspect gives %+v, %v; want out of memory", c, err)
	}
}

// TestImageNotUnpacked: an image that another tool brought is unpacked at its
// first use.
func TestImageNotUnpacked(t *testing.T) {
	f := &fixture{Runtime: shared.open(t), t: t}
	image := demoArchive(t, ociarchive.Options{Files: map[string][]byte{"etc/other": []byte("other")}})
	if _, err := f.client.Import(t.Context(), bytes.NewReader(image)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.RemoveImage(context.Background(), demo); err != nil {
			t.Error(err)
		}
	})
	if output := f.output(shell("unpacked", "cat /etc/other")); output != "other" {
		t.Errorf("the container wrote %q", output)
	}
}

func TestCommandCannotRun(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	output := f.output(runtime.Spec{ID: "nocommand", Image: demo, Args: []string{"/bin/nothing"}})
	if !strings.Contains(output, `cannot run "/bin/nothing"`) {
		t.Errorf("the log says %q", output)
	}
}

func TestDefaultCommandAndDir(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	process := f.start(runtime.Spec{ID: "default", Image: demo})
	runtimetest.Eventually(t, "the image's command counts", func() bool {
		content, _ := os.ReadFile(inside(process.Pid, "/tmp/counter"))
		return strings.Count(string(content), "\n") >= 2
	})
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", process.Pid)); err != nil || dir != "/tmp" {
		t.Errorf("it works in %q, %v; want the image's /tmp", dir, err)
	}
}

// TestFailedCreate: runc refuses the mount; by then there are a record, a
// snapshot and a bundle. The fixture looks for what is left.
func TestFailedCreate(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := shell("failed", "true")
	spec.Mounts = []runtime.Mount{{Source: "/nonexistent/volume", Target: "/data"}}
	if _, err := f.Create(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "/nonexistent/volume") {
		t.Errorf("Create: %v, want an error that names the source", err)
	}
	spec.Mounts = nil
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Create(cancelled, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("Create with a cancelled context: %v", err)
	}
	f.create(spec) // the id is free
}

// TestCrashedCreate: what a crash in the middle of Create leaves is seen and can
// be deleted.
func TestCrashedCreate(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	encoded, err := typeurl.MarshalAny(&specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	record := containers.Container{
		ID: "crashed", Image: demo, Spec: encoded, Runtime: containers.RuntimeInfo{Name: runcRuntime},
		Snapshotter: "overlayfs", SnapshotKey: "crashed",
	}
	if _, err := f.client.ContainerService().Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.SnapshotService("overlayfs").Prepare(t.Context(), "crashed", ""); err != nil {
		t.Fatal(err)
	}
	c, err := f.Inspect(t.Context(), "crashed")
	if err != nil || c.State != runtime.StateCreated || c.Pid != 0 {
		t.Errorf("Inspect gives %+v, %v; want created without a process", c, err)
	}
	if _, err := f.Start(t.Context(), "crashed"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Start: %v, want not found", err)
	}
	if c, err := f.Inspect(t.Context(), "crashed"); err != nil || c.State != runtime.StateCreated {
		t.Errorf("after the refused Start, Inspect gives %+v, %v", c, err)
	}
	if err := f.Delete(t.Context(), "crashed"); err != nil {
		t.Error(err)
	}
}

// TestLostTask: the shim dies, and with it all knowledge of the end.
func TestLostTask(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	f.start(shell("lost", "sleep 600"))
	shims := processesWith("-address", shared.address)
	if len(shims) != 1 {
		t.Fatalf("shims are %v, want one", shims)
	}
	if err := unix.Kill(shims[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the container has ended", func() bool {
		c, err := f.Inspect(t.Context(), "lost")
		return err == nil && c.State == runtime.StateExited && !c.Exit.Known
	})
	if exit, err := f.Wait(t.Context(), "lost"); err != nil || exit.Known {
		t.Errorf("Wait gives %+v, %v; want an end that nobody saw", exit, err)
	}
}

func inside(pid int, path string) string { return fmt.Sprintf("/proc/%d/root%s", pid, path) }

func readTrimmed(t *testing.T, pid int, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// settled are the leftovers after the shims and loggers of deleted containers,
// which end a moment later.
func (h *host) settled(t *testing.T, r *Runtime) []string {
	t.Helper()
	left := h.leftovers(t, r)
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = h.leftovers(t, r) {
		time.Sleep(10 * time.Millisecond)
	}
	return slices.Clip(left)
}
