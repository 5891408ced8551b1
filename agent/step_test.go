package agent

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/agent/guard"
	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// The table's clock stands at an hour of uptime.
const tableNow = time.Hour

// wanted is an assignment that the cluster has in a phase.
func wanted(phase workspace.Phase) *workspace.Assignment {
	return &workspace.Assignment{
		Run: "run-1", Name: "env", Desired: workspace.RunWanted, Phase: phase, Epoch: epochAt(20),
		Devices: []workspace.Allotment{{UUID: "GPU-1", Milli: 1000}},
		Spec:    workspace.RunSpec{Image: "demo", StopGrace: 30}, Resources: workspace.Resources{MemoryMiB: 512},
	}
}

func stopped(phase workspace.Phase) *workspace.Assignment {
	a := wanted(phase)
	a.Desired, a.StopReason = workspace.RunStopping, "user_stop"
	return a
}

func unreleased(phase workspace.Phase) *workspace.Assignment {
	a := wanted(phase)
	a.Unreleased = true
	return a
}

// probed is an assignment whose container has to get ready.
func probed(phase workspace.Phase) *workspace.Assignment {
	a := wanted(phase)
	a.Spec.Probe = &workspace.Probe{Port: "80"}
	return a
}

// there is a container of run-1 in a state, placed at index 20 of incarnation 2.
func there(state runtime.State) *runtime.Container {
	a := wanted(workspace.PhaseAssigned)
	a.Epoch = gpu.Epoch{Incarnation: 2, Index: 20}
	c := &runtime.Container{ID: "run-1", State: state, Labels: labelsOf("cluster-1", a), CreatedAt: time.Unix(1000, 0)}
	if state != runtime.StateExited {
		c.Pid = 7
	}
	return c
}

func exited(exit runtime.Exit) *runtime.Container {
	c := there(runtime.StateExited)
	exit.At = time.Unix(1000, 0).Add(1500 * time.Millisecond)
	c.Exit = exit
	return c
}

func withoutTask() *runtime.Container {
	c := there(runtime.StateCreated)
	c.Pid = 0
	return c
}

func foreign() *runtime.Container {
	c := there(runtime.StateRunning)
	c.Labels[ClusterLabel] = "cluster-2"
	return c
}

func unlabelled() *runtime.Container {
	return &runtime.Container{ID: "run-1", State: runtime.StateRunning}
}

func ago(d time.Duration) time.Duration { return tableNow - d }

// answered is a verified answer at (incarnation, index).
func answered(incarnation, index uint64, known, ended bool) *workspace.GoAheadAnswer {
	return &workspace.GoAheadAnswer{
		Cluster: "cluster-1", Known: known, Ended: ended, Start: known && !ended, At: gpu.Epoch{Incarnation: incarnation, Index: index},
	}
}

const hourMS = int64(tableNow / time.Millisecond)

// in is so many seconds from now, in this boot.
func in(seconds int64) *workspace.Stamp {
	return &workspace.Stamp{BootID: "boot-1", BoottimeMS: hourMS + seconds*1000}
}

// limited is an assignment with a lease of a minute that ends then; nil: it isn't
// granted.
func limited(end *workspace.Stamp) *workspace.Assignment {
	a := wanted(workspace.PhaseRunning)
	a.Lease = &workspace.Lease{GrantedMS: 60_000, Hard: true}
	if end != nil {
		a.Lease.End = *end
	}
	return a
}

func stoppedToo(a *workspace.Assignment) *workspace.Assignment {
	a.Desired, a.StopReason = workspace.RunStopping, "user_stop"
	return a
}

// early is an assignment whose container wasn't started.
func early(a *workspace.Assignment) *workspace.Assignment {
	a.Phase = workspace.PhasePulling
	return a
}

// longest is an assignment with a max_duration.
func longest(seconds int64) *workspace.Assignment {
	a := wanted(workspace.PhaseRunning)
	a.Spec.MaxDuration = seconds
	return a
}

// ending gives a run that started a lease as the guard holds it, in seconds from
// now.
func ending(term, kill int64) func(*progress) {
	return func(p *progress) {
		p.life = life{BootID: "boot-1", Started: 1, Lease: bound{hourMS + term*1000, hourMS + kill*1000}}
	}
}

