package agent

import (
	"time"

	"berth/agent/guard"
	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// input is all that step looks at.
type input struct {
	assignment *workspace.Assignment // nil: none in the latest view
	container  *runtime.Container    // nil: none here
	cluster    string                // whose view it is
	boot       string                // of this host
	guarded    bool                  // there is a guard
	blind      bool                  // the runtime can't say what is there now: container is as last seen
	busy       bool                  // the image, or volume and network, are being prepared beside the loop
	probing    bool                  // the container is asked beside the loop whether it is ready
	progress   progress
	now        time.Duration // on the boot clock, never 0
}

// progress is what this agent has done for a run so far. It starts empty in
// each agent, but for end, termed and life. Times are on the boot clock; 0 is "not
// yet".
type progress struct {
	phase      workspace.Phase // last reported
	reason     string          // with it
	image      string          // the reference here that has the pinned digest
	claimed    bool            // devices are ours, epochs are on disk
	prepared   *prepared       // volume and network are there
	moved      string          // which of its ports are published elsewhere than before, as a sentence
	attached   bool            // there may be an attachment
	mounted    string          // volume that may be mounted for the run
	asked      time.Duration   // when the latest answered question was sent
	answer     *workspace.GoAheadAnswer
	life       life                 // of the process
	exited     int64                // when it ended, ms on the boot clock; 0: it hasn't, or nobody knows
	consulted  bool                 // the guard was asked, since the process ended or this agent began
	entry      *guard.Entry         // what it said; nil: it has nothing of the run
	unguarded  bool                 // it doesn't hold the end that it should
	spoiled    bool                 // it has ended the container before that was started
	guardTries int                  // failed ones, in a row
	guardAt    time.Duration        // it isn't asked before
	noticed    string               // what the container can read
	watched    bool                 // somebody waits for the process's end
	termed     time.Duration        // when the grace began: the first try to send TERM
	termSent   bool                 // by this agent
	killed     time.Duration        // when the first KILL was
	killNext   time.Duration        // when the next one is due
	stuck      bool                 // reported as unkillable
	undeleted  time.Duration        // when deleting the container failed first
	obstacle   string               // why it fails
	end        *workspace.RunReport // how the run ended, once decided
	endSent    bool
	released   bool
	withheld   time.Duration       // when giving the devices back failed first
	withheldBy string              // why, as was reported
	orphaned   []workspace.Release // what to release for a reaped container
	quarantine string              // why its container is in quarantine
	retryAt    time.Duration       // nothing is tried before
}

// verb is what an action does.
type verb string

// The verbs, in the order in which a run meets them.
const (
	doNothing    verb = "nothing" // until something changes, or until comes
	doPull       verb = "pull"
	doClaim      verb = "claim"
	doPrepare    verb = "prepare"
	doAsk        verb = "ask"
	doCreate     verb = "create"
	doAwaitLease verb = "await-lease"
	doGuard      verb = "guard"
	doStart      verb = "start"
	doAdopt      verb = "adopt"
	doConsult    verb = "consult"
	doNotice     verb = "notice"
	doExpire     verb = "expire"
	doProbe      verb = "probe"
	doTerm       verb = "term"
	doKill       verb = "kill"
	doStuck      verb = "stuck"
	doDelete     verb = "delete"
	doEnd        verb = "end"
	doDetach     verb = "detach"
	doUnmount    verb = "unmount"
	doRelease    verb = "release"
	doQuarantine verb = "quarantine"
	doForget     verb = "forget"
)

// action is the one thing to do next for a run.
type action struct {
	do     verb
	until  time.Duration        // doNothing: look again then; 0: only when something changes
	end    *workspace.RunReport // doDelete, doEnd: how the run ended; nil: not decided, or not ours to say
	reason string               // doQuarantine
}

// step names the next action for one run. It is pure, and right from any
// state: what an earlier agent left half done is just another input.
func step(in input) action {
	p := &in.progress
	switch {
	case in.now < p.retryAt && !in.isOverdue():
		return action{do: doNothing, until: sooner(p.retryAt, in.nextEnd())}
	case in.endOverdue():
		return action{do: doEnd, end: endWithRemains(p)}
	case in.busy: // its result is the next thing to look at, also when it was called off
		return action{do: doNothing}
	case in.blind && (in.container == nil || in.container.State != runtime.StateRunning):
		return action{do: doNothing}
	case in.assignment == nil && in.container == nil:
		return stepForgotten(in)
	case in.assignment == nil:
		return stepOrphan(in)
	case in.container == nil && in.over():
		return stepGone(in)
	case in.container == nil:
		return stepLaunch(in)
	case in.unwanted():
		return stepEnding(in)
	}
	return stepWanted(in)
}

// stepLaunch: wanted, and no container.
func stepLaunch(in input) action {
	switch p := &in.progress; {
	case p.image == "":
		return action{do: doPull}
	case !p.claimed:
		return action{do: doClaim}
	case p.prepared == nil:
		return action{do: doPrepare}
	case in.awaitsLease():
		return stepWaiting(in)
	case !in.mayStart():
		return action{do: doAsk}
	}
	return action{do: doCreate}
}

// stepWanted: wanted, and there is a container.
func stepWanted(in input) action {
	switch in.container.State {
	case runtime.StateRunning:
		return stepRunning(in)
	case runtime.StateCreated:
		switch {
		case in.container.Pid == 0, in.progress.spoiled: // a crash left it without a task: it can't be started
			return action{do: doDelete, end: endOf(in)}
		case in.awaitsLease():
			return stepWaiting(in)
		case !in.mayStart():
			return action{do: doAsk}
		case in.toGuard():
			return action{do: doGuard}
		}
		return action{do: doStart}
	}
	return stepEnded(in)
}

// stepRunning: wanted, and its process lives.
func stepRunning(in input) action {
	p := &in.progress
	look := in.toConsult() || in.toGuard()
	switch {
	case !p.watched && !in.blind:
		return action{do: doAdopt}
	case in.isDue():
		return action{do: doExpire}
	case in.toConsult() && in.now >= p.guardAt:
		return action{do: doConsult}
	case in.toGuard() && in.now >= p.guardAt:
		return action{do: doGuard}
	case p.noticed != noticeOf(in.assignment):
		return action{do: doNotice}
	case in.toProbe() && !in.probing:
		return action{do: doProbe}
	case look:
		return action{do: doNothing, until: sooner(p.guardAt, in.nextEnd())}
	}
	return action{do: doNothing, until: in.nextEnd()}
}

// stepWaiting: all is ready but the lease.
func stepWaiting(in input) action {
	if in.progress.reason != reasonNoLease {
		return action{do: doAwaitLease}
	}
	return action{do: doNothing}
}

// stepEnded: its process has ended, and the guard may know more of that.
func stepEnded(in input) action {
	switch {
	case !in.toConsult():
		return action{do: doDelete, end: endOf(in)}
	case in.now < in.progress.guardAt:
		return action{do: doNothing, until: in.progress.guardAt}
	}
	return action{do: doConsult}
}

// sooner is the earlier of two moments; 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// asksFirst are the decided ends that a run has its grace for.
var asksFirst = map[string]bool{reasonNotReady: true, reasonLeaseExpired: true, reasonMaxDuration: true}

// stepEnding: there is a container and it must go. TERM and grace are for runs
// that the cluster still has; what it has ended, and what has failed otherwise
// than by not getting ready, is killed at once. Neither the end of a grace nor
// KILL waits for a runtime that doesn't answer.
func stepEnding(in input) action {
	p := &in.progress
	gentle := in.assignment != nil && !in.assignment.Phase.Terminal() &&
		(p.end == nil || asksFirst[p.end.Reason]) && p.killed == 0 && !in.isOverdue()
	graceEnd := in.killAt()
	switch {
	case in.container.State == runtime.StateExited && in.assignment != nil:
		return stepEnded(in)
	case in.container.State != runtime.StateRunning:
		return action{do: doDelete, end: endOf(in)}
	case p.killed != 0 && !p.stuck && in.now >= p.killed+killPatience:
		return action{do: doStuck}
	case !p.watched && !in.blind:
		return action{do: doAdopt}
	case gentle && (p.termed == 0 || !p.termSent && in.now < graceEnd):
		return action{do: doTerm}
	case gentle && in.now < graceEnd:
		return action{do: doNothing, until: graceEnd}
	case in.now >= p.killNext:
		return action{do: doKill}
	}
	return action{do: doNothing, until: p.killNext}
}

// stepGone: the run is over and there is no container.
func stepGone(in input) action {
	p, a := &in.progress, in.assignment
	switch {
	case !a.Phase.Terminal() && !p.endSent && in.toConsult():
		if in.now < p.guardAt {
			return action{do: doNothing, until: p.guardAt}
		}
		return action{do: doConsult}
	case !a.Phase.Terminal() && !p.endSent:
		return action{do: doEnd, end: endOf(in)}
	case p.attached:
		return action{do: doDetach}
	case p.mounted != "":
		return action{do: doUnmount}
	case a.Phase.Terminal() && !a.Unreleased:
		return action{do: doNothing}
	case !p.released:
		return action{do: doRelease}
	}
	return action{do: doNothing}
}

// stepForgotten: neither assignment nor container.
func stepForgotten(in input) action {
	switch p := &in.progress; {
	case p.attached:
		return action{do: doDetach}
	case p.mounted != "":
		return action{do: doUnmount}
	case len(p.orphaned) > 0 && !p.released:
		return action{do: doRelease}
	}
	return action{do: doForget}
}

// stepOrphan: a container that nobody here has assigned. It is ended only when
// a verified view, at or above its label, says that its run has ended.
func stepOrphan(in input) action {
	from, err := originOf(in.container)
	answer := in.progress.answer
	switch {
	case err != nil:
		return in.quarantine("not_ours")
	case from.cluster != in.cluster:
		return in.quarantine("other_cluster")
	case answer == nil || answer.Cluster != in.cluster || answer.At.Less(from.epoch):
		return action{do: doAsk}
	case from.epoch.Incarnation < answer.At.Incarnation:
		return in.quarantine("earlier_incarnation")
	case !answer.Known:
		return in.quarantine("unknown_run")
	case !answer.Ended:
		return action{do: doAsk}
	}
	return stepEnding(in)
}

func (in *input) quarantine(reason string) action {
	if in.progress.quarantine == reason {
		return action{do: doNothing}
	}
	return action{do: doQuarantine, reason: reason}
}

// unwanted: the container, if there is one, has to go.
func (in *input) unwanted() bool {
	a := in.assignment
	return a.Desired == workspace.RunStopping || a.Phase.Terminal() || in.progress.end != nil
}

// over: no container will be made for the run any more. One that had a process
// and has no container ended unseen: a run is executed once.
func (in *input) over() bool {
	phase := in.phase()
	return in.unwanted() || phase == workspace.PhaseRunning || phase == workspace.PhaseStopping || in.progress.life.Started != 0
}

// toProbe: the run is starting until its container says that it is ready.
func (in *input) toProbe() bool {
	return in.assignment.Spec.Probe != nil && in.phase().CanBecome(workspace.PhaseRunning)
}

// endOverdue: the run's process has ended, how is known, and nothing but a
// container that can't be deleted keeps its end from being reported.
func (in *input) endOverdue() bool {
	p := &in.progress
	return in.assignment != nil && !in.assignment.Phase.Terminal() && p.end != nil && !p.endSent &&
		in.container != nil && in.container.State != runtime.StateRunning &&
		p.undeleted != 0 && in.now >= p.undeleted+killPatience
}

// phase is the further one of what the cluster has and what was reported.
func (in *input) phase() workspace.Phase {
	if in.assignment.Phase.CanBecome(in.progress.phase) {
		return in.progress.phase
	}
	return in.assignment.Phase
}

// mayStart: a go-ahead was given, and the window after its question is open.
func (in *input) mayStart() bool {
	p := &in.progress
	return p.answer != nil && p.answer.Start && in.now-p.asked <= workspace.GoAheadWindow
}

func graceOf(a *workspace.Assignment) time.Duration {
	if a == nil {
		return 0
	}
	return time.Duration(a.Spec.StopGrace) * time.Second
}

// releasesOf lists the devices that a run had.
func releasesOf(run string, epoch gpu.Epoch, devices []workspace.Allotment) []workspace.Release {
	releases := make([]workspace.Release, len(devices))
	for i, d := range devices {
		releases[i] = workspace.Release{Device: d.UUID, Run: run, Epoch: epoch}
	}
	return releases
}
