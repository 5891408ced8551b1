package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/gpu"
	"berth/workspace"
)

func (a *API) registerStatus(h huma.API) {
	route(h, http.MethodGet, "/status", "get-status", "The cluster in numbers, and what an operator should look at", a.getStatus)
}

func (a *API) getStatus(ctx context.Context, in *Reading) (*object[workspace.Overview], error) {
	r, err := a.reader(ctx, *in)
	if err != nil {
		return nil, err
	}
	mine := a.cluster.Status()
	s := &workspace.Overview{
		Cluster: r.Cluster(), Server: a.nodeID, Version: a.version, Leader: mine.Leader, Term: mine.Term, Index: r.Index(),
		Devices: map[string]int{}, Runs: map[string]int{}, Instances: map[string]int{}, Warnings: append([]string{}, mine.Warnings...),
	}
	for n := range r.Nodes() {
		countNode(s, n)
	}
	for d := range r.Devices() {
		countDevice(s, d)
	}
	for w := range r.workspaces() {
		s.Workspaces++
		if w.KillSwitch && !w.Archived() {
			warn(s, "the kill switch of workspace %s is on: nothing starts in it: berth workspace kill-switch off %s", w.Slug, w.Slug)
		}
		for inst := range r.Instances(w.ID, "") {
			s.Instances[string(inst.Status)]++
		}
		for run := range r.Runs(w.ID, "") {
			s.Runs[string(run.Phase)]++
		}
	}
	s.Ending = r.ending(r.workspaces())
	if prices := r.Prices(); len(prices) > 0 || r.limitsMoney() {
		for _, name := range r.unpriced(prices) {
			warn(s, "GPU type %s has no price: it can't be started where a budget or a spending limit applies: berth price set gpu %s AMOUNT", name, name)
		}
	}
	return &object[workspace.Overview]{Meta: r.meta(), Body: s}, nil
}

// limitsMoney: some budget or spending limit is set.
func (r *reader) limitsMoney() bool {
	for w := range r.workspaces() {
		if l := &w.Limits; !w.Archived() && (l.DailyBudget != nil || l.UserDailyBudget != nil || l.Spending != nil) {
			return true
		}
	}
	return r.Cluster().Limits.DailyBudget != nil
}

func countNode(s *workspace.Overview, n *workspace.Node) {
	s.Nodes.Total++
	switch {
	case !n.Reachable:
		s.Nodes.Unreachable++
		warn(s, "node %s is unreachable: %s", n.Name, n.Message)
	case n.Ready:
		s.Nodes.Ready++
	default:
		warn(s, "node %s is not ready (%s): %s", n.Name, n.Reason, n.Message)
	}
	if n.Cordoned || n.Draining {
		s.Nodes.Cordoned++
	}
	if note := n.Facts.CapacityNote; note != "" {
		warn(s, "node %s: %s", n.Name, note)
	}
	if n.Facts.GPUSource == "simulated" {
		warn(s, "node %s: its GPUs are SIMULATED, there is no hardware behind them", n.Name)
	}
	if told := n.Facts.GPUMessage; told != "" && n.Facts.GPUSource != "none" { // that it has none is no trouble
		warn(s, "node %s: %s", n.Name, told)
	}
	if len(n.Orphans) > 0 {
		warn(s, "node %s has %d quarantined containers: berth node get %s shows them", n.Name, len(n.Orphans), n.Name)
	}
}

func countDevice(s *workspace.Overview, d *gpu.Device) {
	s.Devices[string(d.State)]++
	if d.Missing || d.Health != gpu.Healthy {
		s.Devices["unhealthy"]++
		warn(s, "GPU %s is not usable (%s): %s", d.UUID, d.Reason, d.Message)
	}
	if d.State == gpu.Stuck {
		warn(s, "GPU %s is stuck (%s): %s", d.UUID, d.Reason, d.Message)
	}
}

func warn(s *workspace.Overview, format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}
