package lease

import (
	"fmt"
	"math"
	"time"

	"berth/state"
	"berth/workspace"
)

const usd = 1_000_000 // micro-USD

// setUp makes the cluster: a price, two workspaces, their first limits. Unlimited
// at first, runs are given deadlines while they live.
func (w *world) setUp(unlimited bool) {
	w.must(&state.InitCluster{ID: "c", Name: "model", Workspace: "ws0"})
	w.must(&state.CreateWorkspace{ID: "ws1", Slug: "one"})
	w.must(&state.SetPrice{Resource: "cpu", Amount: int64(pick(w, 3, 7, 10, 60)) * usd})
	for _, id := range []string{"ws0", "ws1"} {
		most := 40
		w.must(&state.UpdateWorkspace{ID: id, MaxConcurrentRuns: &most})
		if !unlimited {
			w.setLimit(id)
			w.setLimit(id)
		}
	}
}

func (w *world) must(cmd state.Command) {
	if res := w.commit(state.Caller{Role: workspace.RoleSystem}, cmd); res.Err != nil {
		w.t.Fatalf("seed %d: %T: %v", w.seed, cmd, res.Err)
	}
}

// ask is a user's; while nobody leads, nothing comes of it.
func (w *world) ask(cmd state.Command) {
	if w.leader == nil || w.leader.alone {
		return
	}
	w.commit(state.Caller{Role: workspace.RoleClusterAdmin, Principal: pick(w, "ada", "bob")}, cmd)
}

// setLimit changes one limit: none, far away, near, or below what was used.
func (w *world) setLimit(id string) {
	var amount *int64
	if w.chance(0.8) {
		a := int64(math.Exp(w.rng.Float64()*6) * usd / 4)
		amount = &a
	}
	limit := workspace.Optional[int64]{Set: true, Value: amount}
	switch w.rng.IntN(4) {
	case 0:
		w.ask(&state.UpdateWorkspace{ID: id, DailyBudget: limit})
	case 1:
		w.ask(&state.UpdateWorkspace{ID: id, UserDailyBudget: limit})
	case 2:
		w.ask(&state.UpdateWorkspace{ID: id, SpendingLimit: limit})
	case 3:
		w.ask(&state.UpdateCluster{DailyBudget: limit})
	}
}

// users start, stop and delete instances and change limits.
func (w *world) users() {
	w.every(20*time.Second, 4*time.Minute, func() {
		if w.faulty && w.made < 14 {
			w.create(pick(w, 0, 0, 0, 30, 45, 120, 300, 900))
		}
	})
	w.every(3*time.Minute, 20*time.Minute, func() {
		if w.faulty {
			w.setLimit(pick(w, "ws0", "ws1"))
		}
	})
	w.every(2*time.Minute, 8*time.Minute, func() {
		if !w.faulty || w.made == 0 {
			return
		}
		id := fmt.Sprintf("i%d", w.rng.IntN(w.made))
		switch {
		case w.chance(0.3):
			w.ask(&state.DeleteInstance{ID: id})
		case w.chance(0.5):
			w.ask(&state.StopInstance{ID: id})
		default:
			w.ask(&state.StartInstance{ID: id, Run: fmt.Sprintf("%s-r%d", id, len(w.log)), Suggestion: w.suggest()})
		}
	})
	w.every(10*time.Second, 30*time.Second, w.place)
}

func (w *world) create(failover int) {
	id := fmt.Sprintf("i%d", w.made)
	w.made++
	cmd := &state.CreateInstance{ID: id, Workspace: pick(w, "ws0", "ws1"), Name: id, Kind: pick(w, workspace.KindInteractive, workspace.KindJob),
		Spec:      workspace.RunSpec{Image: "demo", Stoppable: true, StopGrace: pick(w, 0, 5, 30)},
		Resources: workspace.Resources{CPUMilli: int64(pick(w, 1000, 2000, 3000)), MemoryMiB: 100},
		Start:     true, Run: id + "-r", FailoverAfter: failover, Suggestion: w.suggest(), RestartPolicy: workspace.RestartPolicy{Mode: workspace.RestartAlways}}
	w.ask(cmd)
}

