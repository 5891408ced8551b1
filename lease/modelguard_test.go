package lease

import (
	"maps"
	"slices"
	"time"

	"berth/state"
	"berth/workspace"
)

// process is a run on its node: the container, and what the guard holds of it.
type process struct {
	n        *node
	run      string
	instance string
	index    uint64              // of the entry that placed it
	word     workspace.RunReport // what is said of it begins with this
	grace    time.Duration
	wanted   bool
	alive    bool
	over     bool          // it was executed
	begun    time.Duration // of the node's clock
	ended    time.Duration
	leased   bool // the guard holds an end
	end      time.Duration
	granted  int64 // ms, of the last grant
	soft     bool  // it has lived without a deadline
	ending   bool
	term     *time.Timer
	last     *time.Timer
}

func (n *node) sorted() []*process {
	var all []*process
	for _, id := range slices.Sorted(maps.Keys(n.runs)) {
		all = append(all, n.runs[id])
	}
	return all
}

// assign begins what comes before a start: the image is pulled.
func (n *node) assign(run *workspace.Run) *process {
	p := &process{n: n, run: run.ID, instance: run.Instance, word: workspace.RunReport{Run: run.ID, Epoch: run.Epoch},
		grace: time.Duration(run.Spec.StopGrace) * time.Second}
	p.index = run.Epoch.Index
	p.over = run.Phase != workspace.PhaseAssigned // executed before: once is enough
	n.runs[run.ID] = p
	n.w.after(n.w.between(0, 20*time.Second), p.ask)
	return p
}

func (p *process) here() bool { return p.n.up && p.n.runs[p.run] == p }

func (p *process) lived() time.Duration {
	switch {
	case p.begun == 0:
		return 0
	case p.alive:
		return p.n.clock.now() - p.begun
	}
	return p.ended - p.begun
}

// ask for a go-ahead, again and again until the run has started or needn't.
func (p *process) ask() {
	n := p.n
	if !p.here() || p.over {
		return
	}
	if !p.wanted {
		p.over = true
		n.add(p, workspace.PhaseStopped, "never started")
		return
	}
	n.w.after(n.w.between(2*time.Second, 4*time.Second), p.ask)
	if !n.works() {
		return
	}
	asked, home, boot := n.clock.now(), n.home, n.bootID()
	n.deliver(n.mute, func() {
		l := n.w.leaderBehind(home)
		if l == nil {
			return
		}
		if mayStart(l.store.View(), p.run, boot) {
			n.deliver(n.deaf, func() { p.start(asked, boot) })
		}
	})
}

// mayStart is the leader's go-ahead.
func mayStart(view state.View, id, boot string) bool {
	run := view.Run(id)
	if run == nil || view.Node(run.Node).Stamp.BootID != boot || run.Desired != workspace.RunWanted || run.Phase != workspace.PhaseAssigned {
		return false
	}
	m := view.Metered(id)
	return m == nil || m.Lease == nil || !m.Lease.Hard || m.Lease.End.BootID == boot
}

// start within the window of a go-ahead, once the guard has the end.
func (p *process) start(asked time.Duration, boot string) {
	n := p.n
	if !p.here() || p.over || !p.wanted || !n.works() || boot != n.bootID() || n.clock.now()-asked > workspace.GoAheadWindow {
		return
	}
	if p.leased && p.end <= n.clock.now() {
		return
	}
	p.alive, p.over, p.begun = true, true, n.clock.now()
	p.soft = !p.leased
	n.w.checkStart(p)
	n.add(p, workspace.PhaseRunning, "started")
	p.arm()
	if n.w.faulty && n.w.chance(0.2) { // it ends by itself
		n.w.after(n.w.between(time.Second, 40*time.Minute), func() { p.die("exited") })
	}
}

// setDeadline gives the guard what a server says. Ends only move later, unless
// there is none any more.
func (p *process) setDeadline(l *workspace.Lease) {
	n := p.n
	if l == nil {
		p.leased, p.soft = false, p.soft || p.alive
		p.arm()
		return
	}
	end := time.Duration(l.End.BoottimeMS) * time.Millisecond
	switch n.w.protocol {
	case byServerClock:
		end = n.clock.now() + time.Until(l.PaidUntil)
	case lateExtends:
		end = n.clock.now() + time.Duration(l.GrantedMS)*time.Millisecond
	}
	if l.End.BootID != n.bootID() || p.leased && end <= p.end {
		return
	}
	p.leased, p.end, p.granted = true, end, l.GrantedMS
	p.arm()
}

// held is the end that the guard has, on the boot clock.
func (p *process) held() int64 {
	if !p.leased {
		return 0
	}
	return p.end.Milliseconds()
}

// arm sets the guard's timers. It works whatever the agent does.
func (p *process) arm() {
	for _, t := range []*time.Timer{p.term, p.last} {
		if t != nil {
			t.Stop()
		}
	}
	if !p.leased || !p.alive {
		return
	}
	early := min(p.grace, time.Duration(p.granted/2)*time.Millisecond)
	p.term = p.n.w.after(p.n.clock.until(p.end-early), p.terminate)
	p.last = p.n.w.after(p.n.clock.until(p.end), func() {
		if p.alive {
			p.n.w.found.killed++
			p.kill("lease")
		}
	})
}

// terminate asks it to end, which half of all do.
func (p *process) terminate() {
	if p.alive && p.n.w.chance(0.5) {
		p.n.w.after(p.n.w.between(0, p.grace), func() { p.die("asked to end") })
	}
}

// stop is TERM, grace, KILL.
func (p *process) stop() {
	if !p.alive || p.ending {
		return
	}
	p.ending = true
	p.terminate()
	p.n.w.after(p.grace, func() { p.kill("stopped") })
}

// kill ends it, which takes a moment.
func (p *process) kill(why string) {
	if p.alive {
		p.n.w.after(p.n.w.between(0, mostKill), func() { p.die(why) })
	}
}

func (p *process) die(why string) {
	if !p.alive {
		return
	}
	p.alive, p.ended = false, p.n.clock.now()
	p.n.w.checkEnd(p, why)
	if why != "reboot" && p.here() {
		phase := workspace.PhaseStopped
		if why == "exited" {
			phase = workspace.PhaseFailed
		}
		p.n.add(p, phase, why)
	}
}
