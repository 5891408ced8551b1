package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	raftLeads   = gauge("raft_leader", "Whether this server leads: 1 or 0.")
	raftHas     = gauge("raft_has_leader", "Whether this server knows a leader: 1 or 0.")
	raftTerm    = gauge("raft_term", "Raft term.")
	raftCommit  = gauge("raft_commit_index", "Highest index known to be committed.")
	raftApplied = gauge("raft_applied_index", "Highest index applied.")

	agentContainers = counter("agent_containers_total", "Containers the agent has dealt with since it started.", "action")
	agentReports    = counter("agent_reports_total", "Batches of reports sent to the cluster.", "result")
	agentOrphans    = gauge("agent_quarantined_containers", "Containers that are neither wanted nor known to have ended.")
)

// raftCollector reads this server's Raft.
type raftCollector struct{ Config }

// Describe sends the families.
func (raftCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, raftLeads, raftHas, raftTerm, raftCommit, raftApplied)
}

// Collect sends the readings.
func (c raftCollector) Collect(ch chan<- prometheus.Metric) {
	r := c.Raft()
	raftLeads.send(ch, truth(r.Leader))
	raftHas.send(ch, truth(r.HasLeader))
	raftTerm.send(ch, float64(r.Term))
	raftCommit.send(ch, float64(r.CommitIndex))
	raftApplied.send(ch, float64(r.AppliedIndex))
}

// agentCollector reads this node's agent.
type agentCollector struct{ Config }

// Describe sends the families.
func (agentCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, agentContainers, agentReports, agentOrphans)
}

// Collect sends the readings.
func (c agentCollector) Collect(ch chan<- prometheus.Metric) {
	a := c.Agent()
	agentContainers.send(ch, float64(a.Starts), "started")
	agentContainers.send(ch, float64(a.Adoptions), "adopted")
	agentContainers.send(ch, float64(a.Ends), "ended")
	agentContainers.send(ch, float64(a.Kills), "killed")
	agentContainers.send(ch, float64(a.Reaped), "reaped")
	agentReports.send(ch, float64(a.Reports), "recorded")
	agentReports.send(ch, float64(a.ReportFailures), "failed")
	agentOrphans.send(ch, float64(a.Orphans))
}
