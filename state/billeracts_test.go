package state

import (
	"fmt"
	"slices"
	"time"

	"berth/workspace"
)

// What happens in the life that TestBiller watches.

// start makes an instance and starts it, or starts one again.
func (l *life) start() {
	x := &lifeRun{instance: l.id("i"), gpus: l.IntN(3), milli: 1000, cpu: 10 + l.Int64N(4000), mem: 64 + l.Int64N(9000)}
	ws, again := l.workspace(), len(l.idle) > 0 && l.chance(30)
	if again {
		n := l.IntN(len(l.idle))
		old := l.idle[n]
		l.idle = slices.Delete(l.idle, n, n+1)
		x.instance, x.gpus, x.milli, x.cpu, x.mem, ws = old.instance, old.gpus, old.milli, old.cpu, old.mem, old.workspace
	} else if x.gpus == 1 && l.chance(50) {
		x.milli = 100 + l.Int64N(900)
	}
	x.host = l.hosts[l.IntN(len(l.hosts))]
	on := l.place(x)
	user, run := fmt.Sprintf("user%d", l.IntN(3)), l.id("r")
	if again {
		l.do(&StartInstance{ID: x.instance, Run: run, Suggestion: on}, l.admin(user))
	} else {
		l.do(&CreateInstance{ID: x.instance, Workspace: ws, Name: x.instance, Template: workspace.TemplateRef{Name: "shell"}, Kind: workspace.KindInteractive,
			Resources:     workspace.Resources{GPUCount: x.gpus, GPUShare: int(x.milli % 1000), CPUMilli: x.cpu, MemoryMiB: x.mem, StorageMiB: 1},
			Spec:          workspace.RunSpec{Image: "i", Stoppable: true, MaxDuration: []int64{0, 0, 0, 1 + l.Int64N(9999)}[l.IntN(4)]},
			RestartPolicy: workspace.RestartPolicy{Mode: workspace.RestartNever}, FailoverAfter: []int{0, 0, 0, 30 + l.IntN(5000)}[l.IntN(4)],
			Start: true, Run: run, Suggestion: on}, l.admin(user))
	}
	r := l.store.View().Run(run)
	if r == nil || r.Phase != workspace.PhaseAssigned {
		if r != nil {
			l.do(&StopInstance{ID: x.instance}, l.admin(user))
		}
		return
	}
	rate := l.biller.rate(x.host.id, x.host.gpuType, x.gpus, x.milli, x.cpu, x.mem)
	if r.Rate != rate {
		l.t.Fatalf("biller: run %s costs %d an hour, the state says %d", run, rate, r.Rate)
	}
	x.bill = l.biller.open(run, ws, user, rate)
	l.observe(x, 0)
	l.live = append(l.live, x)
}

// place finds devices with room.
func (l *life) place(x *lifeRun) *Suggestion {
	s := &Suggestion{Node: x.host.id}
	if l.chance(80) {
		stamp := l.stamp(x.host)
		s.Stamp = &stamp
	}
	v := l.store.View()
	for n := range gpusPerHost {
		d := v.Device(fmt.Sprintf("%s-gpu%d", x.host.id, n))
		if len(s.Devices) < x.gpus && int64(d.HeldMilli())+x.milli <= 1000 {
			s.Devices = append(s.Devices, workspace.Allotment{UUID: d.UUID, Milli: int(x.milli)})
		}
	}
	return s
}

// observe shows the biller what the state answers about a run after an entry in
// which it was said to have lived so long.
func (l *life) observe(x *lifeRun, lived int64) {
	v := l.store.View()
	if m := v.Metered(x.run); m != nil {
		l.biller.seen(x.bill, lived, m.GrantedMS, m.Lease.Hard, l.at)
		return
	}
	l.biller.ended(x.bill, lived, v.Run(x.run).Phase == workspace.PhaseLost && x.host != nil, l.at)
}

// bury takes ended runs out of those that live.
func (l *life) bury() {
	l.live = slices.DeleteFunc(l.live, func(x *lifeRun) bool {
		if x.over && x.host != nil {
			l.idle = append(l.idle, x)
		}
		return x.over
	})
}

