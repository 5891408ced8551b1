package workspace

import (
	"slices"
	"time"

	"berth/gpu"
)

// Phase of a run. It only moves forward.
type Phase string

// The phases in order. Apply writes pending, assigned and lost and every end of
// a run without a container; the node's agent writes the others.
const (
	PhasePending   Phase = "pending"
	PhaseAssigned  Phase = "assigned"
	PhasePulling   Phase = "pulling"
	PhaseStarting  Phase = "starting"
	PhaseRunning   Phase = "running"
	PhaseStopping  Phase = "stopping"
	PhaseSucceeded Phase = "succeeded"
	PhaseFailed    Phase = "failed"
	PhaseStopped   Phase = "stopped"
	PhaseLost      Phase = "lost"
)

var phaseOrder = map[Phase]int{
	PhasePending: 1, PhaseAssigned: 2, PhasePulling: 3, PhaseStarting: 4, PhaseRunning: 5,
	PhaseStopping: 6, PhaseSucceeded: 7, PhaseFailed: 7, PhaseStopped: 7, PhaseLost: 7,
}

// Terminal reports whether a run in this phase is over.
func (p Phase) Terminal() bool { return phaseOrder[p] == 7 }

// Active reports whether a run in this phase counts for concurrency and holds
// a place on a node: assigned to stopping.
func (p Phase) Active() bool { return phaseOrder[p] >= 2 && phaseOrder[p] <= 6 }

// CanBecome reports whether a run may go from p to next: forward only, and
// never out of an end.
func (p Phase) CanBecome(next Phase) bool {
	return phaseOrder[next] > 0 && !p.Terminal() && phaseOrder[next] > phaseOrder[p]
}

// ByAgent reports whether a node's agent may write this phase.
func (p Phase) ByAgent() bool {
	return slices.Contains([]Phase{PhasePulling, PhaseStarting, PhaseRunning, PhaseStopping,
		PhaseSucceeded, PhaseFailed, PhaseStopped}, p)
}

// RunDesired is what Apply wants of a run.
type RunDesired string

// What can be wanted of a run.
const (
	RunWanted   RunDesired = "run"
	RunStopping RunDesired = "stop"
)

// Run is one execution: one container on one node, never moved. The unit of
// placement, of concurrency and of cost. It carries its own frozen spec.
type Run struct {
	ID         string      `json:"id"`
	Instance   string      `json:"instance,omitempty"`
	Workspace  string      `json:"workspace"`
	User       string      `json:"user"`
	Kind       RunKind     `json:"kind"`
	Attempt    int         `json:"attempt"`
	Phase      Phase       `json:"phase"`
	Desired    RunDesired  `json:"desired"`
	Reason     string      `json:"reason"`
	Message    string      `json:"message"`
	StopReason string      `json:"stop_reason,omitempty"` // why Desired is stop
	Node       string      `json:"node,omitempty"`
	Devices    []Allotment `json:"devices"`
	Epoch      gpu.Epoch   `json:"epoch"` // of the entry that placed it
	Resources  Resources   `json:"resources"`
	Spec       RunSpec     `json:"spec"`
	Rate       int64       `json:"rate_micro_usd_per_hour"` // frozen by the entry that placed it
	Lease      *Lease      `json:"lease,omitempty"`         // of a live run: filled in for display
	Group      string      `json:"group,omitempty"`         // gang
	Rank       int         `json:"rank,omitempty"`
	Size       int         `json:"size,omitempty"`
	ExitCode   *int        `json:"exit_code,omitempty"`
	OOM        bool        `json:"oom_killed,omitempty"`
	Cost       int64       `json:"cost_micro_usd"`
	ChargedMS  int64       `json:"charged_ms"`
	UnpaidMS   int64       `json:"unpaid_ms"`
	Replaces   string      `json:"replaces,omitempty"`
	Unreleased bool        `json:"unreleased,omitempty"` // a device still waits for its node to confirm the release
	Counted    bool        `json:"counted,omitempty"`    // counts for the month already
	Restarts   int         `json:"restarts,omitempty"`   // by policy, in a row, before this run
	NotBefore  time.Time   `json:"not_before,omitzero"`  // it isn't placed earlier: a restart backs off
	Volume     string      `json:"volume,omitempty"`     // that it has, from the entry that placed it
	Month      int         `json:"month,omitempty"`      // in which it counts, see Month; 0: in none
	// ExpiresAt is when a waiting run that a limit keeps from being placed is
	// given up, or when the promise of an external run ends.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Warning says that it ends soon, and why.
	Warning *Warning `json:"warning,omitempty"`
	// ResultsUntil is when its result data (output and $BERTH_RESULTS) is
	// deleted, Results what has become of it.
	ResultsUntil time.Time `json:"results_until,omitzero"`
	Results      Results   `json:"results,omitempty" enum:"kept,deleting,deleted"`
	Name         string    `json:"name,omitempty"` // of an external run
	Times        RunTimes  `json:"times"`
	Since        time.Time `json:"since"` // of Phase
	ModifyIndex  uint64    `json:"modify_index"`
}

