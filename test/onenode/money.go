package onenode

import (
	"context"

	"berth/state"
	"berth/workspace"
)

// Lived reports that an instance's run, which it waits for, has lived so many
// milliseconds: they are charged.
func (c *cluster) Lived(ctx context.Context, name string, ms int64) error {
	run, err := c.liveRun(ctx, name)
	if err != nil {
		return err
	}
	return c.report(workspace.Report{Runs: []workspace.RunReport{
		{Run: run.ID, Epoch: run.Epoch, Phase: workspace.PhaseRunning, Reason: "lived", Message: "said the node", LivedMS: ms},
	}})
}

// Unreachable lets the leader lose the node.
func (c *cluster) Unreachable() error {
	return c.do(state.Caller{Principal: "leader", Role: workspace.RoleSystem}, &state.SetReachable{Node: NodeID})
}
