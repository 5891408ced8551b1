package containerd

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// TestSpecCgroup: only a cgroup of the container's own is ever taken from a spec.
func TestSpecCgroup(t *testing.T) {
	for spec, want := range map[string]string{
		`{"ociVersion":"1.0.2","linux":{"cgroupsPath":"/berth/a"}}`: "/berth/a",
		`{"linux":{"cgroupsPath":"/other/deeper/a"}}`:               "/other/deeper/a",
		`{"linux":{"cgroupsPath":"/"}}`:                             "",
		`{"linux":{"cgroupsPath":"/berth"}}`:                        "",
		`{"linux":{"cgroupsPath":"berth/a"}}`:                       "",
		`{"linux":{"cgroupsPath":"/berth/../a"}}`:                   "",
		`{"linux":{"cgroupsPath":"system.slice:berth:a"}}`:          "",
		`{}`: "", ``: "",
	} {
		if got := specCgroup([]byte(spec), "a"); got != want {
			t.Errorf("%s: cgroup is %q, want %q", spec, got, want)
		}
	}
}

// TestOtherCgroupParent: the setting changed while containers ran.
func TestOtherCgroupParent(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	f.start(shell("moved", "sleep 600"))
	oom := runtime.Spec{ID: "oom", Image: demo, Args: []string{"/bin/workload", "allocate", "200"}}
	oom.Limits.MemoryMiB = 32
	f.start(oom)
	want := f.newCgroup("moved")

	later := shared.openBelow(t, "/other"+shared.parent)
	if exit, err := later.Wait(t.Context(), "oom"); err != nil || !exit.OOM {
		t.Errorf("Wait gives %+v, %v; want out of memory", exit, err)
	}
	if c, err := later.Inspect(t.Context(), "moved"); err != nil || c.CgroupPath != want {
		t.Errorf("Inspect gives %+v, %v; want cgroup %s", c, err, want)
	}
	list, err := shared.openBelow(t, "/other"+shared.parent).List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("List gives %+v, %v", list, err)
	}
	for _, c := range list {
		if c.CgroupPath != f.newCgroup(c.ID) || c.ID == "oom" && !c.Exit.OOM {
			t.Errorf("List gives %+v", c)
		}
	}
	if err := later.Delete(t.Context(), "moved"); !errors.Is(err, runtime.ErrInUse) {
		t.Errorf("Delete of a running container: %v", err)
	}
	unacquainted := shared.openBelow(t, "/other"+shared.parent)
	if err := unacquainted.Kill(t.Context(), "moved"); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if left := f.cgroups.processes(want); len(left) > 0 {
		t.Errorf("after Kill, %v live", left)
	}
	if err := later.Delete(t.Context(), "moved"); err != nil {
		t.Error(err)
	}
	if left := f.cgroups.dirs(want); len(left) > 0 {
		t.Errorf("after Delete there is %v", left)
	}
}

// TestKillWithoutContainerd: it hangs, which is worse than being down.
func TestKillWithoutContainerd(t *testing.T) {
	f := newFixture(t, ociarchive.Options{})
	for _, id := range []string{"made", "seen", "unseen"} {
		f.start(shell(id, "sleep 600"))
	}
	elsewhere, here := shared.openBelow(t, "/other"+shared.parent), shared.open(t)
	if _, err := elsewhere.Inspect(t.Context(), "seen"); err != nil {
		t.Fatal(err)
	}
	pid := ownPid(shared.spawnConfig().Dir)
	if pid == 0 { // a signal to 0 would go to this test and all beside it
		t.Fatal("there is no containerd")
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGCONT)
		runtimetest.Eventually(t, "it answers again", func() bool { return answers(context.Background(), shared.address) })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := elsewhere.Kill(ctx, "unseen"); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Kill of what can't be found: %v", err)
	}
	if len(f.cgroups.processes(f.newCgroup("unseen"))) == 0 {
		t.Error("it is dead, or elsewhere")
	}
	for id, r := range map[string]*Runtime{"made": f.Runtime, "seen": elsewhere, "unseen": here} {
		if err := r.Kill(ctx, id); err != nil {
			t.Errorf("Kill of the one that was %s: %v", id, err)
		}
		if left := f.cgroups.processes(f.newCgroup(id)); len(left) > 0 {
			t.Errorf("the one that was %s lives: %v", id, left)
		}
	}
}
