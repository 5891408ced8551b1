package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

var (
	nodeCount   = gauge("nodes", "Nodes by status; told by the leader.", "status")
	nodeReady   = gauge("node_ready", "Whether the node takes work: 1 or 0; told by the leader.", "node")
	nodeWhy     = gauge("node_not_ready_info", "Why the node isn't ready, absent while it is; told by the leader.", "node", "reason")
	nodeReach   = gauge("node_reachable", "Whether the node is heard from: 1 or 0; told by the leader.", "node")
	deviceCount = gauge("devices", "Devices by type and state; told by the leader.", "type", "state")
	deviceSick  = gauge("devices_unhealthy", "Devices that are unhealthy or missing; told by the leader.", "type")
	deviceOut   = gauge("devices_unavailable", "Devices that runs can't get: unhealthy, missing, unusable, blocked, or of a node that takes no runs; told by the leader.", "type")
	deviceHeld  = gauge("devices_held", "Devices that are held, shares added up; told by the leader.", "type")
	runsIn      = gauge("runs", "Runs by kind and phase, ended ones that are still kept included; told by the leader.", "kind", "phase")
	runsWaiting = gauge("runs_pending_reason", "Pending runs by what they wait for; told by the leader.", "reason")
	runsOldest  = gauge("runs_oldest_pending_timestamp_seconds", "When the oldest pending run was asked for, 0 when none is pending; told by the leader.")
	active      = gauge("workspace_active_runs", "Runs that count for the workspace's concurrency; told by the leader.", "workspace")
	pending     = gauge("workspace_pending_runs", "Runs of the workspace that wait for a place; told by the leader.", "workspace")
	limit       = gauge("workspace_max_concurrent_runs", "The workspace's concurrency limit; told by the leader.", "workspace")
)

var phases = []workspace.Phase{
	workspace.PhasePending, workspace.PhaseAssigned, workspace.PhasePulling, workspace.PhaseStarting,
	workspace.PhaseRunning, workspace.PhaseStopping, workspace.PhaseSucceeded, workspace.PhaseFailed,
	workspace.PhaseStopped, workspace.PhaseLost,
}

var kinds = []workspace.RunKind{workspace.KindInteractive, workspace.KindJob, workspace.KindExternal}

// clusterCollector computes what the state says as a whole. Only the leader
// tells it: the others' states may be behind, and sums would count it several
// times.
type clusterCollector struct{ *Metrics }

// Describe sends the families.
func (clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, nodeCount, nodeReady, nodeWhy, nodeReach, deviceCount, deviceSick, deviceOut, deviceHeld,
		runsIn, runsWaiting, runsOldest, active, pending, limit)
}

// Collect sends the readings.
func (c clusterCollector) Collect(ch chan<- prometheus.Metric) {
	if !c.leads() {
		return
	}
	view := c.View()
	collectDevices(ch, view, collectNodes(ch, view))
	collectRuns(ch, view)
}

// collectNodes gives the nodes that take runs.
func collectNodes(ch chan<- prometheus.Metric, view state.View) map[string]bool {
	open, status := map[string]bool{}, map[string]int{"ready": 0, "not_ready": 0, "unreachable": 0}
	for n := range view.Nodes() {
		switch {
		case !n.Reachable:
			status["unreachable"]++
		case !n.Ready:
			status["not_ready"]++
		default:
			status["ready"]++
		}
		nodeReady.send(ch, truth(n.Ready), n.ID)
		if !n.Ready {
			nodeWhy.send(ch, 1, n.ID, code(n.Reason))
		}
		nodeReach.send(ch, truth(n.Reachable), n.ID)
		open[n.ID] = n.Ready && n.Reachable && !n.Cordoned && !n.Draining
	}
	for name, number := range status {
		nodeCount.send(ch, float64(number), name)
	}
	return open
}

// fleet is what the devices of one type come to.
type fleet struct {
	in               map[gpu.State]int
	sick, out, milli int
}

func collectDevices(ch chan<- prometheus.Metric, view state.View, open map[string]bool) {
	types := map[string]*fleet{}
	for d := range view.Devices() {
		f := types[d.Type]
		if f == nil {
			f = &fleet{in: map[gpu.State]int{}}
			types[d.Type] = f
		}
		f.in[d.State]++
		f.milli += d.HeldMilli()
		if !healthy(d) {
			f.sick++
		}
		if !healthy(d) || d.Unusable != "" || d.Blocked != "" || !open[d.Node] {
			f.out++
		}
	}
	for name, f := range types {
		for _, s := range deviceStates {
			deviceCount.send(ch, float64(f.in[s]), name, string(s))
		}
		deviceSick.send(ch, float64(f.sick), name)
		deviceOut.send(ch, float64(f.out), name)
		deviceHeld.send(ch, float64(f.milli)/gpu.MilliPerDevice, name)
	}
}

func collectRuns(ch chan<- prometheus.Metric, view state.View) {
	in := map[workspace.RunKind]map[workspace.Phase]int{}
	for r := range view.AllRuns() {
		if in[r.Kind] == nil {
			in[r.Kind] = map[workspace.Phase]int{}
		}
		in[r.Kind][r.Phase]++
	}
	for _, k := range kinds {
		for _, p := range phases {
			runsIn.send(ch, float64(in[k][p]), string(k), string(p))
		}
	}
	waiting, waits := map[string]int{}, map[string]int{}
	var oldest time.Time
	for r := range view.PendingRuns() {
		waiting[code(r.Reason)]++
		waits[r.Workspace]++
		if oldest.IsZero() || r.Times.Created.Before(oldest) {
			oldest = r.Times.Created
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(waiting)) {
		runsWaiting.send(ch, float64(waiting[reason]), reason)
	}
	since := 0.0
	if !oldest.IsZero() {
		since = float64(oldest.UnixMilli()) / 1000
	}
	runsOldest.send(ch, since)
	for w := range view.Workspaces("") {
		n := 0
		for range view.ActiveRuns(w.ID) {
			n++
		}
		active.send(ch, float64(n), w.ID)
		pending.send(ch, float64(waits[w.ID]), w.ID)
		limit.send(ch, float64(w.Limits.MaxConcurrentRuns), w.ID)
	}
}
