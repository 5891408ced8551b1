package workspace

import (
	"time"

	"berth/gpu"
)

// Assignment is all that an agent knows of a run on its node; it reads nothing
// else.
type Assignment struct {
	Run        string            `json:"run"`
	Instance   string            `json:"instance,omitempty"`
	Workspace  string            `json:"workspace"`
	Name       string            `json:"name"` // of the instance, for the hostname
	Desired    RunDesired        `json:"desired"`
	StopReason string            `json:"stop_reason,omitempty"`
	Phase      Phase             `json:"phase"` // as the cluster has it
	Epoch      gpu.Epoch         `json:"epoch"`
	Devices    []Allotment       `json:"devices,omitempty"`
	Resources  Resources         `json:"resources"`
	Spec       RunSpec           `json:"spec"`
	Volume     *VolumeClaim      `json:"volume,omitempty"`
	Secrets    map[string]Secret `json:"-"` // in clear: opened by the server that hands it out
	Login      *RegistryLogin    `json:"-"` // of the image's registry, in clear
	// Lease is there when it is a deadline. One without an end in this boot isn't
	// granted yet: the run must not start before it is.
	Lease *Lease `json:"lease,omitempty"`
	// Warnings say what ends soon; the container can read them in a file.
	Warnings []Warning `json:"warnings,omitempty"`
	// Unreleased: the run has ended, its devices wait for this node's release.
	Unreleased bool `json:"unreleased,omitempty"`
}

// AssignmentView is the assignments of one node at one index of the log. A
// snapshot replaces all; a change names what changed and what went.
type AssignmentView struct {
	Cluster  string       `json:"cluster"`
	At       gpu.Epoch    `json:"at"`
	Snapshot bool         `json:"snapshot"`
	Upsert   []Assignment `json:"upsert"`
	Removed  []string     `json:"removed,omitempty"` // run ids
	// Purge are the volumes of this node to delete for good: all of them, in
	// every view.
	Purge []string `json:"purge,omitempty"`
	// Expire are the ended runs of this node whose result data is to be deleted:
	// all of them, in every view.
	Expire []ResultClaim `json:"expire,omitempty"`
}

// ResultClaim is the result data of an ended run: its output, and runs/<id> on
// its volume (empty: it had none).
type ResultClaim struct {
	Run    string `json:"run"`
	Volume string `json:"volume,omitempty"`
}

// Beat says that a node is there, and how long its runs' processes have lived at
// its stamp. It isn't in the log; a leader keeps the latest of each node.
type Beat struct {
	Node  string      `json:"node"`
	Stamp Stamp       `json:"stamp"`
	Runs  []Livedness `json:"runs,omitempty"` // those with a lease, hard or not
}

// Livedness is how long a run's process has lived; 0: it hasn't started.
type Livedness struct {
	Run     string `json:"run" cbor:"1,keyasint"`
	LivedMS int64  `json:"lived_ms" cbor:"2,keyasint,omitempty"`
	// EndMS is the end of its lease that the node's guard keeps to, on the boot
	// clock; 0: none. Only a run whose node keeps to one is given up at it.
	EndMS int64 `json:"end_ms,omitempty" cbor:"3,keyasint,omitempty"`
}

// Report is one batch of what an agent has seen since its last.
type Report struct {
	Node     string         `json:"node" cbor:"1,keyasint"`
	Stamp    Stamp          `json:"stamp" cbor:"2,keyasint"`
	Facts    *NodeFacts     `json:"facts,omitempty" cbor:"3,keyasint,omitempty"`     // when new or changed
	Devices  *gpu.Inventory `json:"inventory,omitempty" cbor:"4,keyasint,omitempty"` // when new or changed
	Images   *[]NodeImage   `json:"images,omitempty" cbor:"5,keyasint,omitempty"`    // when changed; all of them
	Ready    *Readiness     `json:"ready,omitempty" cbor:"6,keyasint,omitempty"`     // when changed
	Runs     []RunReport    `json:"runs,omitempty" cbor:"7,keyasint,omitempty"`
	Released []Release      `json:"released,omitempty" cbor:"8,keyasint,omitempty"`
	Orphans  *[]Orphan      `json:"orphans,omitempty" cbor:"9,keyasint,omitempty"` // when changed; all of them
	Health   []DeviceHealth `json:"health,omitempty" cbor:"10,keyasint,omitempty"`
	Volumes  []VolumeReport `json:"volumes,omitempty" cbor:"11,keyasint,omitempty"`
	Expired  []string       `json:"expired,omitempty" cbor:"12,keyasint,omitempty"` // runs whose result data is gone, as ordered
}