func with(p progress, change func(*progress)) progress {
	change(&p)
	return p
}

// live is the progress of a run whose process was seen.
func live(change func(*progress)) progress {
	return with(progress{watched: true, consulted: true}, change)
}

func TestStep(t *testing.T) {
	yes := &workspace.GoAheadAnswer{Start: true}
	no := &workspace.GoAheadAnswer{Known: true}
	ready := progress{image: "demo", claimed: true, prepared: &prepared{}}
	granted := func(d time.Duration) progress {
		p := ready
		p.answer, p.asked = yes, ago(d)
		return p
	}
	end := &workspace.RunReport{Run: "run-1", Phase: workspace.PhaseFailed, Reason: reasonImageMissing}
	expired := &workspace.RunReport{Run: "run-1", Phase: workspace.PhaseStopped, Reason: reasonLeaseExpired}
	ended := func(phase, reason string) string { return "delete " + phase + " " + reason }

	for _, test := range []struct {
		name       string
		assignment *workspace.Assignment
		container  *runtime.Container
		progress   progress
		want       string
	}{
		{"nothing at all", nil, nil, progress{}, "forget"},
		{"backing off", wanted(workspace.PhaseAssigned), nil, progress{retryAt: tableNow + 1}, "nothing until 1ns"},
		{"back-off over", wanted(workspace.PhaseAssigned), nil, progress{retryAt: tableNow}, "pull"},

		// Starting.
		{"new", wanted(workspace.PhaseAssigned), nil, progress{}, "pull"},
		{"image here", wanted(workspace.PhasePulling), nil, progress{image: "demo"}, "claim"},
		{"devices taken", wanted(workspace.PhasePulling), nil, progress{image: "demo", claimed: true}, "prepare"},
		{"volume and network there", wanted(workspace.PhasePulling), nil, ready, "ask"},
		{"refused", wanted(workspace.PhasePulling), nil, progress{image: "demo", claimed: true, prepared: &prepared{}, answer: no, asked: ago(time.Second)}, "ask"},
		{"allowed", wanted(workspace.PhasePulling), nil, granted(0), "create"},
		{"allowed at the window's end", wanted(workspace.PhasePulling), nil, granted(workspace.GoAheadWindow), "create"},
		{"allowed too long ago", wanted(workspace.PhasePulling), nil, granted(workspace.GoAheadWindow + 1), "ask"},
		{"created", wanted(workspace.PhaseStarting), there(runtime.StateCreated), granted(time.Second), "start"},
		{"creating took too long", wanted(workspace.PhaseStarting), there(runtime.StateCreated), granted(workspace.GoAheadWindow + 1), "ask"},
		{"running", wanted(workspace.PhaseRunning), there(runtime.StateRunning), progress{watched: true}, "nothing"},
		{"running, not ready", probed(workspace.PhaseStarting), there(runtime.StateRunning), progress{watched: true}, "probe"},
		{"running, and ready", probed(workspace.PhaseStarting), there(runtime.StateRunning), progress{watched: true, phase: workspace.PhaseRunning}, "nothing"},
		{"running, and ready before", probed(workspace.PhaseRunning), there(runtime.StateRunning), progress{watched: true}, "nothing"},
		{"decided to fail", wanted(workspace.PhasePulling), nil, progress{end: end}, "end failed image_missing"},

		// With an end.
		{"lease not granted", early(limited(nil)), nil, ready, "await-lease"},
		{"lease not granted, and told so", early(limited(nil)), nil, with(ready, func(p *progress) { p.reason = reasonNoLease }), "nothing"},
		{"lease of another boot", early(limited(&workspace.Stamp{BootID: "boot-0", BoottimeMS: hourMS + 60_000})), nil, ready, "await-lease"},
		{"lease nearly over", early(limited(in(30))), nil, ready, "await-lease"},
		{"lease granted", early(limited(in(31))), nil, ready, "ask"},
		{"lease granted, made, allowed", limited(in(60)), there(runtime.StateCreated), granted(0), "guard"},
		{"lease granted, made, not granted any more", limited(in(29)), there(runtime.StateCreated), granted(0), "await-lease"},
		{"end stored", limited(in(60)), there(runtime.StateCreated), with(granted(0), ending(30, 60)), "start"},
		{"end stored, of another container", limited(in(60)), there(runtime.StateCreated),
			with(granted(0), func(p *progress) { ending(30, 60)(p); p.unguarded = true }), "guard"},
		{"ended by the guard before it was started", early(limited(in(60))), there(runtime.StateCreated),
			with(granted(0), func(p *progress) { p.spoiled = true }), "delete"},
		{"max duration, made, allowed", longest(60), there(runtime.StateCreated), granted(0), "guard"},
		{"lease renewed", limited(in(90)), there(runtime.StateRunning), live(ending(30, 60)), "guard"},
		{"lease renewed, guard away", limited(in(90)), there(runtime.StateRunning),
			live(func(p *progress) { ending(30, 60)(p); p.guardAt = tableNow + 5*time.Second }), "nothing until 5s"},
		{"lease as it was", limited(in(60)), there(runtime.StateRunning), live(ending(30, 60)), "nothing until 30s"},
		{"lease earlier than it was", limited(in(50)), there(runtime.StateRunning), live(ending(30, 60)), "nothing until 30s"},
		{"lease taken away", wanted(workspace.PhaseRunning), there(runtime.StateRunning), live(ending(30, 60)), "guard"},
		{"lease over", limited(in(30)), there(runtime.StateRunning), live(ending(0, 30)), "expire"},
		{"lease over while something else waits", limited(in(30)), there(runtime.StateRunning),
			live(func(p *progress) { ending(0, 30)(p); p.retryAt = tableNow + time.Second }), "expire"},
		{"waits for something else, not longer than the lease", limited(in(30)), there(runtime.StateRunning),
			live(func(p *progress) { ending(1, 30)(p); p.retryAt = tableNow + 5*time.Second }), "nothing until 1s"},
		{"asked by the guard", limited(in(60)), there(runtime.StateRunning),
			live(func(p *progress) { ending(30, 60)(p); p.entry = &guard.Entry{Termed: hourMS - 5} }), "expire"},
		{"decided to end", limited(in(30)), there(runtime.StateRunning),
			live(func(p *progress) { ending(0, 30)(p); p.end = expired }), "term"},
		{"asked, in what is left", limited(in(20)), there(runtime.StateRunning),
			live(func(p *progress) {
				ending(-10, 20)(p)
				p.end, p.termed, p.termSent = expired, ago(10*time.Second), true
			}), "nothing until 20s"},
		{"asked, and over", limited(in(0)), there(runtime.StateRunning),
			live(func(p *progress) { ending(-30, 0)(p); p.end, p.termed, p.termSent = expired, ago(20*time.Second), true }), "kill"},
		{"not asked, and over", limited(in(0)), there(runtime.StateRunning),
			live(func(p *progress) { ending(-30, 0)(p); p.end = expired }), "kill"},
		{"stop, lease over before its grace", stoppedToo(limited(in(0))), there(runtime.StateRunning),
			live(func(p *progress) { ending(-30, 0)(p); p.termed, p.termSent = ago(5*time.Second), true }), "kill"},
		{"max duration over", longest(60), there(runtime.StateRunning),
			live(func(p *progress) {
				p.life = life{BootID: "boot-1", Started: hourMS - 30_000, Max: bound{hourMS, hourMS + 30_000}}
			}), "expire"},
		{"adopted, guard not asked yet", limited(in(60)), there(runtime.StateRunning),
			live(func(p *progress) { ending(30, 60)(p); p.consulted = false }), "consult"},
		{"adopted, guard doesn't answer", limited(in(60)), there(runtime.StateRunning),
			live(func(p *progress) { ending(30, 60)(p); p.consulted, p.guardAt = false, tableNow+time.Second }), "nothing until 1s"},
		{"guard has lost its end", limited(in(60)), there(runtime.StateRunning),
			live(func(p *progress) { ending(30, 60)(p); p.unguarded = true }), "guard"},
		{"ended, guard not asked yet", limited(in(60)), exited(runtime.Exit{Known: true, Code: 137}), with(ready, ending(30, 60)), "consult"},
		{"ended, guard doesn't answer", limited(in(60)), exited(runtime.Exit{Known: true, Code: 137}),
			with(ready, func(p *progress) { ending(30, 60)(p); p.guardAt = tableNow + time.Second }), "nothing until 1s"},
		{"ended by the guard", limited(in(0)), exited(runtime.Exit{Known: true, Code: 137}),
			live(func(p *progress) { ending(-30, 0)(p); p.entry = &guard.Entry{Killed: hourMS} }), ended("stopped", reasonLeaseExpired)},
		{"ended by itself before that", limited(in(0)), exited(runtime.Exit{Known: true, Code: 3}),
			live(func(p *progress) { ending(-30, 0)(p); p.entry, p.exited = &guard.Entry{Killed: hourMS}, hourMS-40_000 }), ended("failed", reasonExited)},
		{"ended by the guard, and gone", limited(in(0)), nil,
			live(func(p *progress) { ending(-30, 0)(p); p.entry = &guard.Entry{Killed: hourMS} }), "end stopped lease_expired"},
		{"gone, guard not asked yet", limited(in(0)), nil, live(func(p *progress) { ending(-30, 0)(p); p.consulted = false }), "consult"},
		{"something new to read", wanted(workspace.PhaseRunning), there(runtime.StateRunning),
			progress{watched: true, noticed: "old"}, "notice"},

		// Found by a new agent.
		{"found running", wanted(workspace.PhaseRunning), there(runtime.StateRunning), progress{}, "adopt"},
		{"found running, report lost", wanted(workspace.PhaseAssigned), there(runtime.StateRunning), progress{}, "adopt"},
		{"found created", wanted(workspace.PhaseStarting), there(runtime.StateCreated), progress{}, "ask"},
		{"found without a task", wanted(workspace.PhaseStarting), withoutTask(), progress{}, "delete"},
		{"found without a task, but it ran", wanted(workspace.PhaseRunning), withoutTask(), progress{}, ended("failed", reasonUnknown)},
		{"container gone before it ran", wanted(workspace.PhaseStarting), nil, progress{}, "pull"},
		{"container gone", wanted(workspace.PhaseRunning), nil, progress{}, "end failed exit_unknown"},
		{"container gone, reported by us", wanted(workspace.PhaseStarting), nil, progress{phase: workspace.PhaseRunning}, "end failed exit_unknown"},
		{"end kept by the agent before", wanted(workspace.PhaseRunning), nil, progress{end: end}, "end failed image_missing"},
		{"end kept, container left", wanted(workspace.PhaseRunning), there(runtime.StateExited), progress{end: end}, ended("failed", reasonImageMissing)},

		// Ends by itself.
		{"exit 0", wanted(workspace.PhaseRunning), exited(runtime.Exit{Known: true}), progress{}, ended("succeeded", reasonExited)},
		{"exit 3", wanted(workspace.PhaseRunning), exited(runtime.Exit{Known: true, Code: 3}), progress{}, ended("failed", reasonExited)},
		{"out of memory", wanted(workspace.PhaseRunning), exited(runtime.Exit{Known: true, Code: 137, OOM: true}), progress{}, ended("failed", reasonOOM)},
		{"nobody saw how", wanted(workspace.PhaseRunning), exited(runtime.Exit{}), progress{}, ended("failed", reasonUnknown)},
		{"gone before it was ready", probed(workspace.PhaseStarting), nil, progress{life: life{Started: 1}}, "end failed exit_unknown"},
		{"ended, network left", wanted(workspace.PhaseRunning), nil, progress{end: end, endSent: true, attached: true, mounted: "v"}, "detach"},
		{"ended, volume left", wanted(workspace.PhaseRunning), nil, progress{end: end, endSent: true, mounted: "v"}, "unmount"},
		{"deleted, not reported", wanted(workspace.PhaseRunning), nil, progress{end: end, endSent: true}, "release"},
		{"all done here", wanted(workspace.PhaseRunning), nil, progress{end: end, endSent: true, released: true}, "nothing"},

		// Stopping.
		{"stop before anything", stopped(workspace.PhaseAssigned), nil, progress{}, "end stopped user_stop"},
		{"stop before create", stopped(workspace.PhasePulling), nil, granted(0), "end stopped user_stop"},
		{"stop before start", stopped(workspace.PhaseStarting), there(runtime.StateCreated), granted(0), ended("stopped", "user_stop")},
		{"stop", stopped(workspace.PhaseRunning), there(runtime.StateRunning), progress{watched: true}, "term"},
		{"stop of what an agent before ran", stopped(workspace.PhaseRunning), there(runtime.StateRunning), progress{}, "adopt"},
		{"not ready in time", wanted(workspace.PhaseStarting), there(runtime.StateRunning),
			progress{watched: true, end: &workspace.RunReport{Reason: reasonNotReady}}, "term"},
		{"not ready in time, grace over", wanted(workspace.PhaseStarting), there(runtime.StateRunning),
			progress{watched: true, end: &workspace.RunReport{Reason: reasonNotReady}, termed: ago(30 * time.Second)}, "kill"},
		{"in grace", stopped(workspace.PhaseStopping), there(runtime.StateRunning), progress{watched: true, termed: ago(29 * time.Second), termSent: true}, "nothing until 1s"},
		{"in grace, TERM not sent", stopped(workspace.PhaseStopping), there(runtime.StateRunning), progress{watched: true, termed: ago(29 * time.Second)}, "term"},
		{"grace over", stopped(workspace.PhaseStopping), there(runtime.StateRunning), progress{watched: true, termed: ago(30 * time.Second)}, "kill"},
		{"just killed", stopped(workspace.PhaseStopping), there(runtime.StateRunning),
			progress{watched: true, termed: ago(time.Minute), killed: ago(time.Second), killNext: tableNow + 9*time.Second}, "nothing until 9s"},
		{"doesn't die", stopped(workspace.PhaseStopping), there(runtime.StateRunning),
			progress{watched: true, termed: ago(time.Minute), killed: ago(killPatience), killNext: tableNow}, "stuck"},
		{"still doesn't die", unreleased(workspace.PhaseFailed), there(runtime.StateRunning),
			progress{watched: true, killed: ago(time.Minute), killNext: tableNow, stuck: true}, "kill"},
		{"killed and ended", stopped(workspace.PhaseStopping), there(runtime.StateExited), progress{killed: ago(killPatience)}, ended("stopped", "user_stop")},
		{"can't be deleted", wanted(workspace.PhaseRunning), there(runtime.StateExited),
			progress{end: end, undeleted: ago(killPatience - 1)}, ended("failed", reasonImageMissing)},
		{"can't be deleted for long", wanted(workspace.PhaseRunning), there(runtime.StateExited),
			progress{end: end, undeleted: ago(killPatience)}, "end failed image_missing"},
		{"couldn't be deleted, and runs after all", wanted(workspace.PhaseRunning), there(runtime.StateRunning),
			progress{end: end, undeleted: ago(killPatience), watched: true}, "kill"},
		{"can't be deleted, end reported", wanted(workspace.PhaseRunning), there(runtime.StateExited),
			progress{end: end, endSent: true, undeleted: ago(killPatience)}, ended("failed", reasonImageMissing)},
		{"ended after TERM", stopped(workspace.PhaseStopping), exited(runtime.Exit{Known: true, Code: 143}), progress{termed: ago(time.Second)}, ended("stopped", "user_stop")},
		{"ended, nobody saw how, but asked to", stopped(workspace.PhaseStopping), exited(runtime.Exit{}), progress{}, ended("stopped", "user_stop")},
		{"stopped and gone", stopped(workspace.PhaseStopping), nil, progress{}, "end stopped user_stop"},

		// The cluster has ended it.
		{"ended there, running here", unreleased(workspace.PhaseLost), there(runtime.StateRunning), progress{watched: true}, "kill"},
		{"ended there, left here", unreleased(workspace.PhaseFailed), there(runtime.StateExited), progress{}, "delete"},
		{"ended there, gone here", unreleased(workspace.PhaseFailed), nil, progress{}, "release"},
		{"ended there and released", wanted(workspace.PhaseFailed), nil, progress{}, "nothing"},

		// Orphans.
		{"orphan", nil, there(runtime.StateRunning), progress{}, "ask"},
		{"orphan, ended", nil, there(runtime.StateRunning), progress{answer: answered(2, 20, true, true), watched: true}, "kill"},
		{"orphan, ended, exited", nil, there(runtime.StateExited), progress{answer: answered(2, 99, true, true)}, "delete"},
		{"orphan, ended, but in an older view", nil, there(runtime.StateRunning), progress{answer: answered(2, 19, true, true)}, "ask"},
		{"orphan, unknown in an older view", nil, there(runtime.StateRunning), progress{answer: answered(2, 19, false, false)}, "ask"},
		{"orphan, answer of another cluster", nil, there(runtime.StateRunning),
			progress{answer: &workspace.GoAheadAnswer{Cluster: "cluster-2", Known: true, Ended: true, At: gpu.Epoch{Incarnation: 2, Index: 99}}}, "ask"},
		{"orphan, still wanted", nil, there(runtime.StateRunning), progress{answer: answered(2, 99, true, false)}, "ask"},
		{"orphan, unknown", nil, there(runtime.StateRunning), progress{answer: answered(2, 99, false, false)}, "quarantine unknown_run"},
		{"orphan, ended after a restore", nil, there(runtime.StateRunning), progress{answer: answered(3, 5, true, true)}, "quarantine earlier_incarnation"},
		{"orphan of another cluster", nil, foreign(), progress{answer: answered(2, 99, true, true)}, "quarantine other_cluster"},
		{"not one of ours", nil, unlabelled(), progress{}, "quarantine not_ours"},
		{"in quarantine", nil, unlabelled(), progress{quarantine: "not_ours"}, "nothing"},
		{"gone, network left", nil, nil, progress{attached: true, mounted: "v"}, "detach"},
		{"gone, volume left", nil, nil, progress{mounted: "v"}, "unmount"},
		{"reaped", nil, nil, progress{orphaned: []workspace.Release{{Device: "GPU-1"}}}, "release"},
		{"reaped and released", nil, nil, progress{orphaned: []workspace.Release{{Device: "GPU-1"}}, released: true}, "forget"},
		{"reassigned", wanted(workspace.PhaseRunning), there(runtime.StateRunning), progress{quarantine: "unknown_run"}, "adopt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := input{assignment: test.assignment, container: test.container, cluster: "cluster-1", boot: "boot-1", guarded: true, progress: told(test.assignment, test.progress), now: tableNow}
			if got := describe(step(in)); got != test.want {
				t.Errorf("step: %s, want %s", got, test.want)
			}
		})
	}
}

