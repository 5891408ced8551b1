package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/runtime"
	"berth/workspace"
)

// spell is one daemon's life, and what happens in it.
type spell struct {
	crashAt string        // empty: it is stopped in the end
	event   string        // "stop" or "exit" of the run, "nothing"
	after   time.Duration // when it happens
	lasts   time.Duration
}

// Whatever daemons crash where, one after the other, while runs of an instance
// are stopped, end and follow each other: each is started once at most, nobody
// breaks a rule, and in the end there is what is wanted and nothing else.
func TestManyCrashes(t *testing.T) {
	points := slices.Concat([]string{""}, CrashPoints(), MoreCrashPoints())
	rapid.Check(t, func(rt *rapid.T) {
		lives := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) spell {
			return spell{
				crashAt: rapid.SampledFrom(points).Draw(rt, "crash at"),
				event:   rapid.SampledFrom([]string{"nothing", "nothing", "stop", "exit"}).Draw(rt, "event"),
				after:   rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 20 * time.Second}).Draw(rt, "after"),
				lasts:   rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Minute}).Draw(rt, "lasts"),
			}
		}), 1, 8).Draw(rt, "lives")
		var problems []string
		inBubble(t, func(t *testing.T, h *host) { problems = h.liveThrough(t, lives) })
		if len(problems) > 0 {
			rt.Fatalf("%s", strings.Join(problems, "\n"))
		}
	})
}

// liveThrough plays the lives, then lets one daemon settle all, and says what is
// wrong then.
func (h *host) liveThrough(t *testing.T, lives []spell) (problems []string) {
	c, n := h.cluster, 0
	c.granting(true)
	next := func() { // the next run, once the one before has ended
		if n > 0 {
			if r := c.now(fmt.Sprintf("run-%d", n)); !r.Phase.Terminal() {
				return
			}
		}
		n++
		run := fmt.Sprintf("run-%d", n)
		h.networks.Serve(run, 8888, answer(200))
		made := c.volumeMade()
		c.place(run, both(complete, command("ignore-term"), func(a *workspace.Assignment) {
			a.Instance = "instance-1"
			a.Volume.Made = made
			if n%2 == 0 {
				leased(2 * time.Minute)(a)
			}
		}), uuid(n%2))
	}
	for _, l := range lives {
		next()
		d := h.startDaemon(l.crashAt)
		pass(l.after)
		h.happen(fmt.Sprintf("run-%d", n), l.event)
		pass(l.lasts)
		d.stop(t)
		pass(3 * time.Second) // any go-ahead is over
	}
	next()
	run := fmt.Sprintf("run-%d", n)
	d := h.startDaemon("")
	pass(3 * time.Minute)
	if r := c.now(run); !r.Phase.Terminal() {
		if r.Phase != workspace.PhaseRunning || fmt.Sprint(h.containers()) != fmt.Sprint(map[string]runtime.State{run: runtime.StateRunning}) {
			problems = append(problems, fmt.Sprintf("%s is %s (%s: %s), containers %v", run, r.Phase, r.reason, r.message, h.containers()))
		}
		if left := strings.Join(h.left(), ", "); left != "network "+run+", volume volume-1" {
			problems = append(problems, "there: "+left)
		}
		c.stop(run, "user_stop")
		pass(time.Minute)
	}
	if len(h.containers())+len(h.left()) > 0 {
		problems = append(problems, fmt.Sprintf("left: %v, %v", h.containers(), h.left()))
	}
	for i := range n {
		if r := c.now(fmt.Sprintf("run-%d", i+1)); r.listed() || len(r.starts) > 1 {
			problems = append(problems, fmt.Sprintf("%s is %s, holds %v, was started %d times", r.Run, r.Phase, r.held, len(r.starts)))
		}
	}
	d.stop(t)
	if list, _ := h.volumes.List(t.Context()); len(list) > 1 || len(list) == 0 && c.volumeMade() {
		problems = append(problems, fmt.Sprintf("volumes: %v", list))
	}
	return append(problems, c.broken...)
}

func (h *host) happen(run, event string) {
	switch event {
	case "stop":
		if r := h.cluster.now(run); !r.Phase.Terminal() {
			h.cluster.stop(run, "user_stop")
		}
	case "exit":
		if h.containers()[run] == runtime.StateRunning {
			h.Exit(run, 3)
		}
	}
}

// volumeMade: the cluster knows that the volume exists.
func (c *cluster) volumeMade() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.volumes {
		if v.Made {
			return true
		}
	}
	return false
}
