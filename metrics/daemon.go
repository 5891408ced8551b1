package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	raftLeads    = gauge("raft_leader", "Whether this server leads: 1 or 0.")
	raftHas      = gauge("raft_has_leader", "Whether this server knows a leader: 1 or 0.")
	raftTerm     = gauge("raft_term", "Raft term.")
	raftLed      = counter("raft_terms_led_total", "Terms that this server has led since it started; their sum over all servers is the changes of leader.")
	raftCommit   = gauge("raft_commit_index", "Highest index known to be committed.")
	raftApplied  = gauge("raft_applied_index", "Highest index applied.")
	raftSnapshot = gauge("raft_snapshot_index", "Index up to which the latest snapshot goes; 0: there is none.")
	raftSince    = gauge("raft_without_leader_seconds", "Time since this server heard of a leader; 0 on the leader.")
	stateIdx     = gauge("state_index", "Raft index that this replica of the state has applied.")

	agentContainers = counter("agent_containers_total", "Containers the agent has dealt with since it started.", "action")
	agentGoAheads   = counter("agent_go_aheads_total", "Starts that the agent has asked the leader about.")
	agentReports    = counter("agent_reports_total", "Batches of reports sent to the cluster.", "result")
	agentRuns       = gauge("agent_runs", "Runs that the agent looks after now.")
	agentOrphans    = gauge("agent_quarantined_containers", "Containers that are neither wanted nor known to have ended.")

	driverLast     = gauge("nvml_last_success_timestamp_seconds", "When the GPU driver last answered a call; 0: it hasn't yet, or there is none.")
	driverHangs    = gauge("nvml_unresponsive", "Whether the latest call to the GPU driver got no answer: 1 or 0.")
	driverRestarts = counter("nvml_restarts_total", "Restarts of the process that asks the GPU driver.")
)

// raftCollector reads this server's Raft.
type raftCollector struct{ *Metrics }

// Describe sends the families.
func (raftCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, raftLeads, raftHas, raftTerm, raftLed, raftCommit, raftApplied, raftSnapshot, raftSince, stateIdx)
}

// Collect sends the readings.
func (c raftCollector) Collect(ch chan<- prometheus.Metric) {
	r := c.Raft()
	raftLeads.send(ch, truth(r.Leader))
	raftHas.send(ch, truth(r.HasLeader))
	raftTerm.send(ch, float64(r.Term))
	raftLed.send(ch, float64(r.TermsLed))
	raftCommit.send(ch, float64(r.CommitIndex))
	raftApplied.send(ch, float64(r.AppliedIndex))
	raftSnapshot.send(ch, float64(r.SnapshotIndex))
	raftSince.send(ch, r.SinceLeader.Seconds())
	stateIdx.send(ch, float64(c.View().Index()))
}

// agentCollector reads this node's agent.
type agentCollector struct{ *Metrics }

// Describe sends the families.
func (agentCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, agentContainers, agentGoAheads, agentReports, agentRuns, agentOrphans)
}

// Collect sends the readings.
func (c agentCollector) Collect(ch chan<- prometheus.Metric) {
	a := c.Agent()
	agentContainers.send(ch, float64(a.Starts), "started")
	agentContainers.send(ch, float64(a.Adoptions), "adopted")
	agentContainers.send(ch, float64(a.Ends), "ended")
	agentContainers.send(ch, float64(a.Kills), "killed")
	agentContainers.send(ch, float64(a.Reaped), "reaped")
	agentGoAheads.send(ch, float64(a.GoAheads))
	agentReports.send(ch, float64(a.Reports), "recorded")
	agentReports.send(ch, float64(a.ReportFailures), "failed")
	agentRuns.send(ch, float64(a.Runs))
	agentOrphans.send(ch, float64(a.Orphans))
}

// driverCollector reads how reading goes, which asks the driver nothing.
type driverCollector struct{ *Metrics }

// Describe sends the families.
func (driverCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, driverLast, driverHangs, driverRestarts)
}

// Collect sends the readings.
func (c driverCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.GPU.Status()
	last := 0.0
	if !s.LastSuccess.IsZero() {
		last = float64(s.LastSuccess.UnixMilli()) / 1000
	}
	driverLast.send(ch, last)
	driverHangs.send(ch, truth(s.Unresponsive))
	driverRestarts.send(ch, float64(s.Restarts))
}