// Results is what has become of a run's result data.
type Results string

// What becomes of result data; empty: there never was any.
const (
	ResultsKept     Results = "kept"
	ResultsDeleting Results = "deleting" // ordered, its node hasn't confirmed it
	ResultsDeleted  Results = "deleted"
)

// RunTimes says when each phase began.
type RunTimes struct {
	Created  time.Time `json:"created"`
	Assigned time.Time `json:"assigned,omitzero"`
	Pulling  time.Time `json:"pulling,omitzero"`
	Starting time.Time `json:"starting,omitzero"`
	Running  time.Time `json:"running,omitzero"`
	Stopping time.Time `json:"stopping,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
}

// Mark notes when a phase began.
func (t *RunTimes) Mark(p Phase, at time.Time) {
	switch {
	case p == PhasePending:
		t.Created = at
	case p == PhaseAssigned:
		t.Assigned = at
	case p == PhasePulling:
		t.Pulling = at
	case p == PhaseStarting:
		t.Starting = at
	case p == PhaseRunning:
		t.Running = at
	case p == PhaseStopping:
		t.Stopping = at
	case p.Terminal():
		t.Ended = at
	}
}

// Allotment is what a run has of one device.
type Allotment struct {
	UUID  string `json:"uuid" cbor:"1,keyasint"`
	Milli int    `json:"milli" cbor:"2,keyasint"` // 1000 is the whole device
}

// RunSpec is a run's frozen, rendered spec.
type RunSpec struct {
	Image       string   `json:"image"`        // reference
	ImageDigest string   `json:"image_digest"` // pinned at admission
	Command     []string `json:"command,omitempty"`
	Env         []EnvVar `json:"env,omitempty"` // ${name} of a secret variable is filled on the node
	Ports       []Port   `json:"ports,omitempty"`
	VolumePath  string   `json:"volume_path,omitempty"`
	Probe       *Probe   `json:"probe,omitempty"`
	StopGrace   int      `json:"stop_grace_seconds"`
	Stoppable   bool     `json:"stoppable"`
	// MaxDuration is how long its process may live, in seconds; 0: without end.
	MaxDuration int64 `json:"max_duration_seconds,omitempty" cbor:"MaxDuration,omitempty"`
	// Retention of its results, frozen when the run is made; 0: none was.
	RetentionHours int `json:"retention_hours,omitempty" cbor:"RetentionHours,omitempty"`
}

// Lease is how long a run may live without hearing from the cluster, and up to
// when its time is paid. A run with a rate or with failover_after has one; it is
// a deadline only when Hard (docs/domain.md, leases).
type Lease struct {
	Grant     uint64    `json:"grant"`      // number of the grant, rising
	GrantedMS int64     `json:"granted_ms"` // from the stamp that the grant answered to End
	End       Stamp     `json:"end"`        // without a boot id: not granted to a node yet
	PaidUntil time.Time `json:"paid_until"` // display only
	Hard      bool      `json:"hard"`       // the run ends at End
}

// Leases (docs/domain.md).
const (
	DefaultGrant  = time.Hour
	ShortestGrant = time.Minute // or what the run asked for, if that is shorter
	// failover_after, in seconds.
	MinFailoverAfter = 30
	MaxFailoverAfter = 24 * 3600
	ExternalLease    = 24 * time.Hour // of an external run, begun anew by a call (RenewExternal); reading it is none
	// BeatEvery is how often a node says that it is there, and what of its runs
	// has lived how long.
	BeatEvery = 2 * time.Second
	// StartTimeout is how long an interactive run waits that a limit keeps from
	// being placed.
	StartTimeout = time.Hour
)

// TermAt is when a run with this lease is asked to end, in ms of the boot clock
// of End; grace in seconds.
func (l *Lease) TermAt(grace int) int64 {
	return l.End.BoottimeMS - min(int64(grace)*1000, l.GrantedMS/2)
}

// Stamp is a moment on a node's boot clock (CLOCK_BOOTTIME), sent with every
// message of the node. No server clock enters a lease.
type Stamp struct {
	BootID     string `json:"boot_id" cbor:"1,keyasint"`
	BoottimeMS int64  `json:"boottime_ms" cbor:"2,keyasint"`
}
