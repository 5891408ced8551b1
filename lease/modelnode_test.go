package lease

import (
	"fmt"
	"slices"
	"time"

	"berth/state"
	"berth/workspace"
)

// node is a host: an agent, the guard, and what they run.
type node struct {
	w      *world
	id     string
	boot   int
	clock  clock
	home   *server
	up     bool
	paused bool // the agent, not the guard
	deaf   bool // nothing comes in
	mute   bool // nothing goes out
	slow   bool
	at     uint64 // of the newest view acted on; on disk
	runs   map[string]*process
	told   uint64 // of the newest view sent to it
	queue  []news

	added, recorded uint64 // news
}

func (w *world) newNode(i int) *node {
	n := &node{w: w, id: fmt.Sprintf("n%d", i), home: pick(w, w.servers...)}
	n.start()
	w.every(3*time.Second, 6*time.Second, n.beat)
	w.every(2*time.Second, 4*time.Second, n.report)
	return n
}

// start is the end of a boot.
func (n *node) start() {
	n.boot++
	n.clock, n.up, n.paused = n.w.newClock(), true, false
	n.runs, n.queue = map[string]*process{}, nil
	n.added++ // the host itself is news
}

func (n *node) bootID() string { return fmt.Sprintf("%s-boot-%d", n.id, n.boot) }

func (n *node) stamp() workspace.Stamp {
	return workspace.Stamp{BootID: n.bootID(), BoottimeMS: n.clock.now().Milliseconds()}
}

func (n *node) works() bool { return n.up && !n.paused }

// delay of a message.
func (n *node) delay() time.Duration {
	switch w := n.w; {
	case n.slow:
		return w.between(time.Millisecond, 30*time.Second)
	case w.chance(0.01):
		return w.between(time.Millisecond, 5*time.Second)
	default:
		return w.between(time.Millisecond, 40*time.Millisecond)
	}
}

// deliver a message, sometimes twice, sometimes very late once more.
func (n *node) deliver(lost bool, f func()) {
	if lost {
		return
	}
	n.w.after(n.delay(), f)
	if n.w.faulty && n.w.chance(0.03) {
		n.w.after(n.delay(), f)
	}
	if n.w.faulty && n.w.chance(0.005) {
		n.w.after(n.w.between(time.Minute, 30*time.Minute), f)
	}
}

// beat says that the node is there, to the leader or who takes itself for it.
func (n *node) beat() {
	if !n.works() {
		return
	}
	beat := workspace.Beat{Node: n.id, Stamp: n.stamp()}
	for _, p := range n.sorted() {
		beat.Runs = append(beat.Runs, workspace.Livedness{Run: p.run, LivedMS: p.lived().Milliseconds(), EndMS: p.held()})
	}
	home := n.home
	n.deliver(n.mute, func() {
		if home.alone {
			home.keeper.Beat(beat) // it may still lead, as far as it knows
		} else if l := n.w.leaderBehind(home); l != nil {
			l.keeper.Beat(beat)
		}
		n.w.tell(home, n)
	})
}

// news is something that isn't recorded yet.
type news struct {
	number uint64
	run    workspace.RunReport
}

// add queues what happened to a run.
func (n *node) add(p *process, phase workspace.Phase, reason string) {
	r := p.word
	r.Phase, r.Reason, r.Message, r.LivedMS = phase, reason, reason, p.lived().Milliseconds()
	n.added++
	n.queue = append(n.queue, news{n.added, r})
	n.report()
}

// report sends all that isn't recorded, and what the host is.
func (n *node) report() {
	if !n.works() || n.recorded == n.added {
		return
	}
	r := workspace.Report{Node: n.id, Stamp: n.stamp(), Ready: &workspace.Readiness{Ready: true},
		Facts: &workspace.NodeFacts{Name: n.id, BootID: n.bootID(), CPUMilli: 64000, MemoryMiB: 640000, StorageMiB: 1 << 30, GPUSource: "none"}}
	for _, q := range n.queue {
		r.Runs = append(r.Runs, q.run)
	}
	home, upTo, boot := n.home, n.added, n.boot
	n.deliver(n.mute, func() {
		if n.w.leaderBehind(home) == nil {
			return
		}
		n.w.commit(state.Caller{Role: workspace.RoleNode, Principal: n.id}, &state.Report{Report: r})
		n.deliver(n.deaf, func() {
			if n.boot != boot {
				return
			}
			n.recorded = max(n.recorded, upTo)
			n.queue = slices.DeleteFunc(n.queue, func(q news) bool { return q.number <= upTo })
		})
	})
}

// told is what a server says of a run.
type told struct {
	run   *workspace.Run
	lease *workspace.Lease
}

// tellNodes hands out what a server has to those that talk to it.
func (w *world) tellNodes(s *server) {
	for _, n := range w.nodes {
		if n.home == s {
			w.tell(s, n)
		}
	}
}

// tell hands a node its assignments as a server has them, new or old.
func (w *world) tell(s *server, n *node) {
	view := s.store.View()
	if n.home != s || view.Index() == n.told && w.chance(0.9) {
		return
	}
	n.told = view.Index()
	var all []told
	for run := range view.NodeRuns(n.id) {
		a := told{run: run}
		if m := view.Metered(run.ID); m != nil && m.Lease != nil && m.Lease.Hard {
			a.lease = m.Lease
		}
		all = append(all, a)
	}
	n.deliver(n.deaf, func() { n.take(view.Index(), all) })
}

// take acts on assignments, unless they are older than what it acted on.
func (n *node) take(index uint64, all []told) {
	if !n.works() || index < n.at && n.w.protocol != lateExtends {
		return
	}
	n.at = max(n.at, index)
	there := map[string]bool{}
	for _, a := range all {
		there[a.run.ID] = true
		p := n.runs[a.run.ID]
		if p == nil {
			p = n.assign(a.run)
		}
		p.wanted = a.run.Desired == workspace.RunWanted && !a.run.Phase.Terminal()
		p.setDeadline(a.lease)
		if !p.wanted {
			p.stop()
		}
	}
	for _, p := range n.sorted() {
		if !there[p.run] && p.index <= index { // recorded as ended
			p.wanted = false
			p.kill("reaped")
			if !p.alive {
				delete(n.runs, p.run)
			}
		}
	}
}

// reboot ends everything at once and comes back as a new boot.
func (n *node) reboot() {
	if !n.up {
		return
	}
	for _, p := range n.sorted() {
		p.die("reboot")
	}
	n.up = false
	n.w.after(n.w.between(10*time.Second, 2*time.Minute), n.start)
}
