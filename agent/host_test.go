package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/gpu/gputest"
	"berth/runtime"
	"berth/workspace"
)

// leave puts a running container on the host, as some agent made it.
func (h *host) leave(t *testing.T, id, cluster string, epoch gpu.Epoch, devices ...string) {
	t.Helper()
	a := &workspace.Assignment{Run: id, Epoch: epoch}
	var known []runtime.Device
	for _, d := range devices {
		a.Devices = append(a.Devices, workspace.Allotment{UUID: d, Milli: 1000})
		known = append(known, runtime.Device{Name: d})
	}
	if err := h.SetDevices(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Create(t.Context(), specOf(cluster, testImage, "", a, &prepared{})); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestContainersNobodyKnowsAreLeftRunning(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.at = gpu.Epoch{Incarnation: 2, Index: 50}
		h.leave(t, "unknown", "cluster-1", gpu.Epoch{Incarnation: 2, Index: 5}, uuid(0))
		h.leave(t, "foreign", "cluster-2", gpu.Epoch{Incarnation: 2, Index: 5})
		h.leave(t, "earlier", "cluster-1", gpu.Epoch{Incarnation: 1, Index: 900})
		d := h.startDaemon("")
		pass(time.Hour)
		want := []workspace.Orphan{
			{Container: "earlier", Cluster: "cluster-1", Epoch: gpu.Epoch{Incarnation: 1, Index: 900}, Devices: []string{}, Reason: "earlier_incarnation"},
			{Container: "foreign", Cluster: "cluster-2", Epoch: gpu.Epoch{Incarnation: 2, Index: 5}, Devices: []string{}, Reason: "other_cluster"},
			{Container: "unknown", Cluster: "cluster-1", Epoch: gpu.Epoch{Incarnation: 2, Index: 5}, Devices: []string{uuid(0)}, Reason: "unknown_run"},
		}
		if diff := cmp.Diff(want, c.node().orphans); diff != "" {
			t.Error(diff)
		}
		for id, state := range h.containers() {
			if state != runtime.StateRunning {
				t.Errorf("%s is %s", id, state)
			}
		}

		// Its device isn't given to another run, until an operator ends it.
		c.place("run-1", nil, uuid(0))
		pass(time.Minute)
		if r := c.now("run-1"); r.Phase != workspace.PhasePulling || r.reason != "device_busy" || !strings.Contains(r.message, "unknown") {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		h.Exit("unknown", 0)
		if err := h.Delete(t.Context(), "unknown"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := c.phases("run-1"); got != "pulling, starting, running" {
			t.Errorf("phases: %s", got)
		}
		if len(c.node().orphans) != 2 {
			t.Errorf("orphans: %v", c.node().orphans)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestAnOrphanIsReapedOnAVerifiedViewOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.start(t, command("ignore-term")).stop(t)
		c.lose("run-1", false)
		c.edit("run-1", func(r *clusterRun) { r.held = map[string]bool{} }) // fenced: not assigned any more
		c.set(func() { c.lag = true })
		d := h.startDaemon("")
		pass(time.Minute)
		if h.containers()["run-1"] != runtime.StateRunning || len(c.node().orphans) != 0 {
			t.Error("ended on a view older than its label")
		}
		c.set(func() { c.lag, c.deaf = false, true })
		pass(time.Minute)
		if h.containers()["run-1"] != runtime.StateRunning {
			t.Error("ended without a leader")
		}
		c.set(func() { c.deaf = false; c.runs["run-1"].held[uuid(0)] = true })
		pass(30 * time.Second)
		if left := h.containers(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if got := c.phases("run-1"); got != "pulling, starting, running, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		if d.Stats().Reaped != 1 || d.Stats().Runs != 0 {
			t.Errorf("stats: %+v", d.Stats())
		}
		d.stop(t)
		c.check(t)
	})
}

// A run that the cluster has ended is killed at once, and its devices given
// back.
func TestALostRunIsKilledWhenItsNodeReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, command("ignore-term"))
		h.cluster.lose("run-1", false)
		settle()
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// A server that lags behind what this node has acted on is not believed, by
// the next agent neither.
func TestAnOldViewIsPassedOver(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.start(t, nil).stop(t)
		run, at := c.runs["run-1"], c.at
		c.set(func() { delete(c.runs, "run-1"); c.at = epochAt(1) })
		d := h.startDaemon("")
		pass(time.Minute)
		if len(c.node().orphans) != 0 || d.Stats().GoAheads != 0 {
			t.Errorf("an old view was acted on: %+v", d.Stats())
		}
		c.entry(func() { c.runs["run-1"] = run; c.at = at })
		pass(time.Minute)
		if d.Stats().Adoptions != 1 {
			t.Errorf("not adopted: %+v", d.Stats())
		}
		d.stop(t)
		c.check(t)
	})
}