// suggest is the leader's suggestion for a start.
func (w *world) suggest() *state.Suggestion {
	none := &state.Suggestion{Reason: "waiting_for_node", Message: "none is ready"}
	if w.leader == nil {
		return none
	}
	var ready []*workspace.Node
	for node := range w.leader.store.View().Nodes() {
		if node.Reachable && node.Ready {
			ready = append(ready, node)
		}
	}
	if len(ready) == 0 {
		return none
	}
	node := pick(w, ready...)
	return &state.Suggestion{Node: node.ID, Stamp: w.leader.keeper.Stamp(node)}
}

// place is the scheduler's loop and the sweeper.
func (w *world) place() {
	if w.leader == nil || w.leader.alone {
		return
	}
	view := w.leader.store.View()
	cmd := &state.PlaceRuns{}
	for run := range view.PendingRuns() {
		if !run.NotBefore.After(view.At()) {
			cmd.Placements = append(cmd.Placements, state.Placement{Run: run.ID, Suggestion: *w.suggest()})
		}
	}
	if len(cmd.Placements) > 0 {
		w.must(cmd)
	}
	if due := w.leader.store.View().NextDue(); !due.IsZero() && !due.After(w.leader.wall()) {
		w.must(&state.Sweep{})
	}
}

// long is a time between two bounds, of any order of magnitude alike.
func (w *world) long(low, high time.Duration) time.Duration {
	return time.Duration(float64(low) * math.Exp(w.rng.Float64()*math.Log(float64(high)/float64(low))))
}

// faults of nodes, of their links and of servers.
func (w *world) faults() {
	for _, n := range w.nodes {
		for _, f := range []struct {
			every time.Duration
			do    func()
		}{
			{8 * time.Minute, n.cutOff},
			{15 * time.Minute, func() { w.turn(&n.slow, w.long(10*time.Second, 10*time.Minute)) }},
			{15 * time.Minute, func() { w.turn(&n.paused, w.long(5*time.Second, 10*time.Minute)) }},
			{10 * time.Minute, func() { n.home = pick(w, w.servers...) }},
			{60 * time.Minute, n.reboot},
		} {
			w.fault(f.every, f.do)
		}
	}
	w.fault(8*time.Minute, func() { w.depose(w.long(500*time.Millisecond, 3*time.Minute)) })
	w.fault(8*time.Minute, w.isolate)
	w.fault(10*time.Minute, func() {
		pick(w, w.servers...).wrong = time.Duration(pick(w, 1, -1)) * w.long(time.Second, 8*time.Hour)
	})
}

// fault happens about every so often, until the world heals.
func (w *world) fault(about time.Duration, do func()) {
	w.every(about/4, about*7/4, func() {
		if w.faulty {
			do()
		}
	})
}

func (w *world) turn(what *bool, d time.Duration) {
	if w.faulty {
		*what = true
		w.after(d, func() { *what = false })
	}
}

// cutOff cuts a node's link: one way, both, or one after the other.
func (n *node) cutOff() {
	w := n.w
	d, later := w.long(5*time.Second, 60*time.Minute), w.long(time.Second, 10*time.Minute)
	mute, deaf := func() { w.turn(&n.mute, d) }, func() { w.turn(&n.deaf, d) }
	switch w.rng.IntN(5) {
	case 0:
		mute()
	case 1:
		deaf()
	case 2:
		deaf()
		w.after(later, mute)
	default:
		mute()
		deaf()
	}
}

// isolate cuts one server off from the others, not from its nodes.
func (w *world) isolate() {
	for _, s := range w.servers {
		if s.alone {
			return
		}
	}
	s := pick(w, w.servers...)
	w.turn(&s.alone, w.long(5*time.Second, 10*time.Minute))
	if w.leader == s {
		w.depose(w.between(500*time.Millisecond, 10*time.Second))
	}
}

// heal ends all faults; wrong clocks stay wrong.
func (w *world) heal() {
	w.faulty = false
	for _, n := range w.nodes {
		n.deaf, n.mute, n.slow, n.paused = false, false, false, false
	}
	for _, s := range w.servers {
		s.alone = false
	}
	if w.leader == nil {
		w.elect()
	}
}
