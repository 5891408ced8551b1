package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"berth/lease"
	"berth/packaging"
	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// entries are those of a state, applied at once.
type entries struct {
	t      testing.TB
	store  *state.Store
	clock  func() time.Time
	mu     sync.Mutex
	index  uint64
	swept  atomic.Int64
	keeper *lease.Keeper
}

func newEntries(t testing.TB) *entries {
	l := &entries{t: t, store: state.New(), clock: time.Now, keeper: lease.NewKeeper(slog.New(slog.DiscardHandler), boottime)}
	l.apply(workspace.RoleSystem, "", &state.InitCluster{ID: "c", Name: "test", Workspace: "ws"})
	l.apply(workspace.RoleNode, "n1", &state.Report{Report: workspace.Report{
		Node: "n1", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 1}, Ready: &workspace.Readiness{Ready: true},
		Facts: &workspace.NodeFacts{Name: "host", BootID: "boot", CPUMilli: 8000, MemoryMiB: 8000, StorageMiB: 8000, GPUSource: "none"},
	}})
	return l
}

func (l *entries) apply(role workspace.Role, principal string, cmd state.Command) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	entry, err := state.Encode(cmd, state.Caller{Role: role, Principal: principal}, l.clock())
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := l.store.Apply(l.index, entry)
	if err != nil || res.Err != nil {
		l.t.Fatalf("%T: %v, %v", cmd, err, res.Err)
	}
}

func (l *entries) propose(_ context.Context, cmd state.Command) error {
	l.swept.Add(1)
	l.apply(workspace.RoleSystem, "", cmd)
	return nil
}

// instance makes an instance with a volume, started where the scheduler says.
func (l *entries) instance(policy string) {
	l.t.Helper()
	cmd := &state.CreateInstance{ID: "i", Workspace: "ws", Name: "i", Kind: workspace.KindInteractive, StoragePolicy: policy, Start: true, Run: "r",
		Spec:          workspace.RunSpec{Image: "demo", VolumePath: "/home", Stoppable: true},
		Resources:     workspace.Resources{CPUMilli: 1000, MemoryMiB: 1000, StorageMiB: 1000},
		RestartPolicy: workspace.RestartPolicy{Mode: workspace.RestartAlways}}
	l.prepare(cmd)
	l.apply(workspace.RoleClusterAdmin, "root", cmd)
}

func (l *entries) prepare(cmd state.Command) {
	prepare(scheduler.NewPlanner(), l.keeper)(l.store.View(), cmd)()
}

func (l *entries) ended(run string, phase workspace.Phase) {
	l.apply(workspace.RoleNode, "n1", &state.Report{Report: workspace.Report{
		Node: "n1", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 1},
		Runs: []workspace.RunReport{{Run: run, Epoch: l.store.View().Run(run).Epoch, Phase: phase}},
	}})
}

// A detached volume is announced a day before and then purged, and the results of
// its run are deleted after the default of seven days, each in its time
// and with one entry, though nothing else happens; a log whose clock is behind
// takes one more.
func TestSweeper(t *testing.T) {
	for name, behind := range map[string]time.Duration{"in step": 0, "behind": 500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			l := newEntries(t)
			l.clock = func() time.Time { return time.Now().Add(-behind) }
			l.instance("retain:3")
			ctx, cancel := context.WithCancel(t.Context())
			s := &sweeper{view: l.store.View, propose: l.propose, now: time.Now}
			go func() {
				if err := s.Run(ctx); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			l.apply(workspace.RoleClusterAdmin, "root", &state.DeleteInstance{ID: "i"})
			l.ended("r", workspace.PhaseStopped)
			began := time.Now()
			volume := func() *workspace.Volume { return l.store.View().Volume("r") }
			extra := 0
			if behind > 0 {
				extra = 1
			}
			for _, step := range []struct {
				at    time.Duration
				count int
				is    func() bool
			}{
				{48*time.Hour - time.Second, 0, func() bool { return !volume().Warned }},
				{48*time.Hour + 2*time.Second, 1 + extra, func() bool { return volume().Warned && !volume().Purging }},
				{72*time.Hour - time.Second, 1 + extra, func() bool { return !volume().Purging }},
				{72*time.Hour + 2*time.Second, 2 + 2*extra, func() bool { return volume().Purging }},
				{1000 * time.Hour, 3 + 3*extra, func() bool { return volume().Purging && l.store.View().Run("r").Results == workspace.ResultsDeleting }},
			} {
				time.Sleep(time.Until(began.Add(step.at)))
				synctest.Wait()
				if swept := int(l.swept.Load()); swept != step.count || !step.is() {
					t.Errorf("%s: after %s, %d entries: %+v", name, step.at, swept, volume())
				}
			}
			cancel()
			synctest.Wait()
		})
	}
}

