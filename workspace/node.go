package workspace

import (
	"time"

	"berth/gpu"
)

// Node is a host of the cluster.
type Node struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"` // host name
	Role        string      `json:"role"` // "server" or "worker"
	Facts       NodeFacts   `json:"facts"`
	Images      []NodeImage `json:"images"`
	Links       []gpu.Link  `json:"links,omitempty"`
	Reachable   bool        `json:"reachable"`
	Ready       bool        `json:"ready"` // its runtime answers and it takes work
	Reason      string      `json:"reason,omitempty"`
	Message     string      `json:"message,omitempty"`
	Since       time.Time   `json:"since"` // of Ready and Reachable
	Cordoned    bool        `json:"cordoned"`
	Draining    bool        `json:"draining"`
	Orphans     []Orphan    `json:"orphans,omitempty"`             // quarantined containers
	Stamp       Stamp       `json:"stamp"`                         // of its latest applied report
	PastBoots   []string    `json:"-" cbor:"past_boots,omitempty"` // latest boot ids before this one
	CreatedAt   time.Time   `json:"created_at"`
	UpdatedAt   time.Time   `json:"updated_at"`
	ModifyIndex uint64      `json:"modify_index"`
}

// NodeFacts is what a node says of itself. Capacity is what it offers to runs,
// [reserve] taken off.
type NodeFacts struct {
	Name           string `json:"name" cbor:"1,keyasint"`
	BootID         string `json:"boot_id" cbor:"2,keyasint"`
	Version        string `json:"version" cbor:"3,keyasint"`
	Kernel         string `json:"kernel" cbor:"4,keyasint"`
	Arch           string `json:"arch" cbor:"5,keyasint"`
	Runtime        string `json:"runtime" cbor:"6,keyasint"` // "containerd 1.6.20"
	CPUMilli       int64  `json:"cpu_milli" cbor:"7,keyasint"`
	MemoryMiB      int64  `json:"memory_mib" cbor:"8,keyasint"`
	StorageMiB     int64  `json:"storage_mib" cbor:"9,keyasint"`
	CapacityNote   string `json:"capacity_note,omitempty" cbor:"10,keyasint,omitempty"` // says so when more is offered than the host has
	GPUSource      string `json:"gpu_source" cbor:"11,keyasint"`
	GPUMessage     string `json:"gpu_message,omitempty" cbor:"12,keyasint,omitempty"`
	DriverVersion  string `json:"driver_version,omitempty" cbor:"13,keyasint,omitempty"`
	CUDAVersion    string `json:"cuda_version,omitempty" cbor:"14,keyasint,omitempty"`
	PublishAddress string `json:"publish_address,omitempty" cbor:"15,keyasint,omitempty"`
	Sharing        string `json:"gpu_sharing,omitempty" cbor:"16,keyasint,omitempty" enum:"timeslice,mps" doc:"how runs share a GPU; absent: they can't"`
}

// NodeImage is an image that a node has.
type NodeImage struct {
	Reference string `json:"reference" cbor:"1,keyasint"`
	Digest    string `json:"digest" cbor:"2,keyasint"`
	Size      int64  `json:"size_bytes" cbor:"3,keyasint"`
}

// Orphan is a container without an assignment that its node doesn't reap: run
// unknown here, of another cluster, or of an earlier incarnation.
type Orphan struct {
	Container string    `json:"container" cbor:"1,keyasint"`
	Cluster   string    `json:"cluster" cbor:"2,keyasint"`
	Epoch     gpu.Epoch `json:"epoch" cbor:"3,keyasint"`
	Devices   []string  `json:"devices,omitempty" cbor:"4,keyasint,omitempty"` // UUIDs it holds
	Reason    string    `json:"reason" cbor:"5,keyasint"`
}

// Cluster is the Raft group as its members remember it.
type Cluster struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Incarnation uint64 `json:"incarnation"`     // raised by restore and recover
	Version     uint64 `json:"cluster_version"` // behaviour that all servers support
	KillSwitch  bool   `json:"kill_switch"`
	// Limits of all workspaces together. Only the daily budget and the
	// concurrency (0: unlimited) are in use.
	Limits      Limits            `json:"limits"`
	Defaults    WorkspaceDefaults `json:"new_workspace_defaults"`
	CreatedAt   time.Time         `json:"created_at"`
	ModifyIndex uint64            `json:"modify_index"`
}

// WorkspaceDefaults are what a new workspace gets where its creator names
// nothing.
type WorkspaceDefaults struct {
	Plan              Plan   `json:"plan,omitempty" enum:"basic,pro,scale,enterprise" doc:"absent: scale"`
	DailyBudget       *int64 `json:"daily_budget_micro_usd,omitempty" minimum:"0" maximum:"9007199254740991"`
	UserDailyBudget   *int64 `json:"user_daily_budget_micro_usd,omitempty" minimum:"0" maximum:"9007199254740991"`
	MaxConcurrentRuns int    `json:"max_concurrent_runs,omitempty" minimum:"0" maximum:"2147483647" doc:"absent: the plan's"`
}

// Key is an API key; the secret itself is only ever a hash.
type Key struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"` // admin, workspace, user, metrics
	Workspace string    `json:"workspace,omitempty"`
	User      string    `json:"user,omitempty"`
	Hash      []byte    `json:"-" cbor:"hash"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// Event is one thing that happened, kept in a ring of the latest.
type Event struct {
	ID        string    `json:"id"` // "<raft index>.<n>"
	At        time.Time `json:"at"`
	Type      string    `json:"type"`   // such as "run.running"
	Object    string    `json:"object"` // id of what it is about
	Workspace string    `json:"workspace,omitempty"`
	Instance  string    `json:"instance,omitempty"`
	Run       string    `json:"run,omitempty"`
	Node      string    `json:"node,omitempty"`
	Principal string    `json:"principal,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message"`
}
