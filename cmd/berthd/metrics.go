package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/metrics"
)

// metricsConfig says where the readings come from. Guard and agent come later
// than the metrics, which count what the devices tell.
func (p *parts) metricsConfig() metrics.Config {
	return metrics.Config{
		Version: version, Node: p.node, Host: nodeName(p.config), DCGM: p.config.Metrics.DCGM,
		View: p.cluster.View, Ready: p.cluster.Ready(), GPU: p.gpus, Disks: p.disks,
		History: p.history.metrics, Guard: p.askGuard,
		Raft: func() metrics.Raft {
			s := p.cluster.Status()
			return metrics.Raft{Leader: s.Leader == p.node, HasLeader: s.Leader != "", Term: s.Term, TermsLed: s.TermsLed,
				CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex, SnapshotIndex: s.LastSnapshotIndex, SinceLeader: s.SinceLeader}
		},
		Agent: func() metrics.Agent {
			s := p.agent.Stats()
			return metrics.Agent{Starts: s.Starts, Adoptions: s.Adoptions, Ends: s.Ends, Kills: s.Kills, Reaped: s.Reaped,
				GoAheads: s.GoAheads, Reports: s.Reports, ReportFailures: s.ReportFailures, Runs: s.Runs, Orphans: s.Orphans}
		},
	}
}

// askGuard asks this host's guard how it is.
func (p *parts) askGuard(ctx context.Context) (metrics.Guard, error) {
	s, err := p.guard.Status(ctx)
	return metrics.Guard{Entries: s.Entries, Erred: s.LastError != ""}, err
}

// disks are those that berth fills: the one with the data directory (volumes,
// logs, the Raft log), and the fullest that holds images. A containerd that
// doesn't answer hides the latter only.
func (p *parts) disks(ctx context.Context) ([]metrics.Disk, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(p.config.DataDir, &stat); err != nil {
		return nil, fmt.Errorf("disk of %s: %w", p.config.DataDir, err)
	}
	all := []metrics.Disk{{
		Name: "data",
		Size: int64(stat.Blocks) * stat.Bsize, // #nosec G115 -- a host's disk
		Free: int64(stat.Bavail) * stat.Bsize, // #nosec G115 -- less than that
	}}
	if images, err := p.runtime.ImageDisk(ctx); err == nil {
		all = append(all, metrics.Disk{Name: "images", Size: images.Total, Free: images.Total - images.Used})
	}
	return all, nil
}