// VolumeClaim is the volume that a run has.
type VolumeClaim struct {
	ID      string `json:"id"`
	SizeMiB int64  `json:"size_mib"`
	// Made: it exists on this node's disk. One that isn't there all the same is
	// lost; an empty one in its place would look like the data had gone.
	Made bool `json:"made"`
}

// VolumeReport is a change of a volume on its node.
type VolumeReport struct {
	ID      string `json:"id" cbor:"1,keyasint"`
	Made    bool   `json:"made,omitempty" cbor:"2,keyasint,omitempty"`    // it exists on the disk now
	Gone    bool   `json:"gone,omitempty" cbor:"3,keyasint,omitempty"`    // as ordered by Purge; without an order it is lost
	Message string `json:"message,omitempty" cbor:"4,keyasint,omitempty"` // why it can't be purged yet
}

// Readiness of a node to take work, as its agent sees it.
type Readiness struct {
	Ready   bool   `json:"ready" cbor:"1,keyasint"`
	Reason  string `json:"reason,omitempty" cbor:"2,keyasint,omitempty"`
	Message string `json:"message,omitempty" cbor:"3,keyasint,omitempty"`
}

// RunReport is a phase an agent has seen a run reach. Apply refuses one of
// another node or epoch, and a step back.
type RunReport struct {
	Run      string       `json:"run" cbor:"1,keyasint"`
	Epoch    gpu.Epoch    `json:"epoch" cbor:"2,keyasint"`
	Phase    Phase        `json:"phase" cbor:"3,keyasint"`
	Reason   string       `json:"reason" cbor:"4,keyasint"`
	Message  string       `json:"message" cbor:"5,keyasint"`
	ExitCode *int         `json:"exit_code,omitempty" cbor:"6,keyasint,omitempty"`
	OOM      bool         `json:"oom_killed,omitempty" cbor:"7,keyasint,omitempty"`
	Access   []AccessInfo `json:"access_information,omitempty" cbor:"8,keyasint,omitempty"`
	LivedMS  int64        `json:"lived_ms,omitempty" cbor:"9,keyasint,omitempty"` // since its process started, to the report's stamp
}

// Release is DeviceReleased: the run's cgroup on this node is empty and the
// device shows nothing of it. Stuck says that this can't be confirmed.
type Release struct {
	Device  string    `json:"device" cbor:"1,keyasint"`
	Run     string    `json:"run" cbor:"2,keyasint"`
	Epoch   gpu.Epoch `json:"epoch" cbor:"3,keyasint"`
	Stuck   bool      `json:"stuck,omitempty" cbor:"4,keyasint,omitempty"`
	Message string    `json:"message,omitempty" cbor:"5,keyasint,omitempty"`
}

// DeviceHealth is a change of a device's health.
type DeviceHealth struct {
	Device  string     `json:"device" cbor:"1,keyasint"`
	Health  gpu.Health `json:"health" cbor:"2,keyasint"`
	Reason  string     `json:"reason,omitempty" cbor:"3,keyasint,omitempty"`
	Message string     `json:"message,omitempty" cbor:"4,keyasint,omitempty"`
}

// GoAheadWindow is how long after *sending* its question an agent may begin a
// start that was allowed (docs/domain.md, starting).
const GoAheadWindow = 2 * time.Second

// GoAheadAnswer is what the leader, its leadership just verified, says of a
// run: whether it may start now, and what is recorded of it.
type GoAheadAnswer struct {
	Start   bool      `json:"start"` // wanted, on this node, under this epoch
	Known   bool      `json:"known"` // the run is recorded
	Ended   bool      `json:"ended"` // and recorded as ended: its container may be reaped
	Cluster string    `json:"cluster"`
	At      gpu.Epoch `json:"at"` // incarnation and index of the verified view
	Reason  string    `json:"reason,omitempty"`
}
