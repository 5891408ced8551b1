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
	ID          string      `json:"id"`
	Instance    string      `json:"instance,omitempty"`
	Workspace   string      `json:"workspace"`
	User        string      `json:"user"`
	Kind        RunKind     `json:"kind"`
	Attempt     int         `json:"attempt"`
	Phase       Phase       `json:"phase"`
	Desired     RunDesired  `json:"desired"`
	Reason      string      `json:"reason"`
	Message     string      `json:"message"`
	StopReason  string      `json:"stop_reason,omitempty"` // why Desired is stop
	Node        string      `json:"node,omitempty"`
	Devices     []Allotment `json:"devices"`
	Epoch       gpu.Epoch   `json:"epoch"` // of the entry that placed it
	Resources   Resources   `json:"resources"`
	Spec        RunSpec     `json:"spec"`
	Rate        int64       `json:"rate_micro_usd_per_hour"`
	Lease       *Lease      `json:"lease,omitempty"`
	Group       string      `json:"group,omitempty"` // gang
	Rank        int         `json:"rank,omitempty"`
	Size        int         `json:"size,omitempty"`
	ExitCode    *int        `json:"exit_code,omitempty"`
	OOM         bool        `json:"oom_killed,omitempty"`
	Cost        int64       `json:"cost_micro_usd"`
	ChargedMS   int64       `json:"charged_ms"`
	UnpaidMS    int64       `json:"unpaid_ms"`
	Replaces    string      `json:"replaces,omitempty"`
	Unreleased  bool        `json:"unreleased,omitempty"` // a device still waits for its node to confirm the release
	Counted     bool        `json:"counted,omitempty"`    // counts for the month already
	Restarts    int         `json:"restarts,omitempty"`   // by policy, in a row, before this run
	NotBefore   time.Time   `json:"not_before,omitzero"`  // it isn't placed earlier: a restart backs off
	Volume      string      `json:"volume,omitempty"`     // that it has, from the entry that placed it
	Times       RunTimes    `json:"times"`
	Since       time.Time   `json:"since"` // of Phase
	ModifyIndex uint64      `json:"modify_index"`
}

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
}

// Lease is how long a run may live without hearing from the cluster. Only runs
// with a rate under a budget, or with failover_after, have one.
type Lease struct {
	Grant     uint64    `json:"grant"` // number of the grant, rising
	GrantedMS int64     `json:"granted_ms"`
	End       Stamp     `json:"end"`
	PaidUntil time.Time `json:"paid_until"` // display only
}

// Stamp is a moment on a node's boot clock (CLOCK_BOOTTIME), sent with every
// message of the node. No server clock enters a lease.
type Stamp struct {
	BootID     string `json:"boot_id" cbor:"1,keyasint"`
	BoottimeMS int64  `json:"boottime_ms" cbor:"2,keyasint"`
}