func TestAnOlderPlacementNeverGetsTheDevice(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		c.stop("run-1", "user_stop")
		pass(time.Second)
		old := epochAt(c.now("run-1").Epoch.Index - 1)
		d.stop(t)
		d = h.startDaemon("") // what it must know is on disk
		settle()
		c.place("run-0", func(a *workspace.Assignment) { a.Epoch = old }, uuid(0))
		pass(time.Minute)
		if r := c.now("run-0"); r.Phase != workspace.PhaseFailed || r.reason != "stale_epoch" || len(h.created()) != 1 {
			t.Errorf("%s (%s), %d containers made", r.Phase, r.reason, len(h.created()))
		}
		d.stop(t)
		c.check(t)
	})
}

// A view that comes late, after a newer one, changes nothing.
func TestViewsOutOfOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.startDaemon("")
		d.stop(t)
		view := func(index uint64, snapshot bool) workspace.AssignmentView {
			return workspace.AssignmentView{Cluster: "cluster-1", At: epochAt(index), Snapshot: snapshot}
		}
		fresh, err := New(d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			view workspace.AssignmentView
			want bool
		}{
			{view(20, false), false}, // changes to nothing known
			{view(20, true), true},
			{view(19, true), false},
			{view(20, false), true},
			{view(21, false), true},
		} {
			if got := fresh.accept(step.view); got != step.want {
				t.Errorf("view at %d (snapshot: %v) accepted: %v", step.view.At.Index, step.view.Snapshot, got)
			}
		}
	})
}

// No device is given out before all containers found here have been looked at.
func TestDevicesOfWhatIsFoundAreHeldFromTheFirstMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.leave(t, "unknown", "cluster-1", epochAt(5), uuid(0))
		h.cluster.place("run-1", nil, uuid(0))
		release := h.Block("Inspect")
		d := h.startDaemon("")
		pass(time.Second)
		if r := h.cluster.now("run-1"); r.reason != "device_busy" || len(h.created()) != 0 {
			t.Errorf("%s (%s), %d containers made", r.Phase, r.reason, len(h.created()))
		}
		release()
		d.stop(t)
		h.cluster.check(t)
	})
}

// A container that was in quarantine and is assigned after all is taken on.
func TestAQuarantinedContainerCanBeAssigned(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.start(t, nil).stop(t)
		run := c.runs["run-1"]
		c.entry(func() { delete(c.runs, "run-1") })
		d := h.startDaemon("")
		pass(time.Minute)
		if len(c.node().orphans) != 1 {
			t.Errorf("orphans: %v", c.node().orphans)
		}
		c.entry(func() { run.modified = c.at.Index; c.runs["run-1"] = run })
		settle()
		if len(c.node().orphans) != 0 || d.Stats().Adoptions != 1 {
			t.Errorf("orphans: %v, stats: %+v", c.node().orphans, d.Stats())
		}
		d.stop(t)
		c.check(t)
	})
}

func TestPick(t *testing.T) {
	images := []runtime.Image{{Reference: "a", Digest: "1"}, {Reference: "b", Digest: "2"}, {Reference: "c", Digest: "2"}}
	for _, test := range []struct{ reference, digest, want string }{
		{"a", "1", "a"}, {"b", "2", "b"}, {"c", "2", "c"}, {"a", "", "a"},
		{"a", "2", "c"}, // the name was moved on; the pinned image has other names
		{"a", "3", ""}, {"d", "", ""},
	} {
		if got, ok := pick(images, test.reference, test.digest); got != test.want || ok != (test.want != "") {
			t.Errorf("pick(%q, %q) = %q, %v", test.reference, test.digest, got, ok)
		}
	}
}

