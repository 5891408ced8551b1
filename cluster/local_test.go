package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

func assignments(t *testing.T, l *Local, after gpu.Epoch) workspace.AssignmentView {
	t.Helper()
	view, err := l.Assignments(context.Background(), after)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func (r *running) report(run string, phase workspace.Phase, released ...workspace.Release) {
	r.t.Helper()
	err := r.Local(testNode).Report(context.Background(), workspace.Report{
		Node: testNode, Stamp: workspace.Stamp{BootID: "boot-1", BoottimeMS: 2},
		Runs:     []workspace.RunReport{{Run: run, Epoch: r.View().Run(run).Epoch, Phase: phase, Reason: "test", Message: "test"}},
		Released: released,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAssignments(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	l := c.Local(testNode)
	first := make(chan workspace.AssignmentView, 1)
	go func() {
		view, err := l.Assignments(context.Background(), gpu.Epoch{}) // waits for the cluster's first entry
		if err != nil {
			t.Error(err)
		}
		first <- view
	}()
	c.withNode(2)
	view := <-first
	if !view.Snapshot || len(view.Upsert) != 0 || view.Cluster != "cluster-1" || view.At.Incarnation != 1 {
		t.Fatalf("the first view: %+v", view)
	}

	sealed, err := c.Seal(workspace.NewSecret("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	c.propose(createInstance("inst-0", map[string]workspace.Sealed{"token": sealed}), admin)
	view = assignments(t, l, view.At)
	if view.Snapshot || len(view.Upsert) != 1 || len(view.Removed) != 0 {
		t.Fatalf("after a start: %+v", view)
	}
	a := view.Upsert[0]
	if a.Run != "run-inst-0" || a.Name != "inst-0" || a.Desired != workspace.RunWanted || a.Phase != workspace.PhaseAssigned ||
		a.Spec.ImageDigest != "sha256:0" || len(a.Devices) != 1 || a.Epoch.Index == 0 || a.Secrets["token"].Reveal() != "s3cret" {
		t.Errorf("the assignment: %+v", a)
	}

	c.propose(createInstance("inst-1", nil), admin)
	view = assignments(t, l, view.At)
	if len(view.Upsert) != 1 || view.Upsert[0].Run != "run-inst-1" {
		t.Errorf("a change names more than what changed: %+v", view)
	}
	c.report("run-inst-0", workspace.PhaseRunning)
	c.propose(&state.StopInstance{ID: "inst-0"}, admin)
	view = assignments(t, l, view.At)
	if len(view.Upsert) != 1 || view.Upsert[0].Desired != workspace.RunStopping || view.Upsert[0].StopReason == "" {
		t.Errorf("after a stop: %+v", view)
	}
	c.report("run-inst-0", workspace.PhaseStopped)
	view = assignments(t, l, view.At)
	if len(view.Upsert) != 1 || !view.Upsert[0].Unreleased {
		t.Errorf("an ended run whose device is held: %+v", view)
	}
	c.report("run-inst-0", workspace.PhaseStopped,
		workspace.Release{Device: "GPU-0", Run: "run-inst-0", Epoch: a.Epoch})
	view = assignments(t, l, view.At)
	if len(view.Upsert) != 0 || !slices.Equal(view.Removed, []string{"run-inst-0"}) {
		t.Errorf("after the release: %+v", view)
	}

	for name, after := range map[string]gpu.Epoch{
		"zero": {}, "another incarnation": {Incarnation: 7, Index: view.At.Index}, "ahead": {Incarnation: 1, Index: 1 << 40},
		"a view handed out before": {Incarnation: 1, Index: 3},
	} {
		if again := assignments(t, l, after); !again.Snapshot || len(again.Upsert) != 1 {
			t.Errorf("epoch %s: %+v", name, again)
		}
	}
	if again := assignments(t, c.Local(testNode), view.At); !again.Snapshot {
		t.Errorf("a port that has handed out nothing gave a change: %+v", again)
	}
	if other := assignments(t, c.Local("node-2"), gpu.Epoch{}); len(other.Upsert) != 0 {
		t.Errorf("another node sees %+v", other)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Assignments(ctx, assignments(t, l, gpu.Epoch{}).At); !errors.Is(err, context.Canceled) {
		t.Errorf("with nothing new: %v", err)
	}
}

// A run's volume, and the login to its image's registry, come with it; what is to
// be deleted comes once nothing uses it, also when no run has changed.
func TestAssignmentsOfVolumesAndLogins(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.withNode(2)
	l := c.Local(testNode)
	password, err := c.Seal(workspace.NewSecret("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	c.propose(&state.SetRegistry{Host: "ghcr.io", Username: "bot", Password: password}, admin)
	inst := createInstance("inst-0", nil)
	inst.Spec.Image, inst.Spec.VolumePath, inst.Resources.StorageMiB = "ghcr.io/lab/demo:1", "/home", 100
	c.propose(inst, admin)
	c.propose(createInstance("inst-1", nil), admin)

	view := assignments(t, l, gpu.Epoch{})
	if len(view.Upsert) != 2 || len(view.Purge) != 0 {
		t.Fatalf("the first view: %+v", view)
	}
	a, other := view.Upsert[0], view.Upsert[1]
	if a.Volume == nil || *a.Volume != (workspace.VolumeClaim{ID: "run-inst-0", SizeMiB: 100}) {
		t.Errorf("the volume of the first: %+v", a.Volume)
	}
	if a.Login == nil || a.Login.Host != "ghcr.io" || a.Login.Username != "bot" || a.Login.Password.Reveal() != "s3cret" {
		t.Errorf("the login of the first: %+v", a.Login)
	}
	if other.Volume != nil || other.Login != nil {
		t.Errorf("the other, of another registry and without a volume: %+v", other)
	}

	c.reportVolume(workspace.VolumeReport{ID: "run-inst-0", Made: true})
	c.report("run-inst-0", workspace.PhaseRunning)
	view = assignments(t, l, gpu.Epoch{})
	if a := view.Upsert[0]; a.Volume == nil || !a.Volume.Made || a.Login != nil {
		t.Errorf("once it runs: %+v", a)
	}

	c.propose(&state.DeleteInstance{ID: "inst-0"}, admin)
	c.report("run-inst-0", workspace.PhaseStopped, workspace.Release{Device: "GPU-0", Run: "run-inst-0", Epoch: a.Epoch})
	view = assignments(t, l, gpu.Epoch{})
	c.propose(&state.RemoveVolume{ID: "run-inst-0"}, admin)
	for _, after := range []gpu.Epoch{view.At, {}} {
		if view = assignments(t, l, after); !slices.Equal(view.Purge, []string{"run-inst-0"}) {
			t.Errorf("after its removal, from %+v: %+v", after, view)
		}
	}
	c.reportVolume(workspace.VolumeReport{ID: "run-inst-0", Gone: true})
	if view = assignments(t, l, view.At); len(view.Purge) != 0 || c.View().Volume("run-inst-0") != nil {
		t.Errorf("once it is gone: %+v", view)
	}
}

func (r *running) reportVolume(v workspace.VolumeReport) {
	r.t.Helper()
	if err := r.Local(testNode).Report(context.Background(), workspace.Report{
		Node: testNode, Stamp: workspace.Stamp{BootID: "boot-1", BoottimeMS: 2}, Volumes: []workspace.VolumeReport{v},
	}); err != nil {
		r.t.Fatal(err)
	}
}

// A run whose secrets can't be opened ends with a reason its owner can read; one
// that runs already isn't touched.
func TestUnreadableSecret(t *testing.T) {
	dir := t.TempDir()
	a := start(t, Config{Dir: dir})
	a.withNode(3)
	sealed, err := a.Seal(workspace.NewSecret("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]workspace.Sealed{"token": sealed}
	a.propose(createInstance("inst-0", secrets), admin)
	a.report("run-inst-0", workspace.PhaseRunning)
	a.propose(createInstance("inst-1", secrets), admin)
	a.propose(&state.SetRegistry{Host: "ghcr.io", Username: "bot", Password: sealed}, admin)
	private := createInstance("inst-2", nil)
	private.Spec.Image = "ghcr.io/lab/demo:1"
	a.propose(private, admin)
	a.stop()
	if err := os.Remove(filepath.Join(dir, "secret.key")); err != nil {
		t.Fatal(err)
	}

	b := start(t, Config{Dir: dir})
	waitReady(t, b.Cluster)
	l := b.Local(testNode)
	view := assignments(t, l, gpu.Epoch{})
	if len(view.Upsert) != 1 || view.Upsert[0].Run != "run-inst-0" {
		t.Errorf("handed out: %+v", view.Upsert)
	}
	run := b.View().Run("run-inst-1")
	if run.Phase != workspace.PhaseFailed || run.Reason != "secret_unreadable" ||
		!strings.Contains(run.Message, "secret.key") || !strings.Contains(run.Message, sealed.KeyID) {
		t.Errorf("the run that can't start: %+v", run)
	}
	if run := b.View().Run("run-inst-2"); run.Phase != workspace.PhaseFailed || !strings.Contains(run.Message, "registry ghcr.io") {
		t.Errorf("the run whose registry's login can't be opened: %+v", run)
	}
	if view = assignments(t, l, view.At); len(view.Upsert) != 2 || !view.Upsert[0].Unreleased {
		t.Errorf("its device isn't asked back: %+v", view)
	}
}

func TestGoAhead(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.withNode(4)
	ask := func(node, run string) workspace.GoAheadAnswer {
		t.Helper()
		answer, err := c.Local(node).GoAhead(context.Background(), run, workspace.Stamp{BootID: "boot-1", BoottimeMS: 3})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Cluster != "cluster-1" || answer.At != c.View().Epoch() {
			t.Errorf("the answer doesn't say on what it stands: %+v", answer)
		}
		if !answer.Start && answer.Reason == "" {
			t.Errorf("a refusal without a reason: %+v", answer)
		}
		return answer
	}
	for _, id := range []string{"inst-0", "inst-1", "inst-2"} {
		c.propose(createInstance(id, nil), admin)
	}
	if a := ask(testNode, "run-inst-0"); !a.Start || !a.Known || a.Ended {
		t.Errorf("a wanted run: %+v", a)
	}
	c.report("run-inst-0", workspace.PhaseStarting)
	if a := ask(testNode, "run-inst-0"); !a.Start {
		t.Errorf("a run that is starting: %+v", a)
	}
	if a := ask("node-2", "run-inst-0"); a.Start || !a.Known || a.Ended {
		t.Errorf("a run of another node: %+v", a)
	}
	c.report("run-inst-0", workspace.PhaseRunning)
	if a := ask(testNode, "run-inst-0"); a.Start || a.Ended {
		t.Errorf("a run that was started: %+v", a)
	}
	if a := ask(testNode, "run-nobody"); a.Start || a.Known || a.Ended {
		t.Errorf("an unknown run: %+v", a)
	}
	c.propose(&state.StopInstance{ID: "inst-1"}, admin)
	if a := ask(testNode, "run-inst-1"); a.Start || !a.Known || a.Ended {
		t.Errorf("a run that is to stop: %+v", a)
	}
	c.report("run-inst-2", workspace.PhaseFailed)
	if a := ask(testNode, "run-inst-2"); a.Start || !a.Known || !a.Ended {
		t.Errorf("a run that has ended: %+v", a)
	}
	c.propose(createInstance("inst-3", nil), admin)
	if a, err := c.Local(testNode).GoAhead(context.Background(), "run-inst-3", workspace.Stamp{BootID: "boot-2"}); err != nil || a.Start ||
		!strings.Contains(a.Reason, "boot") {
		t.Errorf("in a boot that isn't recorded: %+v, %v", a, err)
	}
	c.stop()
	_, err := c.Local(testNode).GoAhead(context.Background(), "run-inst-0", workspace.Stamp{})
	wantCode(t, err, workspace.CodeUnavailable)
}

func TestReportIsTheNodesOwn(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.withNode(0)
	err := c.Local("node-2").Report(context.Background(), workspace.Report{Node: testNode})
	wantCode(t, err, workspace.CodeDenied)
}

type fakeAgent struct{ workspace.NodeService }

func TestNodeServices(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	_, err := c.Node(testNode)
	wantCode(t, err, workspace.CodeNotFound)
	c.withNode(0)
	_, err = c.Node(testNode)
	wantCode(t, err, workspace.CodeUnavailable)
	agent := &fakeAgent{}
	c.SetNodeService(testNode, agent)
	if got, err := c.Node(testNode); err != nil || got != agent {
		t.Errorf("got %v, %v", got, err)
	}
	c.SetNodeService(testNode, nil)
	_, err = c.Node(testNode)
	wantCode(t, err, workspace.CodeUnavailable)
}

// A run under a budget is handed out with its deadline, which is news by itself,
// and starts only once the deadline is one of this boot. What ends soon is told.
func TestAssignmentsOfDeadlines(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.withNode(2)
	l, budget := c.Local(testNode), int64(1_000_000)
	c.propose(&state.SetPrice{Resource: "gpu", GPUType: "*", Amount: 2_000_000}, admin)
	c.propose(createInstance("inst-1", nil), admin)
	c.propose(&state.UpdateWorkspace{ID: "ws-default", DailyBudget: workspace.Optional[int64]{Set: true, Value: &budget}}, admin)
	view := assignments(t, l, gpu.Epoch{})
	if len(view.Upsert) != 1 || view.Upsert[0].Lease != nil {
		t.Fatalf("a run that was placed without a budget: %+v", view.Upsert)
	}
	c.propose(&state.StopInstance{ID: "inst-1"}, admin)
	c.report("run-inst-1", workspace.PhaseStopped)
	c.propose(createInstance("inst-0", nil), admin)
	view = assignments(t, l, gpu.Epoch{})
	a := view.Upsert[0]
	if a.Run != "run-inst-0" || a.Lease == nil || !a.Lease.Hard || a.Lease.End.BootID != "" || len(a.Warnings) != 0 {
		t.Fatalf("before its node was heard: %+v, lease %+v", a, a.Lease)
	}
	stamp := workspace.Stamp{BootID: "boot-1", BoottimeMS: 100_000}
	if answer, err := l.GoAhead(context.Background(), a.Run, stamp); err != nil || answer.Start || !strings.Contains(answer.Reason, "granted") {
		t.Errorf("a start before the time is granted: %+v, %v", answer, err)
	}
	c.propose(&state.RenewLeases{Node: testNode, Stamp: stamp, Runs: []workspace.Livedness{{Run: a.Run}}}, system)
	if view = assignments(t, l, view.At); len(view.Upsert) != 1 {
		t.Fatalf("after a grant: %+v", view)
	}
	a = view.Upsert[0]
	if a.Lease == nil || *a.Lease != *c.View().Metered(a.Run).Lease || a.Lease.End.BootID != "boot-1" {
		t.Errorf("the lease after its grant: %+v", a.Lease)
	}
	if len(a.Warnings) != 1 || a.Warnings[0].Reason != string(workspace.CodeWorkspaceBudget) {
		t.Errorf("its budget pays for no more than that: %+v", a.Warnings)
	}
	if answer, err := l.GoAhead(context.Background(), a.Run, stamp); err != nil || !answer.Start {
		t.Errorf("a start with its time granted: %+v, %v", answer, err)
	}
	c.report(a.Run, workspace.PhaseRunning)
	view = assignments(t, l, view.At)
	budget *= 10
	c.propose(&state.UpdateWorkspace{ID: "ws-default", DailyBudget: workspace.Optional[int64]{Set: true, Value: &budget}}, admin)
	for _, lived := range []int64{a.Lease.GrantedMS / 4, a.Lease.GrantedMS} {
		c.propose(&state.RenewLeases{Node: testNode, Stamp: workspace.Stamp{BootID: "boot-1", BoottimeMS: stamp.BoottimeMS + lived},
			Runs: []workspace.Livedness{{Run: a.Run, LivedMS: lived}}}, system)
		view = assignments(t, l, view.At)
		if len(view.Upsert) != 1 || view.Upsert[0].Lease.End.BoottimeMS <= a.Lease.End.BoottimeMS || len(view.Upsert[0].Warnings) != 0 {
			t.Errorf("after a renewal: %+v", view)
		}
		a.Lease = view.Upsert[0].Lease
	}
}

func TestBeatsGoToTheLeadersWork(t *testing.T) {
	var got []workspace.Beat
	c := start(t, Config{Dir: t.TempDir(), Beats: func(b workspace.Beat) { got = append(got, b) }})
	if err := c.Local(testNode).Beat(context.Background(), workspace.Beat{Node: testNode}); err != nil || len(got) != 1 {
		t.Errorf("%d beats came, %v", len(got), err)
	}
	wantCode(t, c.Local(testNode).Beat(context.Background(), workspace.Beat{Node: "node-2"}), workspace.CodeDenied)
}
