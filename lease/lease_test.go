package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"berth/state"
	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// one is a cluster of one server, whose entries are applied at once.
type one struct {
	t        *testing.T
	store    *state.Store
	index    uint64
	now      time.Duration // the boot clocks of the server and of the nodes
	proposed []state.Command
	refuse   error
}

const hour = time.Hour

func newOne(t *testing.T, nodes ...string) *one {
	c := &one{t: t, store: state.New(), now: hour}
	c.apply(&state.InitCluster{ID: "c", Name: "test", Workspace: "ws"}, state.Caller{Role: workspace.RoleSystem})
	for _, n := range nodes {
		c.apply(&state.Report{Report: workspace.Report{
			Node: n, Stamp: c.stamp(), Ready: &workspace.Readiness{Ready: true},
			Facts: &workspace.NodeFacts{Name: n, BootID: "boot", CPUMilli: 8000, MemoryMiB: 8000, StorageMiB: 8000, GPUSource: "none"},
		}}, state.Caller{Role: workspace.RoleNode, Principal: n})
	}
	return c
}

func (c *one) apply(cmd state.Command, by state.Caller) {
	c.t.Helper()
	c.index++
	entry, err := state.Encode(cmd, by, c.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	if res, err := c.store.ApplyInTerm(c.index, 7, entry); err != nil || res.Err != nil {
		c.t.Fatalf("%T: %v, %v", cmd, err, res.Err)
	}
}

func (c *one) View() state.View { return c.store.View() }

func (c *one) Now() time.Time { return time.Unix(1_700_000_000, 0).Add(c.now) }

func (c *one) Propose(_ context.Context, cmd state.Command) error {
	c.proposed = append(c.proposed, cmd)
	if c.refuse == nil {
		c.apply(cmd, state.Caller{Role: workspace.RoleSystem})
	}
	return c.refuse
}

func (c *one) clock() time.Duration { return c.now }

func (c *one) keeper() *Keeper { return NewKeeper(slog.New(slog.DiscardHandler), c.clock) }

func (c *one) stamp() workspace.Stamp {
	return workspace.Stamp{BootID: "boot", BoottimeMS: c.now.Milliseconds()}
}

// run makes a run on a node, with a deadline if it asks for failover.
func (c *one) run(id, node string, failover time.Duration) {
	stamp := c.stamp()
	c.apply(&state.CreateInstance{ID: "i-" + id, Workspace: "ws", Name: "i-" + id, Kind: workspace.KindJob, Start: true, Run: id,
		Spec: workspace.RunSpec{Image: "demo"}, Resources: workspace.Resources{CPUMilli: 100, MemoryMiB: 100},
		FailoverAfter: int(failover.Seconds()), Suggestion: &state.Suggestion{Node: node, Stamp: &stamp},
	}, state.Caller{Role: workspace.RoleClusterAdmin, Principal: "ada"})
	if p := c.View().Run(id).Phase; p != workspace.PhaseAssigned {
		c.t.Fatalf("run %s is %s: %s", id, p, c.View().Run(id).Message)
	}
}

// beat of a node whose runs have lived since the first hour.
func (c *one) beat(k *Keeper, node string, runs ...string) {
	b := workspace.Beat{Node: node, Stamp: c.stamp()}
	for _, r := range runs {
		b.Runs = append(b.Runs, workspace.Livedness{Run: r, LivedMS: (c.now - hour).Milliseconds()})
	}
	k.Beat(b)
}

// look is a pass of a term; it gives what was proposed.
func (c *one) look(term *Term) (proposed []state.Command, left time.Duration) {
	c.t.Helper()
	c.proposed = nil
	left, err := term.RunOnce(context.Background(), c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.proposed, left
}

func TestKeeper(t *testing.T) {
	c := newOne(t, "n1")
	k, node := c.keeper(), c.View().Node("n1")
	if s := k.Stamp(node); s != nil {
		t.Errorf("of a node that wasn't heard: %+v", s)
	}
	c.beat(k, "n1")
	latest := c.stamp()
	late := latest
	late.BoottimeMS--
	k.Beat(workspace.Beat{Node: "n1", Stamp: late})
	if s := k.Stamp(node); s == nil || *s != latest {
		t.Errorf("after a late beat: %+v, want %+v", s, latest)
	}
	c.now += youngBeat
	if s := k.Stamp(node); s == nil {
		t.Error("a young beat gives no stamp")
	}
	c.now++
	if s := k.Stamp(node); s != nil {
		t.Errorf("an old beat gives %+v", s)
	}
	c.beat(k, "n1")
	k.Beat(workspace.Beat{Node: "n1", Stamp: workspace.Stamp{BootID: "before", BoottimeMS: 1 << 40}})
	past := *node
	past.PastBoots = []string{"before"}
	if s := k.Stamp(&past); s == nil || s.BootID != "boot" {
		t.Errorf("after a beat of an earlier boot: %+v", s)
	}
}

// A node has ten seconds from the beginning of the term, then from each beat.
func TestReachability(t *testing.T) {
	c := newOne(t, "n1", "n2")
	k := c.keeper()
	c.beat(k, "n2")
	c.now += time.Minute
	term := k.Term(c, 7)
	c.now += 4 * time.Second
	c.beat(k, "n1")
	c.now += 6*time.Second - 1
	if got, left := c.look(term); len(got) != 0 || left != 1 {
		t.Errorf("in the first seconds of a term: %+v, then %s", got, left)
	}
	c.now++
	got, left := c.look(term)
	if len(got) != 1 || *got[0].(*state.SetReachable) != (state.SetReachable{Node: "n2"}) || left != 4*time.Second {
		t.Errorf("after ten: %+v, then %s", got, left)
	}
	if got, left := c.look(term); len(got) != 0 || left != 4*time.Second {
		t.Errorf("once more: %+v, then %s", got, left)
	}
	c.now += time.Hour
	c.beat(k, "n2")
	got, left = c.look(term)
	if len(got) != 2 || *got[0].(*state.SetReachable) != (state.SetReachable{Node: "n1"}) ||
		*got[1].(*state.SetReachable) != (state.SetReachable{Node: "n2", Reachable: true}) || left != SilentAfter {
		t.Errorf("at the beat of a silent node: %+v, then %s", got, left)
	}
}

// All that is due at a beat is in one entry, in the order of the ends; what isn't
// due is in none.
func TestRenewal(t *testing.T) {
	c := newOne(t, "n1")
	k := c.keeper()
	term := k.Term(c, 7)
	c.run("b", "n1", 2*time.Minute)
	c.run("a", "n1", 2*time.Minute)
	c.run("long", "n1", 20*time.Minute)
	c.run("short", "n1", time.Minute)
	c.run("none", "n1", 0)
	c.now += 29 * time.Second
	c.beat(k, "n1", "a", "b", "long")
	if got, _ := c.look(term); len(got) != 0 {
		t.Errorf("before a quarter is used: %+v", got)
	}
	c.now += 2 * time.Second
	if got, _ := c.look(term); len(got) != 0 {
		t.Errorf("without a beat: %+v", got)
	}
	c.beat(k, "n1", "a", "b", "long", "short", "none")
	got, _ := c.look(term)
	if len(got) != 1 {
		t.Fatalf("after a quarter: %+v", got)
	}
	cmd := got[0].(*state.RenewLeases)
	if fmt.Sprint(cmd.Runs) != "[{short 31000 0} {a 31000 0} {b 31000 0}]" || cmd.Stamp != c.stamp() {
		t.Errorf("proposed: %+v", cmd)
	}
	if got, _ := c.look(term); len(got) != 0 {
		t.Errorf("the same beat again: %+v", got)
	}
	if c.proposed = nil; term.Renew(context.Background()) != nil || len(c.proposed) != 0 {
		t.Errorf("asked for what was given: %+v", c.proposed)
	}
}

// A lease of a silent node is over when its time and the margin have passed since
// the term began or its grant was seen; a lease that isn't a deadline never is.
func TestExpiry(t *testing.T) {
	c := newOne(t, "n1")
	k := c.keeper()
	c.run("a", "n1", 10*time.Minute)
	c.run("b", "n1", 10*time.Minute)
	c.run("late", "n1", 20*time.Minute)
	c.run("none", "n1", 0)
	c.now += 5 * time.Minute
	term := k.Term(c, 7)
	c.now += SilentAfter - time.Second
	c.beat(k, "n1") // of none of the runs: nothing is renewed, the grants are seen
	c.look(term)
	seen := c.now
	c.now += SilentAfter
	got, left := c.look(term)
	if len(got) != 1 || c.View().Node("n1").Reachable {
		t.Fatalf("of a silent node: %+v", got)
	}
	wait := 10*time.Minute + 15*time.Second + 600*time.Millisecond
	if want := seen + wait - c.now; left != SilentAfter {
		t.Errorf("after it was marked, the next look is in %s", left)
	} else if _, left := c.look(term); left != want {
		t.Errorf("the lease is over in %s, want %s", left, want)
	}
	c.now = seen + wait - 1
	if got, left := c.look(term); len(got) != 0 || left != 1 {
		t.Errorf("just before: %+v, then %s", got, left)
	}
	c.now++
	got, _ = c.look(term)
	if len(got) != 1 {
		t.Fatalf("when it is over: %+v", got)
	}
	if cmd := got[0].(*state.ExpireLeases); cmd.Term != 7 || fmt.Sprint(cmd.Runs) != "[{a 1} {b 1}]" {
		t.Errorf("proposed: %+v", cmd)
	}
	for run, phase := range map[string]workspace.Phase{"a": workspace.PhaseLost, "b": workspace.PhaseLost, "late": workspace.PhaseAssigned,
		"none": workspace.PhaseAssigned} {
		if got := c.View().Run(run).Phase; got != phase {
			t.Errorf("run %s is %s, want %s", run, got, phase)
		}
	}
	c.now += 100 * time.Hour
	if got, left := c.look(term); len(got) != 1 || left != SilentAfter || c.View().Run("none").Phase != workspace.PhaseAssigned {
		t.Errorf("much later: %+v, then %s", got, left)
	}
	if got, left := c.look(term); len(got) != 0 || left != never {
		t.Errorf("with nothing left to end: %+v, then %s", got, left)
	}
}

// Another grant since makes a new wait, and what the state refuses is proposed
// again only after a while.
func TestExpiryOfARenewedLease(t *testing.T) {
	c := newOne(t, "n1")
	k := c.keeper()
	c.run("a", "n1", time.Minute)
	term := k.Term(c, 7)
	c.now += 30 * time.Second
	c.beat(k, "n1", "a")
	c.look(term)
	if g := c.View().Metered("a").Lease.Grant; g != 2 {
		t.Fatalf("grant %d", g)
	}
	c.now += SilentAfter
	c.look(term)
	_, left := c.look(term)
	if want := Wait(c.View().Metered("a").Lease) - SilentAfter; left != want {
		t.Errorf("over in %s, want %s", left, want)
	}
	c.now += left
	c.refuse = workspace.Errorf(workspace.CodeConflict, "not now")
	if got, left := c.look(term); len(got) != 1 || left != SilentAfter {
		t.Errorf("refused: %+v, then %s", got, left)
	}
	c.refuse = errors.New("no leader")
	c.now += SilentAfter
	if _, err := term.RunOnce(context.Background(), c.now); !errors.Is(err, c.refuse) {
		t.Errorf("a failure gives %v", err)
	}
}

// Run sleeps until a beat, a change or a time wakes it.
func TestRunWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := newOne(t, "n1")
		k := NewKeeper(slog.New(slog.DiscardHandler), func() time.Duration { return hour + time.Since(began) })
		term := k.Term(c, 7)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- term.Run(ctx) }()
		reachable := func() bool { synctest.Wait(); return c.View().Node("n1").Reachable }
		time.Sleep(SilentAfter - 1)
		if !reachable() {
			t.Error("it was marked too early")
		}
		time.Sleep(2 * time.Nanosecond)
		if reachable() {
			t.Error("no time woke it")
		}
		c.now = hour + time.Since(began)
		c.beat(k, "n1")
		if !reachable() {
			t.Error("no beat woke it")
		}
		time.Sleep(10000 * time.Hour)
		if reachable() || len(c.proposed) != 3 {
			t.Errorf("%d proposals in the end", len(c.proposed))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
