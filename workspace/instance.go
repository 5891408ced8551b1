package workspace

import (
	"encoding/json"
	"time"
)

// RunKind is what a run is for.
type RunKind string

// The run kinds.
const (
	KindInteractive RunKind = "interactive"
	KindJob         RunKind = "job"
	KindExternal    RunKind = "external" // no node, no devices: an outside program asked for leave to run
)

// Desired is what the owner of an instance wants.
type Desired string

// What an owner can want.
const (
	DesiredRunning Desired = "running"
	DesiredStopped Desired = "stopped"
	DesiredDeleted Desired = "deleted"
)

// Status of an instance, derived from desired and its latest run.
type Status string

// The statuses, as the exalsius page names them.
const (
	StatusPending Status = "PENDING"
	StatusRunning Status = "RUNNING"
	StatusStopped Status = "STOPPED"
	StatusFailed  Status = "FAILED"
	StatusDeleted Status = "DELETED"
)

// Resources asked for. Zero GPUs is none; GPUType is a "|" list of types.
type Resources struct {
	GPUCount     int    `json:"gpu_count"`
	GPUVendor    string `json:"gpu_vendor,omitempty"`
	GPUType      string `json:"gpu_type,omitempty"`
	GPUMemoryMiB int64  `json:"gpu_memory_mib,omitempty"` // minimum a device must have
	GPUShare     int    `json:"gpu_share,omitempty"`      // thousandths of one device; 0 or 1000: whole devices
	CPUMilli     int64  `json:"cpu_milli"`
	MemoryMiB    int64  `json:"memory_mib"`
	StorageMiB   int64  `json:"storage_mib"`
}

// ResourceRequest is Resources as a caller gives them: absent means the
// template's, then the cluster's default.
type ResourceRequest struct {
	GPUCount     *int    `json:"gpu_count,omitempty"`
	GPUVendor    *string `json:"gpu_vendor,omitempty"`
	GPUType      *string `json:"gpu_type,omitempty"`
	GPUMemoryMiB *int64  `json:"gpu_memory_mib,omitempty"`
	GPUShare     *int    `json:"gpu_share,omitempty"`
	CPUMilli     *int64  `json:"cpu_milli,omitempty"`
	MemoryMiB    *int64  `json:"memory_mib,omitempty"`
	StorageMiB   *int64  `json:"storage_mib,omitempty"`
}

// TemplateRef is a template with values for its variables. Values of secret
// variables never stand here; they are sealed in Instance.Secrets.
type TemplateRef struct {
	Name        string            `json:"name"`
	Variables   map[string]string `json:"variables,omitempty"`
	Description string            `json:"description,omitempty"`
}

// Instance is a named environment of a workspace, started and stopped many
// times. Status, Reason, Message and Since are derived; everything else is the
// owner's.
type Instance struct {
	ID            string            `json:"id"`
	Workspace     string            `json:"workspace"`
	Project       string            `json:"project,omitempty"`
	Name          string            `json:"name"`
	Description   string            `json:"description"`
	Owner         string            `json:"owner"`
	ClusterID     string            `json:"cluster_id"`
	Template      TemplateRef       `json:"template"`
	Resources     Resources         `json:"resources"`
	Kind          RunKind           `json:"kind"`
	Spec          RunSpec           `json:"-" cbor:"spec"` // rendered at create; frozen into each run
	Secrets       map[string]Sealed `json:"-" cbor:"secrets,omitempty"`
	Desired       Desired           `json:"desired"`
	Status        Status            `json:"status"`
	Reason        string            `json:"reason"`
	Message       string            `json:"message"`
	Since         time.Time         `json:"since"`
	Run           string            `json:"run,omitempty"` // its latest run
	Attempts      int               `json:"attempts"`      // runs made so far
	Access        []AccessInfo      `json:"access_information,omitempty"`
	RestartPolicy RestartPolicy     `json:"restart_policy"`
	IdlePolicy    json.RawMessage   `json:"idle_policy,omitempty"`
	FailoverAfter int               `json:"failover_after_seconds,omitempty"`
	StoragePolicy string            `json:"storage_policy,omitempty"`
	Volume        string            `json:"volume,omitempty"`
	ToBeDeletedAt time.Time         `json:"to_be_deleted_at,omitzero"`
	// Warning says that it is deleted soon; what ends its run soon is the run's.
	Warning *Warning `json:"warning,omitempty"`
	// Warnings are its own and its run's: filled in for display.
	Warnings    []Warning `json:"warnings,omitempty" cbor:"-"`
	NextUser    string    `json:"-" cbor:"next_user,omitempty"` // who has asked for NextRun, and pays for it
	NextRun     string    `json:"next_run,omitempty"`           // id of the run to make once the present one has ended
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	DeletedAt   time.Time `json:"deleted_at,omitzero"`
	ModifyIndex uint64    `json:"modify_index"`
}

// AccessInfo is one way into a running instance.
type AccessInfo struct {
	Type     string `json:"type"`     // NODE_PORT
	Protocol string `json:"protocol"` // HTTP, HTTPS, SSH, TCP
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Name     string `json:"name,omitempty"`
	Path     string `json:"path,omitempty"` // of a page, such as "/lab"; never with a secret
}