// While something is prepared beside the loop, its result is waited for, also
// by what would take it away.
func TestStepWaitsForWhatIsUnderWay(t *testing.T) {
	for _, a := range []*workspace.Assignment{wanted(workspace.PhasePulling), stopped(workspace.PhasePulling), nil} {
		in := input{assignment: a, cluster: "cluster-1", busy: true, progress: progress{attached: true}, now: tableNow}
		if got := describe(step(in)); got != "nothing" {
			t.Errorf("%+v: %s", a, got)
		}
	}
	probing := input{assignment: probed(workspace.PhaseStarting), container: there(runtime.StateRunning), probing: true}
	probing.progress = told(probing.assignment, progress{watched: true})
	if got := describe(step(probing)); got != "nothing" {
		t.Errorf("while it is probed: %s", got)
	}
}

// What is there can't be looked at: what may run is ended in time all the same,
// and nothing else is done on old knowledge.
func TestStepBlindly(t *testing.T) {
	orphan := progress{answer: answered(2, 20, true, true)}
	for _, test := range []struct {
		name       string
		assignment *workspace.Assignment
		container  *runtime.Container
		progress   progress
		want       string
	}{
		{"nothing seen yet", wanted(workspace.PhaseRunning), nil, progress{}, "nothing"},
		{"nothing seen yet, to stop", stopped(workspace.PhaseRunning), nil, progress{}, "nothing"},
		{"nothing seen yet, no run", nil, nil, progress{}, "nothing"},
		{"created", wanted(workspace.PhaseStarting), there(runtime.StateCreated), progress{}, "nothing"},
		{"running", wanted(workspace.PhaseRunning), there(runtime.StateRunning), progress{}, "nothing"},
		{"exited", stopped(workspace.PhaseStopping), there(runtime.StateExited), progress{}, "nothing"},
		{"stop", stopped(workspace.PhaseRunning), there(runtime.StateRunning), progress{}, "term"},
		{"in grace", stopped(workspace.PhaseStopping), there(runtime.StateRunning), progress{termed: ago(29 * time.Second), termSent: true}, "nothing until 1s"},
		{"grace over", stopped(workspace.PhaseStopping), there(runtime.StateRunning), progress{termed: ago(30 * time.Second)}, "kill"},
		{"ended there", unreleased(workspace.PhaseLost), there(runtime.StateRunning), progress{}, "kill"},
		{"orphan", nil, there(runtime.StateRunning), orphan, "kill"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := input{assignment: test.assignment, container: test.container, cluster: "cluster-1", boot: "boot-1", guarded: true, blind: true, progress: told(test.assignment, test.progress), now: tableNow}
			if got := describe(step(in)); got != test.want {
				t.Errorf("step: %s, want %s", got, test.want)
			}
		})
	}
}

