package agent

import "sync/atomic"

// Stats counts what this agent has done since it was made.
type Stats struct {
	Starts         uint64 // containers started
	Adoptions      uint64 // running containers found and taken on
	Ends           uint64 // ends of runs reported
	Kills          uint64 // SIGKILLs sent to cgroups
	Reaped         uint64 // orphans removed
	GoAheads       uint64 // questions answered by the leader
	Reports        uint64 // batches recorded by the cluster
	ReportFailures uint64 // batches that had to be sent again
	Runs           int    // runs looked after now
	Orphans        int    // containers in quarantine now
}

type counters struct {
	starts, adoptions, ends, kills, reaped, goAheads, reports, reportFailures atomic.Uint64
}

// Stats gives the counters as they are now.
func (a *Agent) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &a.stats
	return Stats{
		Starts:         c.starts.Load(),
		Adoptions:      c.adoptions.Load(),
		Ends:           c.ends.Load(),
		Kills:          c.kills.Load(),
		Reaped:         c.reaped.Load(),
		GoAheads:       c.goAheads.Load(),
		Reports:        c.reports.Load(),
		ReportFailures: c.reportFailures.Load(),
		Runs:           len(a.workers),
		Orphans:        len(a.orphans),
	}
}