// some are live runs of a host, started ones or not.
func (l *life) some(h *host, started bool, most int) (all []*lifeRun) {
	for _, n := range l.Perm(len(l.live)) {
		if x := l.live[n]; len(all) < most && x.host == h && x.started.IsZero() != started {
			all = append(all, x)
		}
	}
	return all
}

// renew is a beat of a node: of some of its runs, with what they have lived by now,
// or a little before.
func (l *life) renew() {
	h := l.hosts[l.IntN(len(l.hosts))]
	c := &RenewLeases{Node: h.id, Stamp: l.stamp(h)}
	late := int64(0)
	if l.chance(10) {
		late = l.Int64N(100_000)
		c.Stamp.BoottimeMS -= late
	}
	some := slices.Concat(l.some(h, true, 1+l.IntN(9)), l.some(h, false, l.IntN(2)))
	for _, x := range some {
		c.Runs = append(c.Runs, workspace.Livedness{Run: x.run, LivedMS: max(0, l.livedMS(x)-late)})
	}
	l.must(c, Caller{Role: workspace.RoleSystem})
	for n, x := range some {
		l.observe(x, c.Runs[n].LivedMS)
	}
}

// progress starts what is placed, or has a running run say how long it has lived.
func (l *life) progress() {
	h := l.hosts[l.IntN(len(l.hosts))]
	fresh := l.some(h, false, 9)
	for _, x := range fresh {
		x.started = l.wall
	}
	some := slices.Concat(fresh, l.some(h, true, l.IntN(3)))
	l.report(h, func(r *workspace.Report) {
		for _, x := range some {
			r.Runs = append(r.Runs, workspace.RunReport{Run: x.run, Epoch: l.store.View().Run(x.run).Epoch, Phase: workspace.PhaseRunning,
				LivedMS: l.livedMS(x)})
		}
	})
	for _, x := range some {
		l.observe(x, l.livedMS(x))
	}
}

// stop ends a run, by its user or by itself.
func (l *life) stop() {
	h := l.hosts[l.IntN(len(l.hosts))]
	some := slices.Concat(l.some(h, true, 1+l.IntN(4)), l.some(h, false, l.IntN(2)))
	if len(some) == 0 {
		return
	}
	if l.chance(50) {
		l.must(&StopInstance{ID: some[0].instance}, l.admin("root"))
	}
	ends := []workspace.Phase{workspace.PhaseSucceeded, workspace.PhaseFailed, workspace.PhaseStopped}
	l.report(h, func(r *workspace.Report) {
		for _, x := range some {
			run := l.store.View().Run(x.run)
			r.Runs = append(r.Runs, workspace.RunReport{Run: x.run, Epoch: run.Epoch, Phase: ends[l.IntN(3)], LivedMS: l.livedMS(x)})
			for _, d := range run.Devices {
				r.Released = append(r.Released, workspace.Release{Device: d.UUID, Run: x.run, Epoch: run.Epoch})
			}
		}
	})
	for _, x := range some {
		l.observe(x, l.livedMS(x))
	}
	l.bury()
}

// external runs are renewed by calls, and end by a word or by silence.
func (l *life) external() {
	x := &lifeRun{}
	ws, user, run := l.workspace(), fmt.Sprintf("user%d", l.IntN(3)), l.id("e")
	c := &StartExternal{Run: run, Workspace: ws, Rate: l.Int64N(5_000_000), Lease: time.Minute + time.Duration(l.Int64N(int64(20*time.Hour)))}
	l.must(c, l.admin(user))
	r := l.store.View().Run(run)
	if r.Phase != workspace.PhaseRunning {
		return
	}
	x.bill, x.began, x.expires = l.biller.open(run, ws, user, c.Rate), l.at, r.ExpiresAt
	l.observe(x, 0)
	l.live = append(l.live, x)
}