// told gives a container the notice of its assignment, unless it has another.
func told(a *workspace.Assignment, p progress) progress {
	if a != nil && p.noticed == "" {
		p.noticed = noticeOf(a)
	}
	return p
}

func describe(a action) string {
	text := string(a.do)
	if a.until != 0 {
		text += " until " + (a.until - tableNow).String()
	}
	if a.end != nil {
		text += " " + string(a.end.Phase) + " " + a.end.Reason
	}
	if a.reason != "" {
		text += " " + a.reason
	}
	return text
}

// What people read of an end says what happened and what to do.
func TestEndsSayWhatHappened(t *testing.T) {
	code := func(n int) *int { return &n }
	for _, test := range []struct {
		exit runtime.Exit
		want workspace.RunReport
	}{
		{runtime.Exit{Known: true, Code: 3}, workspace.RunReport{Phase: workspace.PhaseFailed, Reason: "exited",
			Message: "exit code 3 after 1.5 s; its output is in logs/run-1.log of the node's data directory", ExitCode: code(3), LivedMS: 1500}},
		{runtime.Exit{Known: true}, workspace.RunReport{Phase: workspace.PhaseSucceeded, Reason: "exited",
			Message: "exit code 0 after 1.5 s", ExitCode: code(0), LivedMS: 1500}},
		{runtime.Exit{Known: true, Code: 1, OOM: true}, workspace.RunReport{Phase: workspace.PhaseFailed, Reason: "child_oom_killed",
			Message: "one of its processes was killed when all together used more than the memory limit of 512 MiB, and its main process " +
				"ended with exit code 1 after 1.5 s; give it more memory", ExitCode: code(1), OOM: true, LivedMS: 1500}},
		{runtime.Exit{Known: true, OOM: true}, workspace.RunReport{Phase: workspace.PhaseSucceeded, Reason: "exited",
			Message: "exit code 0 after 1.5 s; one of its processes was killed for the memory limit of 512 MiB on the way", ExitCode: code(0), OOM: true, LivedMS: 1500}},
		{runtime.Exit{Known: true, Code: 137, OOM: true}, workspace.RunReport{Phase: workspace.PhaseFailed, Reason: "oom_killed",
			Message: "used more than its memory limit of 512 MiB after 1.5 s; give it more memory", ExitCode: code(137), OOM: true, LivedMS: 1500}},
	} {
		test.want.Run, test.want.Epoch = "run-1", epochAt(20)
		got := step(input{assignment: wanted(workspace.PhaseRunning), container: exited(test.exit), now: tableNow,
			progress: progress{life: life{Started: 1000}, exited: 2500}}).end
		if diff := cmp.Diff(&test.want, got); diff != "" {
			t.Errorf("exit %d: %s", test.exit.Code, diff)
		}
	}
}

func TestLabelsTellWhereAContainerIsFrom(t *testing.T) {
	a := wanted(workspace.PhaseAssigned)
	a.Devices = append(a.Devices, workspace.Allotment{UUID: "GPU-2", Milli: 300})
	got, err := originOf(&runtime.Container{ID: "run-1", Labels: labelsOf("cluster-1", a)})
	if err != nil {
		t.Fatal(err)
	}
	want := origin{cluster: "cluster-1", epoch: a.Epoch, devices: a.Devices}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(origin{})); diff != "" {
		t.Error(diff)
	}
	for _, label := range []string{ClusterLabel, labelRun, labelIncarnation, labelIndex} {
		labels := labelsOf("cluster-1", a)
		delete(labels, label)
		if _, err := originOf(&runtime.Container{ID: "run-1", Labels: labels}); err == nil {
			t.Errorf("a container without %s counts as ours", label)
		}
	}
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
