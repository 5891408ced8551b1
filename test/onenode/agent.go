package onenode

import (
	"context"
	"fmt"
	"time"

	"berth/state"
	"berth/workspace"
)

// report speaks for the node, then lets the leader place what waits and do what
// is due.
func (c *cluster) report(r workspace.Report) error {
	r.Node, r.Stamp = NodeID, workspace.Stamp{BootID: "boot-1", BoottimeMS: int64(c.View().Index())}
	if err := c.do(state.Caller{Principal: NodeID, Role: workspace.RoleNode}, &state.Report{Report: r}); err != nil {
		return err
	}
	for run := range c.View().PendingRuns() {
		err := c.do(state.Caller{Principal: "leader", Role: workspace.RoleSystem}, &state.PlaceRuns{
			Placements: []state.Placement{{Run: run.ID, Suggestion: *c.suggest(run.Resources)}}})
		if err != nil {
			return err
		}
	}
	if due := c.View().NextDue(); due.IsZero() || due.After(time.Now()) {
		return nil
	}
	return c.do(state.Caller{Principal: "leader", Role: workspace.RoleSystem}, &state.Sweep{})
}

// instance by name in the default workspace, one that is being deleted too; nil
// when there is none.
func (c *cluster) instance(name string) *workspace.Instance {
	v := c.View()
	w := v.DefaultWorkspace().ID
	if inst := v.InstanceByName(w, name); inst != nil {
		return inst
	}
	for inst := range v.Instances(w, "") {
		if inst.Name == name {
			return inst
		}
	}
	return nil
}

// Run reports a phase of an instance's run, which it waits for, as the agent of
// the node would. An end releases the run's devices.
func (c *cluster) Run(ctx context.Context, name string, phase workspace.Phase, reason, message string) error {
	run, err := c.liveRun(ctx, name)
	if err != nil {
		return err
	}
	r := workspace.RunReport{Run: run.ID, Epoch: run.Epoch, Phase: phase, Reason: reason, Message: message}
	switch {
	case phase == workspace.PhaseRunning:
		r.Access = []workspace.AccessInfo{{Type: "NODE_PORT", Protocol: "HTTP", Host: "127.0.0.1", Port: 30001, Name: "web"}}
	case phase.Terminal():
		code := map[workspace.Phase]int{workspace.PhaseFailed: 3}[phase]
		r.ExitCode = &code
	}
	report := workspace.Report{Runs: []workspace.RunReport{r}}
	if phase == workspace.PhaseRunning && run.Volume != "" {
		report.Volumes = []workspace.VolumeReport{{ID: run.Volume, Made: true}}
	}
	if err := c.report(report); err != nil || !phase.Terminal() {
		return err
	}
	var released []workspace.Release
	for _, d := range run.Devices {
		released = append(released, workspace.Release{Device: d.UUID, Run: run.ID, Epoch: run.Epoch})
	}
	return c.report(workspace.Report{Released: released})
}

// liveRun waits until an instance has a run that is on the node.
func (c *cluster) liveRun(ctx context.Context, name string) (*workspace.Run, error) {
	for {
		v := c.View()
		if inst := c.instance(name); inst != nil {
			if run := v.Run(inst.Run); run != nil && run.Phase.Active() {
				return run, nil
			}
		}
		if err := v.Wait(ctx, state.TopicInstances, state.TopicRuns); err != nil {
			return nil, fmt.Errorf("instance %s has no run on the node: %w", name, err)
		}
	}
}