func (l *life) callExternal() {
	some := l.some(nil, false, 1)
	if len(some) == 0 {
		return
	}
	x := some[0]
	if l.chance(30) {
		l.must(&EndExternal{Run: x.run, Phase: workspace.PhaseSucceeded}, l.admin("root"))
		l.observe(x, l.livedMS(x))
		l.bury()
		return
	}
	if res := l.do(&RenewExternal{Run: x.run}, l.admin("root")); res.Err == nil {
		l.observe(x, l.livedMS(x))
		x.expires = l.store.View().Run(x.run).ExpiresAt
	}
}

func (l *life) sweep() {
	l.must(&Sweep{}, Caller{Role: workspace.RoleSystem})
	for _, x := range l.live {
		if x.host == nil && l.store.View().Run(x.run).Phase.Terminal() {
			l.observe(x, l.livedMS(x))
		}
	}
	l.bury()
}

// limit sets a budget or ends one. Most workspaces have some, and reach it.
func (l *life) limit() {
	if l.chance(2) {
		c := &UpdateCluster{DailyBudget: workspace.Optional[int64]{Set: true}}
		if l.chance(30) {
			c.DailyBudget = some(1_000_000_000 + l.Int64N(4_000_000_000))
		}
		l.must(c, l.admin("root"))
		l.biller.cluster = c.DailyBudget.Value != nil
		return
	}
	ws := l.workspace()
	old := l.store.View().Workspace(ws)
	c := &UpdateWorkspace{ID: ws, MaxConcurrentRuns: ptr(3 + l.IntN(20))}
	budget := func(likely int, most int64) workspace.Optional[int64] {
		if l.chance(likely) {
			return some(l.Int64N(most))
		}
		return workspace.Optional[int64]{Set: true}
	}
	c.DailyBudget, c.UserDailyBudget = budget(60, 90_000_000), budget(40, 60_000_000)
	if l.chance(50) {
		c.SpendingLimit = budget(60, 400_000_000)
		if s := c.SpendingLimit.Value; s != nil && old.Limits.Spending != nil {
			a := ledgers{l.store.View().txn}.accountOf(ws)
			*s += a.Accrued + a.Held // a lower one is refused
		}
	}
	l.must(c, l.admin("root"))
	l.biller.budgets[ws] = c.DailyBudget.Value != nil || c.UserDailyBudget.Value != nil
	if c.SpendingLimit.Set {
		l.biller.spendingLimit(ws, c.SpendingLimit.Value != nil)
	}
}

// loseContact: the leader doesn't hear a node for a while, and its runs with a
// deadline are lost; their devices are released when it is heard again.
func (l *life) loseContact() {
	h := l.hosts[l.IntN(len(l.hosts))]
	c := &ExpireLeases{Term: 1}
	for _, x := range l.live {
		if m := l.store.View().Metered(x.run); x.host == h {
			c.Runs = append(c.Runs, Expired{Run: x.run, Grant: m.Lease.Grant})
		}
	}
	l.must(&SetReachable{Node: h.id}, Caller{Role: workspace.RoleSystem})
	l.must(c, Caller{Role: workspace.RoleSystem})
	l.must(&SetReachable{Node: h.id, Reachable: true}, Caller{Role: workspace.RoleSystem})
	l.lost(h)
}

// reboot loses all runs of a node.
func (l *life) reboot() {
	h := l.hosts[l.IntN(len(l.hosts))]
	h.boot++
	h.booted = l.wall.Add(-time.Second)
	l.hello(h)
	l.lost(h)
}

// lost tells the biller of runs that have ended without a word of their node.
func (l *life) lost(h *host) {
	v := l.store.View()
	l.report(h, func(r *workspace.Report) {
		for _, x := range l.live {
			if run := v.Run(x.run); x.host == h && run.Phase == workspace.PhaseLost {
				l.observe(x, 0)
				for _, d := range run.Devices {
					r.Released = append(r.Released, workspace.Release{Device: d.UUID, Run: x.run, Epoch: run.Epoch})
				}
			}
		}
	})
	l.bury()
}
