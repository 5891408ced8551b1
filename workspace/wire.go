package workspace

import (
	"encoding/json"
	"time"
)

// What only a request or an answer of the native API has, for both of its sides.
// Everything else it carries are the objects of this package and of gpu.

// NewWorkspace asks for a workspace. Everything is optional.
type NewWorkspace struct {
	Name        *string         `json:"name,omitempty"`
	Slug        string          `json:"slug,omitempty" doc:"made of the name when absent"`
	Description string          `json:"description,omitempty"`
	Settings    json.RawMessage `json:"settings,omitempty" doc:"a JSON object of at most 64 KiB"`
	Plan        Plan            `json:"plan,omitempty" enum:"basic,pro,scale,enterprise" doc:"absent: the cluster's new_workspace_defaults"`
	Retention   *Retention      `json:"data_retention,omitempty"`
	// What is absent comes from the cluster's new_workspace_defaults.
	LimitsChange
}

// WorkspaceChange changes a workspace: what is absent stays.
type WorkspaceChange struct {
	Name        Optional[string] `json:"name,omitzero" doc:"null takes the name away"`
	Description *string          `json:"description,omitempty"`
	Settings    json.RawMessage  `json:"settings,omitempty" doc:"replaced whole"`
	Retention   *Retention       `json:"data_retention,omitempty"`
	Plan        *Plan            `json:"plan,omitempty" enum:"basic,pro,scale,enterprise"`
	LimitsChange
}

// Optional is a value of a change that can be absent (the zero Optional), null
// or there: a pointer can't tell the first two apart. Its field has omitzero.
type Optional[T any] struct {
	Set   bool // it isn't absent
	Value *T   // nil: null
}

// MarshalJSON writes the value or null.
func (o Optional[T]) MarshalJSON() ([]byte, error) { return json.Marshal(o.Value) }

// UnmarshalJSON reads the value or null; it isn't called for an absent one.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	o.Set = true
	return json.Unmarshal(b, &o.Value)
}

// NewInstance asks for an instance. Name and Template.Name are required.
type NewInstance struct {
	Workspace     string          `json:"workspace,omitempty" doc:"id or slug"` // empty: the client's, then the default one
	Project       string          `json:"project,omitempty"`
	Name          string          `json:"name" required:"true" doc:"a DNS label of at most 60 characters, unique in its workspace"`
	Description   string          `json:"description,omitempty"`
	Template      TemplateChoice  `json:"template" required:"true"`
	Resources     ResourceRequest `json:"resources,omitzero" doc:"what is absent comes from the template"`
	StoragePolicy string          `json:"storage_policy,omitempty" doc:"of its volume once it is deleted: retain, delete or retain:<days>; absent: the template's, then retain:14"`
	RestartPolicy RestartPolicy   `json:"restart_policy,omitzero" doc:"absent: the template's"`
	Volume        string          `json:"volume,omitempty" doc:"id of a detached volume of the workspace to go on with"`
	ToBeDeletedAt time.Time       `json:"to_be_deleted_at,omitzero" doc:"in UTC, such as 2026-01-31T12:00:00Z; absent: never"`
	FailoverAfter int             `json:"failover_after_seconds,omitempty" minimum:"0"`
	MaxDuration   *int64          `json:"max_duration_seconds,omitempty" minimum:"0" doc:"how long the process of each of its runs may live, at most 30 days; 0: without end; absent: the template's"`
	Start         *bool           `json:"start,omitempty" doc:"true when absent"`
}

// TemplateChoice is a template with values for its variables, secret ones too,
// which a TemplateRef never holds.
type TemplateChoice struct {
	Name      string            `json:"name" required:"true"`
	Variables map[string]string `json:"variables,omitempty"`
}

// DryRun asks whether a run would find a place now: with these resources, over
// those of a template when one is named.
type DryRun struct {
	Template  string          `json:"template,omitempty"`
	Resources ResourceRequest `json:"resources,omitzero" doc:"what is absent comes from the template"`
}

// Placement is where a run would go now, or why nowhere.
type Placement struct {
	Fits    bool        `json:"fits"`
	Node    string      `json:"node,omitempty" doc:"id"`
	Devices []Allotment `json:"devices,omitempty"`
	Reason  string      `json:"reason,omitempty" doc:"such as waiting_for_gpu; empty when it fits"`
	Message string      `json:"message"`
	Final   bool        `json:"final,omitempty" doc:"no node could ever run it"`
}

// Explanation says why an instance is as it is.
type Explanation struct {
	Instance  string     `json:"instance"`
	Name      string     `json:"name"`
	Status    Status     `json:"status"`
	Reason    string     `json:"reason"`
	Message   string     `json:"message"`
	Since     time.Time  `json:"since"`
	Run       string     `json:"run,omitempty"`
	Phase     Phase      `json:"phase,omitempty" doc:"of its run"`
	Placement *Placement `json:"placement,omitempty" doc:"of a pending run: would it fit now?"`
}

// ImageOnNode is one image on one node.
type ImageOnNode struct {
	Node     string `json:"node" doc:"id"`
	NodeName string `json:"node_name"`
	NodeImage
}

// Overview of the cluster as one server sees it.
type Overview struct {
	Cluster    *Cluster       `json:"cluster"`
	Server     string         `json:"server" doc:"id of the node that answers"`
	Version    string         `json:"version"`
	Leader     string         `json:"leader" doc:"id of the leader's node, empty when none is known"`
	Term       uint64         `json:"term"`
	Index      uint64         `json:"index" doc:"last applied log entry"`
	Nodes      NodeCounts     `json:"nodes"`
	Devices    map[string]int `json:"devices" doc:"by state, and unhealthy for those not healthy or missing"`
	Runs       map[string]int `json:"runs" doc:"by phase"`
	Instances  map[string]int `json:"instances" doc:"by status"`
	Workspaces int            `json:"workspaces"`
	Ending     []Ending       `json:"ending,omitempty" doc:"what ends soon of what the caller sees"`
	Warnings   []string       `json:"warnings"` // sentences for the operator
}

// NodeCounts counts the nodes of a cluster.
type NodeCounts struct {
	Total       int `json:"total"`
	Ready       int `json:"ready"`
	Unreachable int `json:"unreachable"`
	Cordoned    int `json:"cordoned"`
}

// VersionInfo is what a daemon says of its binary, at /version.
type VersionInfo struct {
	Version        string `json:"version"`
	GoVersion      string `json:"go_version"`
	ClusterVersion uint64 `json:"cluster_version"` // the newest behaviour it supports
}
