package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/gpu"
	"berth/workspace"
)

// Status of the cluster as one server sees it.
type Status struct {
	Cluster    *workspace.Cluster `json:"cluster"`
	Server     string             `json:"server" doc:"id of the node that answers"`
	Version    string             `json:"version"`
	Leader     string             `json:"leader" doc:"id of the leader's node, empty when none is known"`
	Term       uint64             `json:"term"`
	Index      uint64             `json:"index" doc:"last applied log entry"`
	Nodes      NodeCounts         `json:"nodes"`
	Devices    map[string]int     `json:"devices" doc:"by state, and unhealthy for those not healthy or missing"`
	Runs       map[string]int     `json:"runs" doc:"by phase"`
	Instances  map[string]int     `json:"instances" doc:"by status"`
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

func (a *API) registerStatus(h huma.API) {
	route(h, http.MethodGet, "/status", "get-status", "The cluster in numbers, and what an operator should look at", a.getStatus)
}

func (a *API) getStatus(ctx context.Context, in *Reading) (*object[Status], error) {
	r, err := a.reader(ctx, *in)
	if err != nil {
		return nil, err
	}
	mine := a.cluster.Status()
	s := &Status{
		Cluster: r.Cluster(), Server: a.nodeID, Version: a.version, Leader: mine.Leader, Term: mine.Term, Index: r.Index(),
		Devices: map[string]int{}, Runs: map[string]int{}, Instances: map[string]int{}, Warnings: append([]string{}, mine.Warnings...),
	}
	for n := range r.Nodes() {
		s.countNode(n)
	}
	for d := range r.Devices() {
		s.countDevice(d)
	}
	for w := range r.workspaces() {
		s.Workspaces++
		for inst := range r.Instances(w.ID, "") {
			s.Instances[string(inst.Status)]++
		}
		for run := range r.Runs(w.ID, "") {
			s.Runs[string(run.Phase)]++
		}
	}
	return &object[Status]{Meta: r.meta(), Body: s}, nil
}

func (s *Status) countNode(n *workspace.Node) {
	s.Nodes.Total++
	switch {
	case !n.Reachable:
		s.Nodes.Unreachable++
		s.warn("node %s is unreachable: %s", n.Name, n.Message)
	case n.Ready:
		s.Nodes.Ready++
	default:
		s.warn("node %s is not ready (%s): %s", n.Name, n.Reason, n.Message)
	}
	if n.Cordoned || n.Draining {
		s.Nodes.Cordoned++
	}
	if note := n.Facts.CapacityNote; note != "" {
		s.warn("node %s: %s", n.Name, note)
	}
	if len(n.Orphans) > 0 {
		s.warn("node %s has %d quarantined containers: berth node get %s shows them", n.Name, len(n.Orphans), n.Name)
	}
}

func (s *Status) countDevice(d *gpu.Device) {
	s.Devices[string(d.State)]++
	if d.Missing || d.Health != gpu.Healthy {
		s.Devices["unhealthy"]++
		s.warn("GPU %s is not usable (%s): %s", d.UUID, d.Reason, d.Message)
	}
	if d.State == gpu.Stuck {
		s.warn("GPU %s is stuck (%s): %s", d.UUID, d.Reason, d.Message)
	}
}

func (s *Status) warn(format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}
