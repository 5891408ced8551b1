package agent

import (
	"fmt"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// bound is when a run is asked to end and when it is killed, in ms on the boot
// clock. Zero: never.
type bound struct {
	Term int64 `json:"term_ms"`
	Kill int64 `json:"kill_ms"`
}

// life is what is kept of a run's process, in ms on the clock of one boot.
type life struct {
	BootID  string `json:"boot_id"`
	Started int64  `json:"started_ms,omitempty"` // just after its process started; 0: it hasn't
	Lived   int64  `json:"lived_ms,omitempty"`   // for certain
	Lease   bound  `json:"lease,omitzero"`       // the end of its lease, as the guard has acknowledged it
	Max     bound  `json:"max,omitzero"`         // of its max_duration, likewise
}

// end is the earlier of the two, with the reason that the run ends for then.
func (l *life) end() (bound, string) {
	switch {
	case l.Lease.Kill == 0 && l.Max.Kill == 0:
		return bound{}, ""
	case l.Max.Kill == 0 || l.Lease.Kill != 0 && l.Lease.Kill <= l.Max.Kill:
		return l.Lease, reasonLeaseExpired
	}
	return l.Max, reasonMaxDuration
}

// startSlack is how much later than wanted the guard ends a run with
// max_duration of which it isn't known yet when it started: as long as a start
// may take, twice.
const startSlack = 2 * actionTimeout

func (in *input) nowMS() int64 { return in.now.Milliseconds() }

// bounds are those that the run is to have now. A lease's end only moves later,
// and one of another boot is none; a run without a lease has no such end.
func (in *input) bounds() (lease, most bound) {
	a, held := in.assignment, &in.progress.life
	if l := a.Lease; l != nil {
		lease = held.Lease
		if l.End.BootID == in.boot && l.End.BoottimeMS > held.Lease.Kill {
			lease = bound{Term: l.TermAt(a.Spec.StopGrace), Kill: l.End.BoottimeMS}
		}
	}
	if limit := a.Spec.MaxDuration * 1000; limit > 0 {
		most.Kill = held.Started + limit
		if held.Started == 0 {
			latest := in.nowMS() + actionTimeout.Milliseconds() + limit // of a start now
			if most.Kill = held.Max.Kill; most.Kill < latest {
				most.Kill = in.nowMS() + startSlack.Milliseconds() + limit
			}
		}
		most.Term = most.Kill - min(graceOf(a).Milliseconds(), limit/2)
	}
	return lease, most
}

// awaitsLease: the run may not start before its lease is granted. A grant that
// is nearly over is none.
func (in *input) awaitsLease() bool {
	if in.assignment.Lease == nil {
		return false
	}
	lease, _ := in.bounds()
	return lease.Kill == 0 || in.nowMS() >= lease.Term
}

// toGuard: the guard doesn't hold the end that the run is to have.
func (in *input) toGuard() bool {
	l := &in.progress.life
	lease, most := in.bounds()
	end, _ := l.end()
	return lease != l.Lease || most != l.Max || in.progress.unguarded && end.Kill != 0
}

// toConsult: what the guard did to the run, or holds of it, has to be asked.
func (in *input) toConsult() bool {
	p := &in.progress
	end, _ := p.life.end()
	ended := in.container == nil || in.container.State == runtime.StateExited
	limited := in.assignment.Lease != nil || in.assignment.Spec.MaxDuration > 0
	return in.guarded && (end.Kill != 0 || ended && limited) && !p.consulted && p.end == nil
}

// isDue: the run's end has come, by this clock or by the guard's word.
func (in *input) isDue() bool {
	end, _ := in.progress.life.end()
	e := in.progress.entry
	return end.Kill != 0 && (in.nowMS() >= end.Term || e != nil && (e.Termed != 0 || e.Killed != 0))
}

// isOverdue: the run's end can't wait for another try of something else.
func (in *input) isOverdue() bool {
	next := in.nextEnd()
	return next != 0 && in.now >= next
}

// nextEnd is the moment at which the run's end needs the agent next; 0: none.
func (in *input) nextEnd() time.Duration {
	p := &in.progress
	end, _ := p.life.end()
	switch {
	case end.Kill == 0 || in.assignment == nil || in.assignment.Phase.Terminal() || in.container == nil || in.container.State != runtime.StateRunning || p.killed != 0:
		return 0
	case !in.unwanted():
		return ms(end.Term)
	}
	return ms(end.Kill)
}

// killAt is when the grace of a run that ends is over: its lease may end before.
func (in *input) killAt() time.Duration {
	at := in.progress.termed + graceOf(in.assignment)
	if end, _ := in.progress.life.end(); end.Kill != 0 {
		at = min(at, ms(end.Kill))
	}
	return at
}

// endedByGuard: the guard ended the run's process, or had asked it to end. Where
// it can't say, what ended then counts as ended for that.
func (in *input) endedByGuard() bool {
	const inaccuracy = 100 // ms, of the runtime's word when it was, which is on the wall clock
	p := &in.progress
	if p.entry == nil {
		end, _ := p.life.end()
		return end.Kill != 0 && p.exited != 0 && p.exited+inaccuracy >= end.Term
	}
	first := p.entry.Termed
	if first == 0 {
		first = p.entry.Killed
	}
	return first != 0 && (p.exited == 0 || p.exited+inaccuracy >= first)
}

// endedUnstarted: the guard ended the container while it waited for its start,
// which took longer than the lease.
func (in *input) endedUnstarted() bool {
	c := in.container
	return c != nil && c.State == runtime.StateExited && c.StartedAt.IsZero() && in.progress.life.Started == 0 &&
		in.assignment.Desired != workspace.RunStopping && in.endedByGuard()
}

// expiry is the end of a run whose time is over.
func (in *input) expiry() *workspace.RunReport {
	a := in.assignment
	if _, reason := in.progress.life.end(); reason == reasonMaxDuration {
		return endWith(a, workspace.PhaseFailed, reasonMaxDuration, fmt.Sprintf(
			"it ran for as long as it may: its max_duration is %s", time.Duration(a.Spec.MaxDuration)*time.Second))
	}
	message := "its lease is over, and it wasn't renewed"
	if a.Lease != nil && !a.Lease.PaidUntil.IsZero() {
		message += "; its time was paid until " + a.Lease.PaidUntil.UTC().Format(time.RFC3339)
	}
	return endWith(a, workspace.PhaseStopped, reasonLeaseExpired, message)
}

// livedMS is how long the run's process has lived, and never more.
func (in *input) livedMS() int64 {
	p := &in.progress
	switch l := &p.life; {
	case l.Started == 0 || l.BootID != in.boot:
		return l.Lived
	case p.exited != 0:
		return max(0, p.exited-l.Started)
	case in.container != nil && in.container.State == runtime.StateRunning:
		return max(0, in.nowMS()-l.Started)
	default:
		return l.Lived
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
