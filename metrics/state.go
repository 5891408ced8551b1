package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"berth/gpu"
	"berth/workspace"
)

var (
	nodeReady = gauge("node_ready", "Whether the node takes work: 1 or 0.", "node")
	nodeReach = gauge("node_reachable", "Whether the node is heard from: 1 or 0.", "node")
	nodeCPU   = gauge("node_cpu_offered_cores", "Cores the node offers to runs.", "node")
	nodeMem   = gauge("node_memory_offered_bytes", "Memory the node offers to runs.", "node")
	nodeCPUs  = gauge("node_cpu_assigned_cores", "Cores of the node's active runs.", "node")
	nodeMems  = gauge("node_memory_assigned_bytes", "Memory of the node's active runs.", "node")
	deviceIs  = gauge("device_state", "1 for the state the device is in, 0 for the others.", "node", "device", "state")
	deviceOK  = gauge("device_healthy", "Whether the device is healthy and listed: 1 or 0.", "node", "device")
	deviceUse = gauge("device_held_ratio", "Share of the device that is held, 0 to 1.", "node", "device")
	runsIn    = gauge("runs", "Runs by phase, ended ones that are still kept included.", "phase")
	active    = gauge("workspace_active_runs", "Runs that count for the workspace's concurrency.", "workspace")
	limit     = gauge("workspace_max_concurrent_runs", "The workspace's concurrency limit.", "workspace")
	stateIdx  = gauge("state_index", "Raft index that this replica of the state has applied.")
)

var deviceStates = []gpu.State{gpu.Free, gpu.Held, gpu.Releasing, gpu.Stuck}

var phases = []workspace.Phase{
	workspace.PhasePending, workspace.PhaseAssigned, workspace.PhasePulling, workspace.PhaseStarting,
	workspace.PhaseRunning, workspace.PhaseStopping, workspace.PhaseSucceeded, workspace.PhaseFailed,
	workspace.PhaseStopped, workspace.PhaseLost,
}

// stateCollector computes every gauge of the state from one view of it.
type stateCollector struct{ Config }

// Describe sends the families.
func (stateCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, nodeReady, nodeReach, nodeCPU, nodeMem, nodeCPUs, nodeMems, deviceIs, deviceOK, deviceUse,
		runsIn, active, limit, stateIdx)
}

// Collect sends the readings.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	view := c.View()
	stateIdx.send(ch, float64(view.Index()))
	for n := range view.Nodes() {
		nodeReady.send(ch, truth(n.Ready), n.ID)
		nodeReach.send(ch, truth(n.Reachable), n.ID)
		nodeCPU.send(ch, cores(n.Facts.CPUMilli), n.ID)
		nodeMem.send(ch, bytes(n.Facts.MemoryMiB), n.ID)
		var used workspace.Resources
		for r := range view.NodeRuns(n.ID) {
			if r.Phase.Active() {
				used.CPUMilli += r.Resources.CPUMilli
				used.MemoryMiB += r.Resources.MemoryMiB
			}
		}
		nodeCPUs.send(ch, cores(used.CPUMilli), n.ID)
		nodeMems.send(ch, bytes(used.MemoryMiB), n.ID)
	}
	for d := range view.Devices() {
		for _, s := range deviceStates {
			deviceIs.send(ch, truth(d.State == s), d.Node, d.UUID, string(s))
		}
		deviceOK.send(ch, truth(d.Health == gpu.Healthy && !d.Missing), d.Node, d.UUID)
		deviceUse.send(ch, float64(d.HeldMilli())/gpu.MilliPerDevice, d.Node, d.UUID)
	}
	in := map[workspace.Phase]int{}
	for r := range view.AllRuns() {
		in[r.Phase]++
	}
	for _, p := range phases {
		runsIn.send(ch, float64(in[p]), string(p))
	}
	for w := range view.Workspaces("") {
		n := 0
		for range view.ActiveRuns(w.ID) {
			n++
		}
		active.send(ch, float64(n), w.ID)
		limit.send(ch, float64(w.Limits.MaxConcurrentRuns), w.ID)
	}
}

func cores(milli int64) float64 { return float64(milli) / 1000 }

func bytes(mib int64) float64 { return float64(mib) * (1 << 20) }
