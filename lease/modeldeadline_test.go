package lease

import (
	"testing"
	"testing/synctest"
	"time"

	"berth/state"
	"berth/workspace"
)

// A run that is given a deadline while it lives, on a node that can't hear of it,
// isn't given up: it lives on there. Once its node has heard, it may be.
func TestModelOfADeadlineNotHeard(t *testing.T) {
	for _, hears := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, asDesigned)
			w.faulty = false
			after := func(d time.Duration, f func()) {
				time.Sleep(d)
				synctest.Wait()
				w.mu.Lock()
				defer w.mu.Unlock()
				f()
			}
			after(0, func() { w.elect(); w.setUp(true) })
			after(15*time.Second, func() { w.create(0) })
			p := &process{n: w.nodes[0]}
			after(time.Minute, func() {
				for _, n := range w.nodes {
					for _, p = range n.sorted() {
						n.deaf = !hears
					}
				}
				if !p.alive || p.leased {
					t.Errorf("the run before a budget is set: %+v", p)
				}
				amount := int64(100 * usd)
				w.ask(&state.UpdateCluster{DailyBudget: workspace.Optional[int64]{Set: true, Value: &amount}})
			})
			after(30*time.Second, func() {
				if m := w.leader.store.View().Metered(p.run); m == nil || !m.Lease.Hard || p.leased != hears {
					t.Errorf("the lease after a budget was set: %+v; its node has it: %v", m, p.leased)
				}
				p.n.deaf, p.n.mute = true, true
			})
			after(2*time.Hour, func() {
				if run := w.leader.store.View().Run(p.run); p.alive == hears || (run.Phase == workspace.PhaseLost) != hears {
					t.Errorf("hours later it is %s in the state and alive: %v", run.Phase, p.alive)
				}
				w.heal()
			})
			w.end()
			if f := &w.found; f.freed+f.broken+f.cut+f.unlike > 0 {
				t.Error(f.messages)
			}
		})
	}
}
