package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// worker looks after one run, or one container without a run, in a goroutine
// of its own, so that a slow one holds up no other.
type worker struct {
	agent *Agent
	run   string
	wake  chan struct{}
	exits chan ended

	results chan *job // that are done

	// These belong to Agent.mu.
	changed bool                        // the cluster orders something else
	suspect bool                        // the runtime's list contradicts known
	known   runtime.State               // of the container; empty: none
	ranOnce bool                        // its container ran, or has ended
	waiting bool                        // for something that another run has
	secrets map[string]workspace.Secret // of the run; its assignment has them only until it runs
	shown   shown

	// These are the loop's own.
	container *runtime.Container
	stale     bool // container has to be read again
	progress  progress
	failures  int           // in a row
	creations int           // failed ones
	misses    int           // failed looks at the container, in a row
	adopted   bool          // its container was there when this agent came, or was started by it
	lookAt    time.Duration // it isn't looked at before
	trying    time.Duration // when what must work before a start failed first, in a row; 0: it doesn't fail
	preparing *job          // fetches the image, or prepares volume and network
	probing   *job
}

// ended is what Wait said of the worker's container.
type ended struct {
	exit runtime.Exit
	err  error
}

// loop steps until the run is gone or ctx ends. Its error is fatal to the agent.
func (w *worker) loop(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx) // ends a wait that is still going on
	defer cancel()
	for ctx.Err() == nil {
		in := w.observe(ctx)
		next := step(in)
		switch next.do {
		case doNothing:
			w.pause(ctx, next.until)
		case doForget:
			if w.agent.retire(w) {
				return nil
			}
		default:
			if err := w.carryOut(ctx, next, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// observe gathers what step looks at.
func (w *worker) observe(ctx context.Context) input {
	a := w.agent
	a.mu.Lock()
	assignment := a.assignments[w.run]
	if w.changed {
		w.progress.retryAt, w.failures = 0, 0
	}
	w.stale = w.stale || w.suspect
	w.changed, w.suspect = false, false
	if assignment != nil {
		w.learnSecrets(assignment)
	}
	a.mu.Unlock()
	if w.stale && a.cfg.Boottime() >= w.lookAt {
		w.inspect(ctx)
	}
	if assignment != nil && w.progress.quarantine != "" {
		w.progress.quarantine = ""
		a.setOrphan(w.run, nil)
	}
	w.show()
	in := w.input()
	w.callOffJobs(&in)
	return in
}

// input is what step looks at, as far as it is known now.
func (w *worker) input() input {
	a := w.agent
	a.mu.Lock()
	assignment, cluster := a.assignments[w.run], a.cluster
	a.mu.Unlock()
	return input{
		assignment: assignment,
		container:  w.container,
		cluster:    cluster,
		boot:       a.cfg.BootID,
		guarded:    a.cfg.Guard != nil,
		blind:      w.stale,
		busy:       w.preparing != nil,
		probing:    w.probing != nil,
		progress:   w.progress,
		now:        a.cfg.Boottime(),
	}
}

// learnSecrets keeps what must not be quoted of an assignment.
func (w *worker) learnSecrets(a *workspace.Assignment) {
	if len(a.Secrets) == 0 && a.Login == nil {
		return
	}
	secrets := maps.Clone(a.Secrets)
	if a.Login != nil {
		if secrets == nil {
			secrets = map[string]workspace.Secret{}
		}
		secrets["registry password"] = a.Login.Password // no variable's name has a blank
	}
	w.secrets = secrets
}

// inspect looks at the container. Where that fails it is looked at again later,
// and stale until then.
func (w *worker) inspect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	c, err := w.agent.cfg.Runtime.Inspect(ctx, w.run)
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		w.setContainer(nil)
	case err != nil:
		w.misses++
		w.lookAt = w.agent.cfg.Boottime() + backOff(w.misses)
		w.failed("look at the container", err)
		return
	default:
		w.setContainer(&c)
	}
	w.stale, w.misses, w.lookAt = false, 0, 0
}

// setContainer notes what is there now. When it is nothing, what was done to
// the container that was there counts no more.
func (w *worker) setContainer(c *runtime.Container) {
	p := &w.progress
	if c == nil || c.State == runtime.StateExited && (w.container == nil || w.container.State != c.State) {
		p.consulted = false // it may have ended it
	}
	w.container = c
	state := runtime.State("")
	if c == nil {
		p.claimed, p.watched, p.termed, p.termSent, p.killed, p.killNext = false, false, 0, false, 0, 0
		p.undeleted, p.obstacle, p.spoiled = 0, "", false
	} else {
		state = c.State
		if state == runtime.StateExited && c.Exit.Known {
			p.exited = w.onBootClock(c.Exit.At).Milliseconds()
		}
		from, _ := originOf(c)
		w.agent.ledger.adopt(w.run, from.devices)
		w.agent.uses.adopt(w.run, usesOfContainer(c)...)
		w.progress.attached = true
		if from.volume != "" {
			w.progress.mounted = from.volume
		}
	}
	w.agent.mu.Lock()
	w.known = state
	w.ranOnce = w.ranOnce || state == runtime.StateRunning || state == runtime.StateExited
	w.agent.mu.Unlock()
}

// pause waits until something changed, the container's process ended, the
// container is to be looked at again, or the boot clock shows until (0: never).
func (w *worker) pause(ctx context.Context, until time.Duration) {
	if until == 0 || w.lookAt != 0 && w.lookAt < until {
		until = w.lookAt
	}
	var due <-chan time.Time
	if until != 0 {
		timer := time.NewTimer(until - w.agent.cfg.Boottime())
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
	case <-due:
	case end := <-w.exits:
		w.ended(end)
	case done := <-w.results:
		done.deliver(w.input())
	}
}

func (w *worker) ended(end ended) {
	w.progress.watched = false
	if end.err != nil {
		w.stale = true
		return
	}
	if w.container != nil {
		c := *w.container
		c.State, c.Pid, c.Exit = runtime.StateExited, 0, end.exit
		w.setContainer(&c)
	}
}

// watch waits for the end of the container's process beside the loop.
func (w *worker) watch(ctx context.Context) {
	w.progress.watched = true
	w.agent.group.Go(func() error {
		exit, err := w.agent.cfg.Runtime.Wait(ctx, w.run)
		if err != nil { // a runtime that is away isn't asked in a tight circle
			sleep(ctx, firstBackOff, nil)
		}
		select {
		case <-ctx.Done():
		case w.exits <- ended{exit, err}:
		}
		return nil
	})
}

// retryLater holds the run back for a while after a failure.
func (w *worker) retryLater(what string, err error) {
	w.failures++
	w.progress.retryAt = w.agent.cfg.Boottime() + backOff(w.failures)
	w.failed(what, err)
}

// failed tells the log of a failure, and has a runtime that doesn't answer
// shown as such soon.
func (w *worker) failed(what string, err error) {
	w.agent.warn("an action on a run failed; it will be tried again", w.redact(err), "run", w.run, "action", what)
	if errors.Is(err, runtime.ErrUnavailable) {
		nudge(w.agent.lookNow)
	}
}

// report queues a phase that the run has reached; one that it was in or past
// already, as the cluster has it, needs no report.
func (w *worker) report(in input, phase workspace.Phase, reason, message string) {
	if !in.phase().CanBecome(phase) {
		return
	}
	w.send(in.assignment, phase, reason, message)
}

// explain tells why the run doesn't get further in its phase.
func (w *worker) explain(in input, reason, message string) {
	w.tell(in, workspace.PhasePulling, reason, message)
}

// tell queues a reason and a message, with the phase or the further one that
// the run is in; once, until there is another to tell. A run that has ended has
// its own.
func (w *worker) tell(in input, phase workspace.Phase, reason, message string) {
	if in.assignment == nil || in.phase().Terminal() {
		return
	}
	if !in.phase().CanBecome(phase) {
		phase = in.phase()
	}
	if w.progress.phase != phase || w.progress.reason != reason {
		w.send(in.assignment, phase, reason, message)
	}
}

func (w *worker) send(a *workspace.Assignment, phase workspace.Phase, reason, message string) {
	w.progress.phase, w.progress.reason = phase, reason
	in := w.input()
	run := workspace.RunReport{Run: a.Run, Epoch: a.Epoch, Phase: phase, Reason: reason, Message: message, LivedMS: in.livedMS()}
	if phase == workspace.PhaseRunning {
		run.Access = w.agent.ledger.access(a, w.agent.cfg.Publish.Address)
	}
	w.agent.reports.add(workspace.Report{Runs: []workspace.RunReport{run}})
}