// The templates that come with berth can be read and filled in, and only those
// that the cluster doesn't have as they are are installed.
func TestBuiltInTemplates(t *testing.T) {
	all, err := builtIns(packaging.Templates())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 {
		t.Errorf("%d templates", len(all))
	}
	values := map[string]map[string]string{"job": {"command": "true"}, "ssh-dev": {"public_key": "ssh-ed25519 AAAA me"}}
	for i := range all {
		if _, _, _, err := all[i].Render(values[all[i].Name], func() string { return "random" }); err != nil {
			t.Errorf("%s: %v", all[i].Name, err)
		}
	}
	l := newEntries(t)
	if some := outdated(l.store.View(), all); len(some) != len(all) {
		t.Errorf("a new cluster lacks %d of %d", len(some), len(all))
	}
	l.apply(workspace.RoleSystem, "", &state.InstallTemplates{Templates: all})
	if some := outdated(l.store.View(), all); len(some) != 0 {
		t.Errorf("installed, and %d are outdated: %+v", len(some), some)
	}
	all[1].Description = "better"
	if some := outdated(l.store.View(), all); len(some) != 1 || some[0].Name != all[1].Name {
		t.Errorf("one has changed: %+v", some)
	}
	for _, text := range []string{"{", `{"name": "x"}`, `{"name": 1}`} {
		if _, err := builtIns(fstest.MapFS{"bad.json": {Data: []byte(text)}}); err == nil {
			t.Errorf("%s was read", text)
		}
	}
}

// A suggestion carries the stamp of the node's beat, if that is young: the first
// lease begins there.
func TestPrepareStamps(t *testing.T) {
	l := newEntries(t)
	now := time.Hour
	l.keeper = lease.NewKeeper(slog.New(slog.DiscardHandler), func() time.Duration { return now })
	l.keeper.Beat(workspace.Beat{Node: "n1", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 5}})
	l.instance("")
	l.ended("r", workspace.PhaseFailed)
	for age, heard := range map[time.Duration]bool{0: true, 5 * time.Second: false} {
		now = time.Hour + age
		start := &state.StartInstance{ID: "i"}
		place := &state.PlaceRuns{Placements: []state.Placement{{Suggestion: state.Suggestion{Node: "n1"}}, {}}}
		l.prepare(start)
		l.prepare(place)
		for _, s := range []*state.Suggestion{start.Suggestion, &place.Placements[0].Suggestion} {
			if (s.Stamp != nil) != heard || heard && s.Stamp.BoottimeMS != 5 {
				t.Errorf("%s after a beat: %+v", age, s)
			}
		}
		if s := place.Placements[1].Suggestion; s.Stamp != nil {
			t.Errorf("a suggestion of no node: %+v", s)
		}
	}
}

// A start of what a restart puts off is suggested a place under that run's id; a
// start of what has a volume, only on its node.
func TestPrepareStarts(t *testing.T) {
	l := newEntries(t)
	l.instance("")
	if run := l.store.View().Run("r"); run.Phase != workspace.PhaseAssigned {
		t.Fatalf("the first run: %+v", run)
	}
	l.ended("r", workspace.PhaseFailed)
	next := l.store.View().Instance("i").Run
	start := &state.StartInstance{ID: "i"}
	l.prepare(start)
	l.apply(workspace.RoleClusterAdmin, "root", start)
	if run := l.store.View().Run(next); run.Phase != workspace.PhaseAssigned {
		t.Errorf("the run that was put off: %+v", run)
	}
	again := &state.StartInstance{ID: "i"}
	if l.prepare(again); again.Suggestion != nil {
		t.Errorf("a start of what runs: %+v", again.Suggestion)
	}

	l.apply(workspace.RoleClusterAdmin, "root", &state.StopInstance{ID: "i"})
	l.ended(next, workspace.PhaseStopped)
	l.apply(workspace.RoleNode, "n1", &state.Report{Report: workspace.Report{
		Node: "n1", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 2}, Ready: &workspace.Readiness{Reason: "down"}}})
	l.apply(workspace.RoleNode, "n2", &state.Report{Report: workspace.Report{
		Node: "n2", Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: 1}, Ready: &workspace.Readiness{Ready: true},
		Facts: &workspace.NodeFacts{Name: "other", BootID: "boot", CPUMilli: 8000, MemoryMiB: 8000, StorageMiB: 8000, GPUSource: "none"}}})
	for fresh, node := range map[bool]string{false: "", true: "n2"} {
		start := &state.StartInstance{ID: "i", FreshVolume: fresh}
		if l.prepare(start); start.Suggestion == nil || start.Suggestion.Node != node {
			t.Errorf("fresh %v: %+v", fresh, start.Suggestion)
		}
		restart := &state.RestartInstance{ID: "i"}
		if l.prepare(restart); restart.Suggestion == nil || restart.Suggestion.Node != "" {
			t.Errorf("a restart: %+v", restart.Suggestion)
		}
	}
	heir := &state.CreateInstance{Resources: workspace.Resources{CPUMilli: 1000}, Start: true, Volume: "r"}
	if l.prepare(heir); heir.Suggestion == nil || heir.Suggestion.Node != "" {
		t.Errorf("a new instance with the volume: %+v", heir.Suggestion)
	}
}
