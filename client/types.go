package client

import (
	"encoding/json"
	"time"

	"berth/workspace"
)

// NewWorkspace asks for a workspace. Everything is optional.
type NewWorkspace struct {
	Name        *string              `json:"name,omitempty"`
	Slug        string               `json:"slug,omitempty"` // made of the name when empty
	Description string               `json:"description,omitempty"`
	Settings    json.RawMessage      `json:"settings,omitempty"` // a JSON object
	Plan        workspace.Plan       `json:"plan,omitempty"`     // "scale" when empty
	Retention   *workspace.Retention `json:"data_retention,omitempty"`
}

// WorkspaceChange changes what isn't nil.
type WorkspaceChange struct {
	Name              *string
	ClearName         bool // sets the name to null; Name must be nil
	Description       *string
	Settings          json.RawMessage // replaced whole
	Retention         *workspace.Retention
	MaxConcurrentRuns *int
	IfIndex           uint64 // refuse (version_mismatch) unless this is the modify_index; 0: any
}

// MarshalJSON tells an absent name from one that is set to null.
func (c WorkspaceChange) MarshalJSON() ([]byte, error) {
	body := map[string]any{}
	if c.Name != nil || c.ClearName {
		body["name"] = c.Name
	}
	if c.Description != nil {
		body["description"] = c.Description
	}
	if c.Settings != nil {
		body["settings"] = c.Settings
	}
	if c.Retention != nil {
		body["data_retention"] = c.Retention
	}
	if c.MaxConcurrentRuns != nil {
		body["max_concurrent_runs"] = c.MaxConcurrentRuns
	}
	return json.Marshal(body)
}

// NewInstance asks for an instance. Name and Template.Name are required.
type NewInstance struct {
	Workspace     string                     `json:"workspace,omitempty"` // id or slug; empty: the client's, then the default one
	Project       string                     `json:"project,omitempty"`
	Name          string                     `json:"name"`
	Description   string                     `json:"description,omitempty"`
	Template      TemplateChoice             `json:"template"`
	Resources     *workspace.ResourceRequest `json:"resources,omitempty"`
	StoragePolicy string                     `json:"storage_policy,omitempty"`
	ToBeDeletedAt time.Time                  `json:"to_be_deleted_at,omitzero"`
	FailoverAfter int                        `json:"failover_after_seconds,omitempty"`
	Start         *bool                      `json:"start,omitempty"` // nil: true
}

// TemplateChoice is a template with values for its variables, secret ones too.
type TemplateChoice struct {
	Name      string            `json:"name"`
	Variables map[string]string `json:"variables,omitempty"`
}

// DryRun asks whether a run would find a place now: with these resources, over
// those of a template when one is named.
type DryRun struct {
	Template  string                     `json:"template,omitempty"`
	Resources *workspace.ResourceRequest `json:"resources,omitempty"`
}

// Placement is where a run would go now, or why nowhere.
type Placement struct {
	Fits    bool                  `json:"fits"`
	Node    string                `json:"node,omitempty"` // id
	Devices []workspace.Allotment `json:"devices,omitempty"`
	Reason  string                `json:"reason,omitempty"` // code such as waiting_for_gpu; empty when it fits
	Message string                `json:"message"`
	Final   bool                  `json:"final,omitempty"` // no node could ever run it
}

// Explanation says why an instance is as it is.
type Explanation struct {
	Instance  string           `json:"instance"`
	Name      string           `json:"name"`
	Status    workspace.Status `json:"status"`
	Reason    string           `json:"reason"`
	Message   string           `json:"message"`
	Since     time.Time        `json:"since"`
	Run       string           `json:"run,omitempty"`
	Phase     workspace.Phase  `json:"phase,omitempty"`     // of its run
	Placement *Placement       `json:"placement,omitempty"` // of a pending run: would it fit now?
}

// Image is one image on one node.
type Image struct {
	Node     string `json:"node"` // id
	NodeName string `json:"node_name"`
	workspace.NodeImage
}

// Status of the cluster as one server sees it.
type Status struct {
	Cluster    *workspace.Cluster `json:"cluster"`
	Server     string             `json:"server"` // id of the node that answered
	Version    string             `json:"version"`
	Leader     string             `json:"leader"` // id of the leader's node, empty when none is known
	Term       uint64             `json:"term"`
	Index      uint64             `json:"index"` // last applied log entry
	Nodes      NodeCounts         `json:"nodes"`
	Devices    map[string]int     `json:"devices"` // by state, and "unhealthy" for those not healthy or missing
	Runs       map[string]int     `json:"runs"`    // by phase
	Instances  map[string]int     `json:"instances"`
	Workspaces int                `json:"workspaces"`
	Warnings   []string           `json:"warnings"`
}

// NodeCounts counts the nodes of a cluster.
type NodeCounts struct {
	Total       int `json:"total"`
	Ready       int `json:"ready"`
	Unreachable int `json:"unreachable"`
	Cordoned    int `json:"cordoned"`
}

// Version of a daemon.
type Version struct {
	Version        string `json:"version"`
	GoVersion      string `json:"go_version"`
	ClusterVersion uint64 `json:"cluster_version"` // the newest behaviour it supports
}
