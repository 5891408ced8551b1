package cluster

import (
	"strconv"
	"time"

	"github.com/hashicorp/raft"
)

// Status is this server's part in the cluster, at one moment.
type Status struct {
	NodeID            string
	Name              string
	Role              string // "leader", "follower", "candidate" or "stopped"
	Leader            string // node id, empty when none is known
	Term              uint64
	TermsLed          uint64 // that this server has led since it was opened
	CommitIndex       uint64
	AppliedIndex      uint64 // of the last command that the state holds
	LastSnapshotIndex uint64
	SinceLeader       time.Duration // without word of a leader; 0 on the leader
	Ready             bool          // the state has caught up once and a leader is known
}

// Status of this server now.
func (c *Cluster) Status() Status {
	_, leader := c.raft.LeaderWithID()
	s := Status{
		NodeID: c.cfg.NodeID, Name: c.cfg.Name, Leader: string(leader), Term: c.raft.CurrentTerm(), TermsLed: c.led.Load(),
		CommitIndex: c.raft.CommitIndex(), AppliedIndex: c.View().Index(),
	}
	// Raft tells this number in no other way; it is always one.
	s.LastSnapshotIndex, _ = strconv.ParseUint(c.raft.Stats()["last_snapshot_index"], 10, 64)
	switch c.raft.State() {
	case raft.Leader:
		s.Role = "leader"
	case raft.Candidate:
		s.Role = "candidate"
	case raft.Follower:
		s.Role = "follower"
	default:
		s.Role = "stopped"
	}
	if s.Role != "leader" {
		heard := c.raft.LastContact()
		if heard.IsZero() {
			heard = c.opened
		}
		s.SinceLeader = c.cfg.Now().Sub(heard)
	}
	select {
	case <-c.ready:
		s.Ready = s.Leader != "" && s.Role != "stopped"
	default:
	}
	return s
}

// Ready is closed once the state holds everything that was committed before
// this server started.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }
