package workspace

import (
	"slices"
	"time"
)

// RestartMode says which ends of a run are followed by another run, while its
// instance is wanted running.
type RestartMode string

// The restart modes, from the one that restarts least.
const (
	RestartNever     RestartMode = "never"
	RestartOnLoss    RestartMode = "on-loss"    // its node was rebooted or lost
	RestartOnFailure RestartMode = "on-failure" // that, or its process failed
	RestartAlways    RestartMode = "always"     // whatever ended it but a stop
)

// RestartPolicy of an instance or a template. Empty: on-loss for interactive
// instances, never for jobs.
type RestartPolicy struct {
	Mode RestartMode `json:"mode,omitempty" enum:"never,on-loss,on-failure,always"`
	// MaxRestarts in a row before the instance stays FAILED; 0: without end. A
	// run that has lived for RestartSettled begins the count anew.
	MaxRestarts int `json:"max_restarts,omitempty" minimum:"0"`
}

// Restarts wait, twice as long each time, from the first to the longest.
const (
	FirstRestartDelay   = 5 * time.Second
	LongestRestartDelay = 5 * time.Minute
	RestartSettled      = 10 * time.Minute
)

// RestartDelay is how long the n-th restart in a row (from 1) waits.
func RestartDelay(n int) time.Duration {
	d := FirstRestartDelay
	for ; n > 1 && d < LongestRestartDelay; n-- {
		d *= 2
	}
	return min(d, LongestRestartDelay)
}

// Validate checks the mode and the count.
func (p RestartPolicy) Validate() error {
	modes := []RestartMode{"", RestartNever, RestartOnLoss, RestartOnFailure, RestartAlways}
	if !slices.Contains(modes, p.Mode) {
		return InvalidField("restart_policy.mode", "%q is none of never, on-loss, on-failure, always", p.Mode)
	}
	if p.MaxRestarts < 0 {
		return InvalidField("restart_policy.max_restarts", "%d is negative", p.MaxRestarts)
	}
	return nil
}

// ReasonRestartBackoff is why a run that follows another by policy isn't placed
// yet.
const ReasonRestartBackoff = "restart_backoff"

// ReasonMaxDuration is why a run has failed that was still there at the end of its
// max duration. It isn't started again: it would take as long.
const ReasonMaxDuration = "max_duration"

// Reasons that an agent, Apply and an API face all know a run's end by.
const (
	ReasonLeaseExpired = "lease_expired" // its time was over
	ReasonKillSwitch   = "kill_switch"   // why it is to stop
)

// Or fills in the mode that a kind of run has by default.
func (p RestartPolicy) Or(kind RunKind) RestartPolicy {
	if p.Mode != "" {
		return p
	}
	p.Mode = RestartOnLoss
	if kind == KindJob {
		p.Mode = RestartNever
	}
	return p
}

// Restarts reports whether a run that ended so is followed by another.
func (p RestartPolicy) Restarts(end Phase) bool {
	switch end {
	case PhaseLost:
		return p.Mode != RestartNever
	case PhaseFailed:
		return p.Mode == RestartOnFailure || p.Mode == RestartAlways
	case PhaseSucceeded:
		return p.Mode == RestartAlways
	}
	return false
}