// While the cluster is away, reports of a run in one phase don't pile up.
func TestMergeKeepsTheLatestOfAPhase(t *testing.T) {
	run := func(id string, phase workspace.Phase, reason string) workspace.Report {
		return workspace.Report{Runs: []workspace.RunReport{{Run: id, Phase: phase, Reason: reason}}}
	}
	var got workspace.Report
	for _, part := range []workspace.Report{
		run("a", "pulling", "1"), run("b", "pulling", "2"), run("a", "pulling", "3"), run("a", "starting", "4"), run("b", "starting", "5"),
	} {
		got = merge(got, part)
	}
	want := workspace.Report{Runs: []workspace.RunReport{
		{Run: "a", Phase: "pulling", Reason: "3"}, {Run: "b", Phase: "pulling", Reason: "2"},
		{Run: "a", Phase: "starting", Reason: "4"}, {Run: "b", Phase: "starting", Reason: "5"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLedgerCountsShares(t *testing.T) {
	l, err := openLedger(filepath.Join(t.TempDir(), "agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	share := func(run string, index uint64, milli int) *workspace.Assignment {
		return &workspace.Assignment{Run: run, Epoch: epochAt(index), Devices: []workspace.Allotment{{UUID: "GPU-1", Milli: milli}}}
	}
	var busy *busyError
	var stale *staleError
	for _, step := range []struct {
		a       *workspace.Assignment
		refused any
	}{
		{share("a", 30, 300), nil},
		{share("b", 20, 700), nil}, // older, but a share beside a share
		{share("b", 20, 700), nil}, // again: the same
		{share("c", 40, 1), &busy},
		{share("whole-old", 25, 1000), &stale},
		{share("whole", 40, 1000), &busy},
	} {
		err := l.claim(step.a)
		if step.refused == nil && err != nil || step.refused != nil && !errors.As(err, step.refused) {
			t.Errorf("%s: %v", step.a.Run, err)
		}
	}
	l.free("a")
	l.free("b")
	if err := l.claim(share("whole", 40, 1000)); err != nil {
		t.Error(err)
	}
	l.free("whole")
	if err := l.claim(share("late share", 39, 100)); !errors.As(err, &stale) {
		t.Errorf("a share from before a whole run: %v", err)
	}
}

func TestADamagedFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.json")
	if err := os.WriteFile(path, []byte(`{"cluster": "c`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error: %v", err)
	}
}

// An agent that can't keep what it must ends: going on could give a device out
// twice.
func TestAFailingDiskEndsTheAgent(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.startDaemon("")
		settle()
		if err := os.Mkdir(filepath.Join(h.dir, "agent.json.new"), 0o700); err != nil {
			t.Fatal(err)
		}
		h.cluster.place("run-1", nil, uuid(0))
		if err := <-d.done; err == nil || !strings.Contains(err.Error(), "agent.json") {
			t.Errorf("Run: %v", err)
		}
		if len(h.created()) != 0 {
			t.Error("a container was made")
		}
	})
}

func TestTheNodeReportsItself(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.startDaemon("")
		settle()
		want := &workspace.NodeFacts{Name: "alpha", BootID: "boot-1", Runtime: "fake 1", GPUSource: "nvml", DriverVersion: "550.54.15", CUDAVersion: "12.4",
			PublishAddress: "127.0.0.1"}
		if diff := cmp.Diff(want, c.node().facts); diff != "" {
			t.Error(diff)
		}
		if len(c.node().devices.Devices) != 2 || !c.node().ready.Ready || len(c.node().images) != 1 {
			t.Errorf("devices %v, ready %v, images %v", c.node().devices, c.node().ready, c.node().images)
		}
		reports := d.Stats().Reports
		pass(time.Hour)
		if n := d.Stats().Reports - reports; n > 0 {
			t.Errorf("%d reports of nothing new", n)
		}
		more, _ := gputest.New(model, 3).Inventory(t.Context())
		h.gpus.Set(more)
		h.AddImage("second")
		pass(hardwareEvery)
		pass(defaultReconcile)
		if len(c.node().devices.Devices) != 3 || len(c.node().images) != 2 {
			t.Errorf("after a change: devices %v, images %v", c.node().devices, c.node().images)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestARuntimeThatGoesAndComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		times(5, func() { h.FailNext("Info", runtime.ErrUnavailable) })
		d := h.startDaemon("")
		settle()
		if c.node().ready == nil || c.node().ready.Ready || c.node().ready.Reason != "runtime_unavailable" {
			t.Errorf("readiness without a runtime: %+v", c.node().ready)
		}
		c.place("run-1", nil, uuid(0))
		pass(time.Minute)
		if got := c.phases("run-1"); !c.node().ready.Ready || got != "pulling, starting, running" {
			t.Errorf("ready %+v; phases: %s", c.node().ready, got)
		}
		times(6, func() { h.FailNext("Info", runtime.ErrUnavailable) })
		times(2, func() { h.FailNext("Create", runtime.ErrUnavailable) })
		c.place("run-2", nil, uuid(1))
		settle()
		if r := c.now("run-2"); c.node().ready.Ready || r.reason != "runtime_unavailable" {
			t.Errorf("ready %+v; run-2 %s (%s)", c.node().ready, r.Phase, r.reason)
		}
		pass(time.Minute)
		if got := c.phases("run-2"); !c.node().ready.Ready || got != "pulling, starting, running" {
			t.Errorf("ready %+v; phases: %s", c.node().ready, got)
		}
		d.stop(t)
		c.check(t)
	})
}

// With unreadable GPUs the node takes no new work, but what runs is looked
// after, and what needs a GPU waits.
func TestGPUsThatCannotBeRead(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.start(t, nil).stop(t)
		inventory, _ := h.gpus.Inventory(t.Context())
		h.gpus.Fail(errors.New("driver_unresponsive"))
		d := h.startDaemon("")
		c.place("run-2", nil, uuid(1))
		c.stop("run-1", "user_stop")
		pass(time.Minute)
		// Nobody can say that its device is free: it stays held until the driver can.
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopped || !r.held[uuid(0)] || !r.stuck[uuid(0)] {
			t.Errorf("run-1 is %s, held %v, stuck %v", r.Phase, r.held, r.stuck)
		}
		if r := c.now("run-2"); c.node().ready.Reason != "gpu_unavailable" || r.reason != "gpu_unavailable" {
			t.Errorf("ready %+v; run-2 %s (%s)", c.node().ready, r.Phase, r.reason)
		}
		h.gpus.Set(inventory)
		pass(time.Minute)
		if r := c.now("run-2"); !c.node().ready.Ready || r.Phase != workspace.PhaseRunning {
			t.Errorf("ready %+v; run-2 %s (%s)", c.node().ready, r.Phase, r.reason)
		}
		if r := c.now("run-1"); r.listed() {
			t.Errorf("run-1 has %v", r.held)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestImages(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		h.AddImage("unused")
		if err := d.RemoveImage(t.Context(), "unused"); err != nil {
			t.Error(err)
		}
		if len(c.node().images) != 1 {
			t.Errorf("images the cluster knows of: %v", c.node().images)
		}
		h.FailNext("RemoveImage", runtime.ErrUnavailable)
		for _, test := range []struct {
			reference string
			code      workspace.Code
			says      string
		}{
			{"unused", workspace.CodeUnavailable, "alpha"},
			{"unused", workspace.CodeNotFound, "berth image ls"},
			{testImage, workspace.CodeConflict, "run run-1"},
		} {
			err := d.RemoveImage(t.Context(), test.reference)
			if workspace.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("remove %s: %v", test.reference, err)
			}
		}
		for _, test := range []struct {
			fails error
			code  workspace.Code
		}{
			{nil, workspace.CodeInvalid}, // an empty archive
			{runtime.ErrUnavailable, workspace.CodeUnavailable},
			{errors.New("disk full"), workspace.CodeInternal},
		} {
			if test.fails != nil {
				h.FailNext("Import", test.fails)
			}
			if _, err := d.ImportImage(t.Context(), strings.NewReader(""), ""); workspace.CodeOf(err) != test.code {
				t.Errorf("import: %v, want code %s", err, test.code)
			}
		}
		stored, err := d.ImportImage(t.Context(), archive(t, "imported"), "")
		if err != nil || len(stored) != 1 || len(c.node().images) != 2 || c.node().images[1] != stored[0] {
			t.Errorf("import gave %v, %v; the cluster knows of %v", stored, err, c.node().images)
		}
		c.set(func() { c.deaf = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.RemoveImage(ctx, "imported"); workspace.CodeOf(err) != workspace.CodeUnavailable {
			t.Errorf("while the cluster is away: %v", err)
		}
		d.stop(t)
		c.check(t)
	})
}

// archive is a whole OCI image layout with one image that holds nothing.
func archive(t *testing.T, name string) io.Reader {
	t.Helper()
	digest := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
	config := "{}"
	manifest := fmt.Sprintf(`{"config": {"digest": "sha256:%s"}}`, digest(config))
	files := map[string]string{
		"oci-layout":                       `{"imageLayoutVersion": "1.0.0"}`,
		"blobs/sha256/" + digest(config):   config,
		"blobs/sha256/" + digest(manifest): manifest,
		"index.json": fmt.Sprintf(`{"manifests": [{"digest": "sha256:%s", "annotations": {"org.opencontainers.image.ref.name": %q}}]}`,
			digest(manifest), name),
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}
