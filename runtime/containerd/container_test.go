package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

func TestImageUser(t *testing.T) {
	r := shared.open(t)
	for declared, want := range map[string]runtime.User{
		"": {}, "berth": {UID: 1000, GID: 1000}, "1000": {UID: 1000, GID: 1000}, "4321": {UID: 4321},
		"4321:44": {UID: 4321, GID: 44}, "berth:video": {UID: 1000, GID: 44}, "root": {},
	} {
		if _, err := r.Import(t.Context(), bytes.NewReader(demoArchive(t, ociarchive.Options{User: declared})), "user:1"); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ImageUser(t.Context(), "user:1"); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", declared, got, err, want)
		}
	}
	if _, err := r.Import(t.Context(), bytes.NewReader(demoArchive(t, ociarchive.Options{User: "nobody-here"})), "user:1"); err == nil {
		_, err := r.ImageUser(t.Context(), "user:1")
		if !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "nobody-here") {
			t.Errorf("an unknown user: %v", err)
		}
	}
	if err := r.RemoveImage(t.Context(), "user:1"); err != nil {
		t.Error(err)
	}
	if _, err := r.ImageUser(t.Context(), "user:1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an absent image: %v", err)
	}
}

// TestVolumeMount: a directory of the image's user can be written by it, below
// its home, and brings neither set-uid programs nor devices.
func TestVolumeMount(t *testing.T) {
	f := newFixture(t, ociarchive.Options{User: "berth", Env: []string{"HOME=/home/berth"}})
	user, err := f.ImageUser(t.Context(), demo)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/home/berth", "/home/berth/work", "/tmp/deep/er"} {
		volume := t.TempDir()
		if err := os.Chown(volume, int(user.UID), int(user.GID)); err != nil {
			t.Fatal(err)
		}
		spec := shell("volume", `cd "$TARGET" && echo mine >file && id -u && grep " $TARGET " /proc/self/mountinfo; echo "$HOME"`)
		spec.Env = []string{"TARGET=" + target}
		spec.Mounts = []runtime.Mount{{Source: volume, Target: target}}
		output := f.output(spec)
		for _, want := range []string{"1000\n", " rw,nosuid,nodev", "/home/berth\n"} {
			if !strings.Contains(output, want) {
				t.Errorf("on %s: the container wrote %q, want %q in it", target, output, want)
			}
		}
		info, err := os.Stat(filepath.Join(volume, "file"))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != user.UID {
			t.Errorf("on %s: the file is %+v, %v", target, info, err)
		}
	}
}

func TestNetNS(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	name := filepath.Base(shared.parent)
	if output, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, output)
	}
	t.Cleanup(func() {
		if output, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v: %s", err, output)
		}
	})
	spec := shell("netns", "sleep 600")
	spec.NetNS = "/run/netns/" + name
	process := f.start(spec)
	var want, got unix.Stat_t
	if err := errors.Join(unix.Stat(spec.NetNS, &want), unix.Stat(fmt.Sprintf("/proc/%d/ns/net", process.Pid), &got)); err != nil || want.Ino != got.Ino {
		t.Errorf("the container is in namespace %d, %v; want %d", got.Ino, err, want.Ino)
	}
	var out bytes.Buffer
	code, err := f.Exec(t.Context(), "netns", words("sh", "-c", "ls /sys/class/net"), runtime.ExecStreams{Stdout: &out})
	if err != nil || code != 0 || out.String() != "lo\n" {
		t.Errorf("it sees %q, code %d, %v; want its loopback", out.String(), code, err)
	}
	spec.ID, spec.NetNS = "nonetns", "/run/netns/no-such-namespace"
	if _, err := f.Create(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "no-such-namespace") {
		t.Errorf("Create with an absent namespace: %v", err)
	}
}

// TestOutOfMemoryChild: PID 1 goes on, and the kill can be seen then and at the
// end.
func TestOutOfMemoryChild(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := shell("child", "workload allocate 200; echo went on; while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 0")
	spec.Limits.MemoryMiB = 32
	process := f.start(spec)
	runtimetest.Eventually(t, "the kill of a child is seen", func() bool {
		count, err := f.OOMs(t.Context(), "child")
		return err == nil && count == 1
	})
	if c, err := f.Inspect(t.Context(), "child"); err != nil || c.State != runtime.StateRunning {
		t.Errorf("it is %s, %v", c.State, err)
	}
	if err := os.WriteFile(inside(process.Pid, "/tmp/end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit, err := f.Wait(t.Context(), "child"); err != nil || !exit.OOM || exit.Code != 0 {
		t.Errorf("exit is %+v, %v; want code 0, and out of memory", exit, err)
	}
	if _, err := f.OOMs(t.Context(), "nobody"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("OOMs of no container: %v", err)
	}
}

// TestOutOfMemoryPid1: what fills the memory is in no process, so the kernel takes
// the one that it is told to take first.
func TestOutOfMemoryPid1(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	spec := shell("pid1", "while [ ! -e /tmp/go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/shm/x bs=64k; sleep 600")
	spec.Limits.MemoryMiB, spec.Limits.ShmMiB = 32, 64
	process := f.start(spec)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", process.Pid), []byte("1000"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inside(process.Pid, "/tmp/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit, err := f.Wait(t.Context(), "pid1"); err != nil || !exit.OOM || exit.Code != 137 {
		t.Errorf("exit is %+v, %v; want code 137, out of memory", exit, err)
	}
}

// TestDriverLibraries: where a device brings the driver's libraries they are
// found first, by the container's process and by others.
func TestDriverLibraries(t *testing.T) {
	f := newFixture(t, ociarchive.Options{Env: []string{"LD_LIBRARY_PATH=/opt/lib"}})
	library := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(library, []byte("driver"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := runtime.DriverLibDir + "/libcuda.so.1"
	device := runtime.Device{Name: "GPU-d", Mounts: []runtime.Mount{{Source: library, Target: inside, ReadOnly: true}}}
	if err := f.SetDevices(t.Context(), []runtime.Device{device}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.SetDevices(t.Context(), nil) }()
	spec := shell("driver", "sleep 600")
	spec.Devices = []string{"GPU-d"}
	process := f.start(spec)
	var out bytes.Buffer
	code, err := f.Exec(t.Context(), "driver", words("sh", "-c", "tr '\\0' '\\n' </proc/1/environ | grep ^LD_; env | grep ^LD_; cat "+inside), runtime.ExecStreams{Stdout: &out})
	want := "LD_LIBRARY_PATH=/.berth/driver:/opt/lib\n"
	if err != nil || code != 0 || out.String() != want+want+"driver" || process.Pid == 0 {
		t.Errorf("code %d, %v, it wrote %q", code, err, out.String())
	}
}
